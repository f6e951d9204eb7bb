import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { ErrorReply } from 'redis';
import { type Access, type Authenticate, bearerToken } from './auth.ts';
import type { Backend } from './backend.ts';
import { BackendUnavailable, GatewayError, wireText } from './errors.ts';
import { Executor } from './executor.ts';
import { type Encoding, writeError, writeOutcome, writeOutcomes } from './json.ts';
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

export interface GatewayServer {
  /** Where it listens. */
  readonly address: AddressInfo;
  /** Commands accepted and not yet answered. */
  readonly inFlight: number;
  /** Rejects with one line of text and Node's error code. */
  listen(host: string, port: number): Promise<void>;
  /** Accepts nothing further, ends streams, and waits `graceMs` at most for requests in progress. */
  close(graceMs: number): Promise<void>;
}

/** The answer to one request. */
interface Answer {
  status: number;
  type: string;
  body: string | Buffer;
}

const JSON_TYPE = 'application/json';
/** Node's codes for requests that it gives up, and what they are called in HTTP. */
const CLIENT_ERRORS = new Map([
  ['HPE_HEADER_OVERFLOW', '431 Request Header Fields Too Large'],
  ['ERR_HTTP_REQUEST_TIMEOUT', '408 Request Timeout'],
]);
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
  let draining = false;

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
      ...(draining && { connection: 'close' }),
    });
    response.end(body);
  }

  const server = createServer(
    // Commands in the path may be long; a body that takes a minute to arrive is not coming.
    { keepAliveTimeout: 65_000, requestTimeout: 60_000, noDelay: true, maxHeaderSize: 64 * 1024 },
    (request, response) => {
      const startedAt = performance.now();
      answer(request, response)
        .catch(failure)
        .then((result) => {
          if (!result) return;
          send(response, result);
          metrics.request(result.status, performance.now() - startedAt);
        })
        .catch((error: unknown) => response.destroy(error as Error));
    },
  );

  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // A client that neither reads its answer nor goes away is cut off.
  server.timeout = 120_000;
  // What is not HTTP, too large in its head, or too slow never becomes a request; its answer is JSON all the same.
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    const status = CLIENT_ERRORS.get(error.code ?? '') ?? '400 Bad Request';
    const body = writeError(`ERR the request is not acceptable HTTP: ${status.slice(4)}`);
    const head = `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: ${JSON_TYPE}\r\n`;
    socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });

  return {
    get address() {
      return server.address() as AddressInfo;
    },
    get inFlight() {
      return executor.inFlight;
    },
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        server.once('error', (error: NodeJS.ErrnoException) => {
          const reason = error.code === 'EADDRINUSE' ? 'is in use' : `cannot be listened on (${error.code})`;
          reject(
            Object.assign(new Error(`gateway: ${host}:${port} ${reason}`, { cause: error }), { code: error.code }),
          );
        });
        server.listen(port, host, resolve);
      }),
    async close(graceMs) {
      draining = true;
      const late = setTimeout(() => server.closeAllConnections(), graceMs);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await streams.close();
      // Connections become idle when their answer is through; those whose headers were out before cannot be told.
      const closeIdle = () => {
        server.closeIdleConnections();
        // Node takes a connection for busy that has never said anything: clients open some for later.
        for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
      };
      closeIdle();
      const idle = setInterval(closeIdle, 20);
      await closed;
      clearInterval(idle);
      clearTimeout(late);
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
