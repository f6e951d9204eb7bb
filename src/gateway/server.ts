import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ErrorReply } from 'redis';
import { type Access, type Authenticate, bearerToken } from './auth.ts';
import type { Backend } from './backend.ts';
import { BackendUnavailable, GatewayError, wireText } from './errors.ts';
import { Executor } from './executor.ts';
import { type Encoding, writeError, writeOutcome, writeOutcomes } from './json.ts';
import { createListener, type Listener } from './listener.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import { type Arg, type Command, JSON_SHAPE, type Outcome, RESP_SHAPE } from './reply.ts';
import { BodyBudget, parseCommand, parseCommands, readBody } from './request.ts';
import { writeResp } from './resp.ts';
import { type Route, routeOf } from './route.ts';
import { Streams } from './streams.ts';

export interface ServerOptions {
  backend: Backend;
  authenticate: Authenticate;
  maxRequestBytes: number;
  maxBufferedBytes: number;
  maxInFlight: number;
  maxStreams: number;
  metrics: Metrics;
  log: Log;
}

export interface GatewayServer extends Omit<Listener, 'draining'> {
  /** Commands accepted and not yet answered. */
  readonly inFlight: number;
}

/** The answer to one request. */
interface Answer {
  status: number;
  type: string;
  body: string | Buffer;
}

const JSON_TYPE = 'application/json';
/** Redis's own ways of saying that it cannot serve at present. Answered as 503, with Redis's words. */
const UNAVAILABLE_REPLY = /^(?:LOADING|CLUSTERDOWN|MASTERDOWN|READONLY|NOREPLICAS) /;

/** The HTTP side: routes, authentication, limits, and an answer in JSON for everything that goes wrong. */
export function createGatewayServer(options: ServerOptions): GatewayServer {
  const { backend, authenticate, maxRequestBytes, maxBufferedBytes, maxInFlight, maxStreams, metrics, log } = options;
  const executor = new Executor(backend, maxInFlight);
  const streams = new Streams(backend, maxStreams);
  const budget = new BodyBudget(maxBufferedBytes);
  const instance = randomBytes(6).toString('base64url');
  let responses = 0;

  /** Answers one request; `undefined`: the answer is a stream, and has begun. */
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<Answer | undefined> {
    const { route, token } = routeOf(request.method ?? 'GET', request.url ?? '/');
    if (route.kind === 'health') return health();
    const access = authenticate(bearerToken(request.headers.authorization) ?? token);
    if (!access) throw new GatewayError(401, 'Unauthorized');
    if (route.kind === 'metrics') {
      const gauges = { inFlight: executor.inFlight, streams: streams.size, connected: backend.connected };
      return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: metrics.write(gauges) };
    }
    if (route.kind === 'subscribe' || route.kind === 'monitor') {
      request.resume();
      if (route.kind === 'subscribe') {
        await streams.subscribe(response, route.pattern, route.names);
      } else {
        // It shows every command of every client.
        if (access !== 'full') throw new GatewayError(400, "NOPERM this token has no permissions to run 'monitor'");
        await streams.monitor(response);
      }
      return undefined;
    }
    const { body, release } = await readBody(request, maxRequestBytes, budget);
    try {
      return await run(route, body, access, request.headers);
    } finally {
      release();
    }
  }

  async function run(
    route: Exclude<Route, { kind: 'health' | 'metrics' | 'monitor' | 'subscribe' }>,
    body: Buffer,
    access: Access,
    headers: IncomingMessage['headers'],
  ): Promise<Answer> {
    const raw = headers['upstash-response-format'] === 'resp2';
    const shape = raw ? RESP_SHAPE : JSON_SHAPE;
    const encoding: Encoding = headers['upstash-encoding'] === 'base64' ? 'base64' : 'text';
    if (route.kind === 'command' || route.kind === 'path-command') {
      const command = route.kind === 'command' ? parseCommand(body) : pathCommand(route, body);
      const [outcome] = (await executor.run([command], access, shape)) as [Outcome];
      metrics.commands(1, outcome instanceof Error ? 1 : 0);
      // Errors are in JSON in every format: that is how clients tell what went wrong with a non-2xx answer.
      if (outcome instanceof Error) throw outcome;
      return raw ? rawAnswer([outcome]) : { status: 200, type: JSON_TYPE, body: writeOutcome(outcome, encoding) };
    }
    const commands = parseCommands(body);
    const outcomes =
      route.kind === 'transaction'
        ? await executor.transaction(commands, access, shape)
        : await executor.run(commands, access, shape);
    if (outcomes instanceof Error) {
      metrics.commands(commands.length, commands.length);
      throw outcomes;
    }
    const failed = outcomes.reduce((count: number, outcome) => count + (outcome instanceof Error ? 1 : 0), 0);
    metrics.commands(outcomes.length, failed);
    // Nothing of it was answered: that is not a pipeline with errors in it, but Redis being away.
    if (failed > 0 && outcomes.every((outcome) => outcome instanceof BackendUnavailable)) throw outcomes[0];
    return raw ? rawAnswer(outcomes) : { status: 200, type: JSON_TYPE, body: writeOutcomes(outcomes, encoding) };
  }

  function health(): Answer {
    const { description, connected } = backend;
    const status = connected ? 'ok' : 'degraded';
    return { status: 200, type: JSON_TYPE, body: JSON.stringify({ status, backend: description, connected }) };
  }

  function failure(error: unknown): Answer {
    const status = statusOf(error);
    if (status === 500) {
      log({ level: 'error', event: 'internal_error', error: error instanceof Error ? error.stack : String(error) });
    }
    const message = status === 500 ? 'ERR internal error of the gateway' : wireText(error as Error);
    return { status, type: JSON_TYPE, body: writeError(message) };
  }

  function send(response: ServerResponse, { status, type, body }: Answer): void {
    // The client is gone, or its stream had begun; there is nobody to tell.
    if (response.headersSent || response.destroyed) return void response.end();
    response.writeHead(status, {
      'content-type': type,
      'upstash-sync-token': `${instance}-${(++responses).toString(36)}`,
      ...(status === 401 && { 'www-authenticate': 'Bearer' }),
      ...(status === 503 && { 'retry-after': '1' }),
      ...(listener.draining && { connection: 'close' }),
    });
    response.end(body);
  }

  const listener = createListener((request, response) => {
    const startedAt = performance.now();
    answer(request, response)
      .catch(failure)
      .then((result) => {
        if (!result) return;
        send(response, result);
        metrics.request(result.status, performance.now() - startedAt);
      })
      .catch((error: unknown) => response.destroy(error as Error));
  });

  return {
    get address() {
      return listener.address;
    },
    get inFlight() {
      return executor.inFlight;
    },
    listen: (host, port) => listener.listen(host, port),
    async close(graceMs) {
      const closed = listener.close(graceMs);
      await streams.close();
      await closed;
    },
  };
}

function pathCommand(route: Extract<Route, { kind: 'path-command' }>, body: Buffer): Command {
  return [...route.args, ...(body.length > 0 ? [body] : []), ...route.options] as [Arg, ...Arg[]];
}

function rawAnswer(outcomes: readonly Outcome[]): Answer {
  return { status: 200, type: 'application/octet-stream', body: writeResp(outcomes) };
}

function statusOf(error: unknown): number {
  if (error instanceof GatewayError) return error.status;
  if (error instanceof BackendUnavailable) return 503;
  if (error instanceof ErrorReply) return UNAVAILABLE_REPLY.test(error.message) ? 503 : 400;
  return 500;
}
