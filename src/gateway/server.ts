import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Admission } from './admission.ts';
import { type Authenticator, bearerToken, type Identity } from './auth.ts';
import { isRefusedByName, KEYS } from './commands.ts';
import type { Doors } from './door.ts';
import { GatewayError, wireText } from './errors.ts';
import { writeError } from './json.ts';
import { createListener, type Listener, type ListenerLimits } from './listener.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { Arg, Command } from './reply.ts';
import { type BodyBudget, readBody } from './request.ts';
import type { RequestLog } from './requestLog.ts';
import { type GatewayResponse, commandsOf, JSON_TYPE, respondTo, statusOf } from './responses.ts';
import { routeOf } from './route.ts';
import type { StreamLimit } from './streams.ts';
import type { WrongTokens } from './wrongTokens.ts';

export interface ServerOptions extends ListenerLimits {
  doors: Doors;
  authenticator: Authenticator;
  wrongTokens: WrongTokens;
  /** Whether `?_token=…` is taken. A token in a URL ends up in the logs of proxies. */
  tokenInUrl: boolean;
  maxRequestBytes: number;
  budget: BodyBudget;
  admission: Admission;
  streamLimit: StreamLimit;
  metrics: Metrics;
  requestLog: RequestLog;
  log: Log;
}

export interface GatewayServer extends Pick<Listener, 'address' | 'listen' | 'close'> {}

/** A request on its way. */
interface Job {
  request: IncomingMessage;
  response: ServerResponse;
  startedAt: number;
  kind: string;
  commands?: readonly Command[];
}

const SYNC_TOKEN = 'upstash-sync-token';
const REQUEST_ID = 'x-request-id';
/** Larger responses count as buffered until they are read. */
const LARGE_BODY_BYTES = 64 * 1024;
/** Of a pipeline's commands, how many a log line names. */
const LOGGED_COMMANDS = 10;

/** The HTTP side: routes, authentication, limits, and a response in JSON for everything that goes wrong. */
export function createGatewayServer(options: ServerOptions): GatewayServer {
  const { doors, authenticator, wrongTokens, tokenInUrl, maxRequestBytes, budget, metrics, requestLog, log } = options;
  const instance = randomBytes(6).toString('base64url');
  const full = doors.full.backend;
  let requests = 0;
  /** The header with which a connection was recognised last: clients repeat it with every request. */
  const recognised = new WeakMap<Socket, { header: string; identity: Identity }>();

  /** Serves one request; `undefined`: the response is a stream, and has begun. */
  async function serve(job: Job): Promise<GatewayResponse | undefined> {
    const { request, response } = job;
    const isSdk = request.method === 'POST' && request.headers['content-type']?.startsWith(JSON_TYPE) === true;
    const { route, token } = routeOf(request.method ?? 'GET', request.url ?? '/', isSdk);
    job.kind = route.kind;
    const identity = identify(request, tokenInUrl ? token : undefined);
    // Also on paths that need no token: otherwise wrong tokens could be tried there without being counted.
    const isWrong = !identity && (request.headers.authorization !== undefined || token !== undefined);
    if (isWrong) throw refuse(request);
    if (route.kind === 'health') return health(identity);
    if (route.kind === 'ready') return ready();
    if (!identity) throw refuse(request);
    const { access } = identity;
    const { executor, streams } = doors[access];
    if (route.kind === 'metrics') return metricsResponse();
    if (route.kind === 'subscribe') {
      request.resume();
      const form = isSdk ? 'sdk' : 'lines';
      await streams.subscribe(response, { pattern: route.pattern, name: route.name, form, identity });
      return undefined;
    }
    if (route.kind === 'monitor') {
      request.resume();
      // It shows every command of every client.
      if (access !== 'full') throw new GatewayError(400, "NOPERM this token has no permissions to run 'monitor'");
      await streams.monitor(response, identity);
      return undefined;
    }
    const { body, release } = await readBody(request, maxRequestBytes, budget);
    try {
      const commands = (job.commands = commandsOf(route, body));
      return await respondTo(executor, metrics, route, commands, request.headers);
    } finally {
      release();
    }
  }

  function identify(request: IncomingMessage, urlToken: string | undefined): Identity | undefined {
    const header = request.headers.authorization;
    const known = recognised.get(request.socket);
    if (header !== undefined && known?.header === header && authenticator.isValid(known.identity)) {
      return known.identity;
    }
    const identity = authenticator.recognise(bearerToken(header) ?? urlToken);
    if (!identity) return undefined;
    if (header !== undefined) recognised.set(request.socket, { header, identity });
    listener.prove(request.socket);
    return identity;
  }

  function refuse(request: IncomingMessage): GatewayError {
    metrics.count('wrongToken');
    return wrongTokens.isOver(request.socket.remoteAddress)
      ? new GatewayError(429, 'ERR too many requests without a valid token')
      : new GatewayError(401, 'Unauthorized');
  }

  /** Whether this process is alive, and for those with a token, what it talks to. */
  function health(identity: Identity | undefined): GatewayResponse {
    const { description, connected } = full;
    const status = connected ? 'ok' : 'degraded';
    const body = identity ? { status, backend: description, connected } : { status, connected };
    return { status: 200, type: JSON_TYPE, body: JSON.stringify(body) };
  }

  /** Whether a balancer should send requests here. */
  function ready(): GatewayResponse {
    const isReady = full.connected && doors['read-only'].backend.connected && !listener.draining;
    return { status: isReady ? 200 : 503, type: JSON_TYPE, body: JSON.stringify({ ready: isReady }) };
  }

  function metricsResponse(): GatewayResponse {
    const { connections } = listener;
    const { admission, streamLimit } = options;
    const { connected } = full;
    const gauges = { inFlight: admission.inFlight, streams: streamLimit.open, connected, connections };
    return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: metrics.write(gauges) };
  }

  function failure(error: unknown, requestId: string): GatewayResponse {
    const status = statusOf(error);
    if (status === 500) {
      const text = error instanceof Error ? error.stack : String(error);
      log({ level: 'error', event: 'internal_error', requestId, error: text });
    }
    const message = status === 500 ? 'ERR internal error of the gateway' : wireText(error as Error);
    return { status, type: JSON_TYPE, body: writeError(message) };
  }

  function send(response: ServerResponse, serial: string, requestId: string, made: GatewayResponse): void {
    const { status, type, body } = made;
    // The client is gone, or its stream had begun: nothing can be sent.
    if (response.headersSent || response.destroyed) return void response.end();
    if (body.length > LARGE_BODY_BYTES && !hold(response, body.length)) {
      const busy = writeError('ERR the gateway is busy: too many bytes wait for clients that do not read them');
      return send(response, serial, requestId, { status: 503, type: JSON_TYPE, body: busy });
    }
    const wrongToken = status === 401 || status === 429;
    const length = typeof body === 'string' ? Buffer.byteLength(body) : body.length;
    // A flat list: Node writes it as it is, where it would copy and check an object.
    const headers = ['content-type', type, 'content-length', `${length}`, SYNC_TOKEN, serial, REQUEST_ID, requestId];
    if (status === 401) headers.push('www-authenticate', 'Bearer');
    if (status === 503 || status === 429) headers.push('retry-after', '1');
    // Nothing more is read of a client without a valid token: neither the rest of a body nor a next request.
    if (listener.draining || wrongToken) headers.push('connection', 'close');
    response.writeHead(status, headers);
    response.end(body);
  }

  /** Keeps a large response on the budget until its client has read it, or is gone; whether there is room for it. */
  function hold(response: ServerResponse, bytes: number): boolean {
    try {
      budget.take(bytes);
    } catch (error) {
      if (!(error instanceof GatewayError)) throw error;
      return false;
    }
    response.once('close', () => budget.release(bytes));
    return true;
  }

  function logRequest(job: Job, requestId: string, status: number, body: string | Buffer, durationMs: number): void {
    const { commands, kind, request } = job;
    const names = commands?.slice(0, LOGGED_COMMANDS).map(([name]) => loggedName(name));
    const error = status >= 400 ? /^\{"error":"(\w{1,32})/.exec(body.toString().slice(0, 64))?.[1] : undefined;
    const { method = '' } = request;
    requestLog.add({ requestId, method, kind, status, durationMs, commands: names, error });
  }

  const listener = createListener((request, response) => {
    const job: Job = { request, response, startedAt: performance.now(), kind: 'unknown' };
    const serial = `${instance}-${(++requests).toString(36)}`;
    const id = requestIdOf(request) ?? serial;
    serve(job)
      .catch((error: unknown) => failure(error, id))
      .then((result) => {
        if (!result) return;
        send(response, serial, id, result);
        const durationMs = performance.now() - job.startedAt;
        metrics.request(result.status, durationMs);
        if (requestLog.wants(result.status)) logRequest(job, id, result.status, result.body, durationMs);
      })
      .catch((error: unknown) => response.destroy(error as Error));
  }, options);

  return {
    get address() {
      return listener.address;
    },
    listen: (host, port) => listener.listen(host, port),
    async close(graceMs) {
      const closed = listener.close(graceMs);
      await Promise.all([doors.full.streams.close(), doors['read-only'].streams.close()]);
      await closed;
    },
  };
}

/** The client's own id for the request, when it can stand in a log. */
function requestIdOf(request: IncomingMessage): string | undefined {
  const id = request.headers['x-request-id'];
  return typeof id === 'string' && /^[\w.:-]{1,128}$/.test(id) ? id : undefined;
}

/** A command's name may stand in a log; what a client has put in a name's place may be anything, a secret too. */
function loggedName(name: Arg): string {
  const text = String(name).toUpperCase();
  return KEYS.has(text) || isRefusedByName(text) ? text : '?';
}
