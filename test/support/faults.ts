import { randomInt } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

import { startGateway } from '../../src/gateway/gateway.ts';
import type { Fault, WireCommand } from './faults/fault.ts';

export * from './faults/fault.ts';

/** A request that arrived, whatever became of it. Times by `performance.now()`. */
export interface SeenRequest {
  readonly commands: readonly WireCommand[];
  readonly arrivedAtMs: number;
  /** When a whole response was sent. */
  answeredAtMs?: number;
  /** When it was over: responded to, dropped, or given up by the client. */
  endedAtMs?: number;
}

export interface FaultCounts {
  /** HTTP requests that arrived, and those that got their whole response. */
  requests: number;
  answered: number;
  commands: number;
}

/**
 * Redis over REST that fails as a test asks for.
 *
 * @example
 * await using redis = await startFaultyRedis();
 * redis.mode = { kind: 'hang' };                                    // every request, until the mode changes
 * redis.mode = { kind: 'drop-after', when: script('session'), times: 1 };
 * await redis.clear();
 */
export interface FaultyRedis extends AsyncDisposable {
  readonly url: string;
  readonly token: string;
  /** What happens to requests from now on. What hangs already goes on hanging. */
  mode: Fault;
  /** All is well from now on: it listens, and what was hanging is cut. */
  clear(): Promise<void>;
  /** Since the last {@link reset}. */
  readonly counts: FaultCounts;
  readonly requests: readonly SeenRequest[];
  reset(): void;
  /** Resolves when nothing is under way and nothing has arrived for a while. */
  idle(quietMs?: number): Promise<void>;
  /** The same Redis behind the faults, without their cost. */
  readonly direct: { url: string; token: string };
  /** Asks the engine itself, behind the faults. @throws {Error} Redis's error */
  engine(...command: WireCommand): Promise<unknown>;
  /** {@link engine} for several commands. */
  engineAll(commands: readonly WireCommand[]): Promise<unknown[]>;
}

const TOKEN = 'faulty-redis';

/**
 * Starts a REST server on a port of its own before a real engine of its own, or before other servers.
 *
 * @param redisUrl as the gateway takes it
 */
export async function startFaultyRedis(redisUrl?: string): Promise<FaultyRedis> {
  const gateway = await startGateway({ token: TOKEN, port: 0, ...(redisUrl !== undefined && { redisUrl }) });
  let requests: SeenRequest[] = [];
  let fault: Fault = { kind: 'none' };
  let left = Infinity;

  async function forward(path: string, body: unknown): Promise<{ status: number; text: string }> {
    const response = await fetch(`${gateway.url}${path}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${TOKEN}` },
      body: JSON.stringify(body),
    });
    return { status: response.status, text: await response.text() };
  }

  /** The fault that this request meets, which may be its last. */
  function meet(commands: readonly WireCommand[]): Fault {
    const met = fault;
    if (met.kind === 'none' || met.kind === 'refuse') return met;
    if (met.when !== undefined && !commands.some(met.when)) return { kind: 'none' };
    left -= 1;
    if (left <= 0) fault = { kind: 'none' };
    return met;
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = (await json(request)) as WireCommand | WireCommand[];
    const path = request.url ?? '/';
    const single = path === '/';
    const commands = (single ? [body] : body) as WireCommand[];
    const seen: SeenRequest = { commands, arrivedAtMs: performance.now() };
    requests.push(seen);
    response.once('close', () => (seen.endedAtMs = performance.now()));

    const answer = ({ status, text, type = 'application/json' }: { status: number; text: string; type?: string }) => {
      // Before it is sent: a client that acts upon the response finds it counted.
      seen.answeredAtMs = performance.now();
      response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) }).end(text);
    };
    const cut = () => request.socket.destroy();

    const met = meet(commands);
    switch (met.kind) {
      case 'none':
        return answer(await forward(path, body));
      case 'refuse':
      case 'drop-before':
        return void cut();
      case 'hang':
        return;
      case 'delay':
        await sleep(met.ms);
        return answer(await forward(path, body));
      case 'meanwhile':
        await met.act();
        return answer(await forward(path, body));
      case 'stall': {
        const { status, text } = await forward(path, body);
        response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
        return void response.write(text.slice(0, text.length / 2));
      }
      case 'drop-after':
        await forward(path, body);
        return void cut();
      case 'answer':
        return answer({ status: met.status, text: met.body, ...(met.type !== undefined && { type: met.type }) });
      case 'rewrite': {
        const { status, text } = await forward(path, body);
        return answer({ status, text: met.rewrite(text) });
      }
      case 'slot': {
        const refused = commands.map((command) => met.when?.(command) ?? true);
        const executed = commands.filter((_, index) => !refused[index]);
        const { text } = executed.length > 0 ? await forward('/pipeline', executed) : { text: '[]' };
        const results = JSON.parse(text) as unknown[];
        const slots = refused.map((is) => (is ? { error: met.error } : results.shift()));
        return answer(
          single
            ? { status: refused[0] === true ? 400 : 200, text: JSON.stringify(slots[0]) }
            : { status: 200, text: JSON.stringify(slots) },
        );
      }
    }
  }

  let server: Server | undefined;
  let hanging = new Set<ServerResponse>();

  function listen(port: number): Promise<Server> {
    const started = createServer((request, response) => {
      hanging.add(response);
      response.once('close', () => hanging.delete(response));
      // A client that leaves while its request is read, or the engine that is going away.
      handle(request, response).catch(() => request.socket.destroy());
    });
    return new Promise((resolve, reject) => {
      started.once('error', reject).listen(port, '127.0.0.1', () => resolve(started));
    });
  }

  function close(): void {
    server?.close();
    server?.closeAllConnections();
    server = undefined;
  }

  const port = await lowPort(listen).then((started) => {
    server = started;
    return (started.address() as { port: number }).port;
  });
  /** One opening at a time; the last mode that was set decides what is left standing. */
  let opening: Promise<void> = Promise.resolve();
  const open = () =>
    (opening = opening.then(async () => {
      if (server !== undefined || fault.kind === 'refuse') return;
      const started = await listen(port);
      server = started;
      if ((fault.kind as Fault['kind']) === 'refuse') close();
    }));

  const redis: FaultyRedis = {
    url: `http://127.0.0.1:${port}`,
    token: TOKEN,
    get mode() {
      return fault;
    },
    set mode(next) {
      fault = next;
      left = 'times' in next && next.times !== undefined ? next.times : Infinity;
      if (next.kind === 'refuse') close();
      else void open();
    },
    async clear() {
      redis.mode = { kind: 'none' };
      for (const response of hanging) response.socket?.destroy();
      hanging = new Set();
      await open();
    },
    get counts() {
      return {
        requests: requests.length,
        answered: requests.filter(({ answeredAtMs }) => answeredAtMs !== undefined).length,
        commands: requests.reduce((sum, { commands }) => sum + commands.length, 0),
      };
    },
    get requests() {
      return requests;
    },
    reset() {
      requests = [];
    },
    async idle(quietMs = 150) {
      const lastMs = () => Math.max(0, ...requests.map(({ arrivedAtMs, endedAtMs }) => endedAtMs ?? arrivedAtMs));
      while (hanging.size > 0 || performance.now() - lastMs() < quietMs) await sleep(10);
    },
    direct: { url: gateway.url, token: TOKEN },
    async engine(...command) {
      const [result] = await redis.engineAll([command]);
      return result;
    },
    async engineAll(commands) {
      const { text } = await forward('/pipeline', commands);
      return (JSON.parse(text) as { result?: unknown; error?: string }[]).map(({ result, error }) => {
        if (error !== undefined) throw new Error(error);
        return result;
      });
    },
    async [Symbol.asyncDispose]() {
      await opening;
      close();
      await gateway.close();
    },
  };
  return redis;
}

/**
 * A free port below those that the system gives to outgoing connections: while no server listens on it, no other connection
 * (and none to itself) may take it.
 */
async function lowPort(listen: (port: number) => Promise<Server>): Promise<Server> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await listen(randomInt(12_000, 32_000));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || attempt > 50) throw error;
    }
  }
}
