import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Authenticate } from './auth.ts';
import { bearerToken } from './auth.ts';
import type { Backend } from './backend.ts';
import { BackendUnavailable, GatewayError } from './errors.ts';
import { type Encoding, writeError, writeOutcome, writeOutcomes } from './json.ts';
import { type Command, JSON_SHAPE, type Outcome } from './reply.ts';
import { parseCommand, parseCommands, readBody } from './request.ts';

export interface ServerOptions {
  backend: Backend;
  authenticate: Authenticate;
  /** Largest request body, in bytes. */
  maxRequestBytes: number;
  /** Commands accepted and not yet answered, over all clients, before further ones get 503. */
  maxInFlight: number;
}

/** The answer to one request. */
interface Answer {
  status: number;
  body: string;
}

/** Redis's own ways of saying that it cannot serve at present. Answered as 503, with Redis's words. */
const UNAVAILABLE_REPLY = /^(?:LOADING|CLUSTERDOWN|MASTERDOWN|READONLY|NOREPLICAS) /;

/** The HTTP side: routes, authentication, limits, and one JSON body for every answer. */
export function createGatewayServer(options: ServerOptions): Server {
  const { backend, authenticate, maxRequestBytes, maxInFlight } = options;
  let inFlight = 0;

  async function answer(request: IncomingMessage): Promise<Answer> {
    const path = request.url ?? '/';
    if (path === '/health' && request.method === 'GET') return health();
    if (!authenticate(bearerToken(request.headers.authorization))) throw new GatewayError(401, 'Unauthorized');
    if (request.method !== 'POST') throw new GatewayError(405, 'ERR method not allowed');

    const encoding: Encoding = request.headers['upstash-encoding'] === 'base64' ? 'base64' : 'text';
    switch (path) {
      case '/':
        return single(parseCommand(await readBody(request, maxRequestBytes)), encoding);
      case '/pipeline':
        return pipeline(parseCommands(await readBody(request, maxRequestBytes)), encoding);
      case '/multi-exec':
        return transaction(parseCommands(await readBody(request, maxRequestBytes)), encoding);
      default:
        throw new GatewayError(404, 'ERR no such path');
    }
  }

  function health(): Answer {
    const { description, connected } = backend;
    const status = connected ? 'ok' : 'degraded';
    return { status: 200, body: JSON.stringify({ status, backend: description, connected }) };
  }

  async function single(command: Command, encoding: Encoding): Promise<Answer> {
    const [outcome] = await admitted(1, () => backend.run([command], JSON_SHAPE));
    return { status: statusOf(outcome!), body: writeOutcome(outcome!, encoding) };
  }

  async function pipeline(commands: Command[], encoding: Encoding): Promise<Answer> {
    const outcomes = await admitted(commands.length, () => backend.run(commands, JSON_SHAPE));
    // Nothing of it was answered: that is no pipeline with errors in it, but Redis being away.
    const failed = outcomes.length > 0 && outcomes.every((outcome) => outcome instanceof BackendUnavailable);
    if (failed) throw outcomes[0] as BackendUnavailable;
    return { status: 200, body: writeOutcomes(outcomes, encoding) };
  }

  async function transaction(commands: Command[], encoding: Encoding): Promise<Answer> {
    if (commands.length === 0) return { status: 200, body: '[]' };
    const outcomes = await admitted(commands.length, () => backend.transaction(commands, JSON_SHAPE));
    if (outcomes instanceof Error) return { status: statusOf(outcomes), body: writeError(outcomes.message) };
    return { status: 200, body: writeOutcomes(outcomes, encoding) };
  }

  async function admitted<T>(commands: number, work: () => Promise<T>): Promise<T> {
    if (inFlight > 0 && inFlight + commands > maxInFlight) {
      throw new GatewayError(503, `ERR the gateway has ${inFlight} commands in flight, its limit is ${maxInFlight}`);
    }
    inFlight += commands;
    try {
      return await work();
    } finally {
      inFlight -= commands;
    }
  }

  return createServer({ keepAliveTimeout: 65_000, requestTimeout: 60_000, noDelay: true }, (request, response) => {
    answer(request).then(
      ({ status, body }) => send(response, status, body),
      (error: unknown) => {
        const status = error instanceof GatewayError ? error.status : error instanceof BackendUnavailable ? 503 : 500;
        const message = status === 500 ? 'ERR internal error of the gateway' : (error as Error).message;
        send(response, status, writeError(message));
      },
    );
  });
}

function statusOf(outcome: Outcome): number {
  if (!(outcome instanceof Error)) return 200;
  return outcome instanceof BackendUnavailable || UNAVAILABLE_REPLY.test(outcome.message) ? 503 : 400;
}

function send(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body);
}
