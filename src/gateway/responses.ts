import type { IncomingHttpHeaders } from 'node:http';
import { ErrorReply } from 'redis';
import { BackendUnavailable, GatewayError } from './errors.ts';
import type { Executor } from './executor.ts';
import { type Encoding, writeOutcome, writeOutcomes } from './json.ts';
import type { Metrics } from './metrics.ts';
import { type Arg, type Command, JSON_SHAPE, type Outcome, RESP_SHAPE } from './reply.ts';
import { parseCommand, parseCommands } from './request.ts';
import { writeResp } from './resp.ts';
import type { Route } from './route.ts';

/** The response to one request. */
export interface GatewayResponse {
  status: number;
  type: string;
  body: string | Buffer;
}

/** Routes that run commands. */
export type CommandRoute = Extract<Route, { kind: 'command' | 'path-command' | 'pipeline' | 'transaction' }>;

export const JSON_TYPE = 'application/json';
/** Redis's errors while it cannot serve. The response is then a 503 with Redis's text. */
const UNAVAILABLE_REPLY = /^(?:BUSY|LOADING|CLUSTERDOWN|MASTERDOWN|READONLY|NOREPLICAS) /;

/** The commands of a request. @throws {GatewayError} 400 when its body holds none */
export function commandsOf(route: CommandRoute, body: Buffer): Command[] {
  if (route.kind === 'command') return [parseCommand(body)];
  if (route.kind !== 'path-command') return parseCommands(body);
  return [[...route.args, ...(body.length > 0 ? [body] : []), ...route.options] as [Arg, ...Arg[]]];
}

/**
 * Runs the commands of a request and writes the response in the form that its headers ask for.
 * @throws the error of a single command, of a whole transaction, or of a pipeline that Redis could not be asked for
 */
export async function respondTo(
  executor: Executor,
  metrics: Metrics,
  { kind }: CommandRoute,
  commands: readonly Command[],
  headers: IncomingHttpHeaders,
): Promise<GatewayResponse> {
  const raw = headers['upstash-response-format'] === 'resp2';
  const shape = raw ? RESP_SHAPE : JSON_SHAPE;
  const encoding: Encoding = headers['upstash-encoding'] === 'base64' ? 'base64' : 'text';
  const sentAt = performance.now();
  const outcomes =
    kind === 'transaction' ? await executor.transaction(commands, shape) : await executor.run(commands, shape);
  metrics.commands(commands, outcomes, performance.now() - sentAt);
  if (outcomes instanceof Error) throw outcomes;
  if (kind === 'command' || kind === 'path-command') {
    const [outcome] = outcomes as [Outcome];
    // Errors are in JSON in every format: clients read `error` from the body of any non-2xx response.
    if (outcome instanceof Error) throw outcome;
    return raw ? rawResponse(outcomes) : jsonResponse(writeOutcome(outcome, encoding));
  }
  // Every command failed in this way: Redis is away, which is more than a pipeline with errors in it.
  if (outcomes.length > 0 && outcomes.every(isUnavailable)) throw outcomes[0] as Error;
  return raw ? rawResponse(outcomes) : jsonResponse(writeOutcomes(outcomes, encoding));
}

/** The status of an error; 500 for one of the gateway's own making. */
export function statusOf(error: unknown): number {
  if (error instanceof GatewayError) return error.status;
  if (error instanceof BackendUnavailable) return 503;
  if (error instanceof ErrorReply) return UNAVAILABLE_REPLY.test(error.message) ? 503 : 400;
  return 500;
}

function isUnavailable(outcome: Outcome): boolean {
  return outcome instanceof BackendUnavailable;
}

function jsonResponse(body: string): GatewayResponse {
  return { status: 200, type: JSON_TYPE, body };
}

function rawResponse(outcomes: readonly Outcome[]): GatewayResponse {
  return { status: 200, type: 'application/octet-stream', body: writeResp(outcomes) };
}
