import { setTimeout } from 'node:timers/promises';
import { Admission } from './admission.ts';
import { parseAddress } from './address.ts';
import { Authenticator, type Tokens } from './auth.ts';
import type { Backend, BackendEvent, BackendOptions } from './backend.ts';
import { connectTo, connectToEmbedded } from './backends/connect.ts';
import { describe } from './client.ts';
import { Executor } from './executor.ts';
import type { Log } from './log.ts';
import { Metrics } from './metrics.ts';
import type { GatewayOptions } from './options.ts';
import { PermissionCheck } from './permissionCheck.ts';
import { BodyBudget } from './request.ts';
import { RequestLog } from './requestLog.ts';
import { ScriptTranslator } from './scripts.ts';
import { createGatewayServer } from './server.ts';
import { Streams } from './streams.ts';
import { WrongTokens } from './wrongTokens.ts';

export type { GatewayOptions } from './options.ts';

const DEFAULT_MAX_IN_FLIGHT = 100_000;

/** A running gateway. */
export interface Gateway {
  /** For example `http://127.0.0.1:8079`. */
  readonly url: string;
  readonly port: number;
  /** What it talks to, without password: `embedded Valkey 9.1.1`, `redis://127.0.0.1:6379`. */
  readonly backend: string;
  /** Takes other tokens from now on. Requests in progress go on; streams of tokens that are gone are ended. */
  setTokens(tokens: Tokens): void;
  /** Takes no further connections, finishes what is in flight, and closes everything. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts the gateway: Upstash's REST protocol over HTTP in front of a Redis server, or of an embedded engine.
 * It starts whether or not Redis is there; until it is, commands get 503 at once.
 *
 * ```ts
 * await using gateway = await startGateway({ token: 'secret', port: 0 });
 * const redis = new Redis({ url: gateway.url, token: 'secret' });
 * ```
 *
 * @throws {SettingsError} when `redisUrl` or `readOnlyRedisUrl` cannot be used
 * @throws an Error with the code `EADDRINUSE` or `EACCES`, and one line of text, when the port is not to be had
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { redisUrl, readOnlyRedisUrl, token, readOnlyToken, host = '127.0.0.1', port = 8079 } = options;
  const { maxRequestBytes = 32 * 1024 * 1024, maxBufferedBytes = 256 * 1024 * 1024 } = options;
  const { maxInFlight = DEFAULT_MAX_IN_FLIGHT, maxStreams = 1000, drainTimeoutMs = 10_000 } = options;
  const { log = () => {}, logRequests = 'none', tokenInUrl = true } = options;
  const { maxConnections = 10_000, maxUnprovenConnections = 500, maxWrongTokensPerSecond = 20 } = options;
  const metrics = new Metrics();
  const selects = redisUrl !== undefined && namesDatabase(redisUrl);
  const isEmbedded = redisUrl === undefined;
  const ownUser = readOnlyRedisUrl === undefined ? 'none' : 'own';
  const permissions = new PermissionCheck(log, { readOnlyUser: isEmbedded ? 'embedded' : ownUser, selects });
  const check = async () => {
    if (isEmbedded) return; // its users are the gateway's own
    await Promise.all([permissions.checkFull(full), readOnly !== full && permissions.checkReadOnly(readOnly)]);
  };
  const { full, readOnly, stop } = await connect(options, metrics, log, () => void check());

  const authenticator = new Authenticator(tokensOf(token, readOnlyToken));
  const admission = new Admission(maxInFlight);
  const streamLimit = { open: 0, most: maxStreams };
  const scripts = new ScriptTranslator();
  const door = (backend: Backend, access: 'full' | 'read-only') => {
    const scriptsRefused = access === 'full' ? () => undefined : permissions.scriptsRefused;
    const executor = new Executor({ backend, access, scriptsRefused, admission, scripts });
    return { backend, executor, streams: new Streams(backend, streamLimit) };
  };
  const doors = { full: door(full, 'full'), 'read-only': door(readOnly, 'read-only') };
  const server = createGatewayServer({
    doors,
    authenticator,
    wrongTokens: new WrongTokens(maxWrongTokensPerSecond, (wrong, refused) =>
      log({ level: 'warn', event: 'wrong_tokens', inOneSecond: wrong, refusedWith429: refused }),
    ),
    tokenInUrl,
    maxRequestBytes,
    budget: new BodyBudget(maxBufferedBytes),
    admission,
    streamLimit,
    maxConnections,
    maxUnproven: maxUnprovenConnections,
    metrics,
    requestLog: new RequestLog(log, logRequests),
    log,
  });
  const closeBackends = (graceMs: number) =>
    Promise.all([full.close(graceMs), ...(readOnly === full ? [] : [readOnly.close(graceMs)])]);
  try {
    await server.listen(host, port);
  } catch (error) {
    await closeBackends(0);
    await stop();
    throw error;
  }

  // Where Redis is there, the first request finds it connected; where it is not, the start does not depend on it.
  const started = Promise.all([full.firstAttempt, readOnly.firstAttempt]).then(check);
  await Promise.race([started, setTimeout(1000, undefined, { ref: false })]);
  const { address } = server;
  let closing: Promise<void> | undefined;
  const close = () =>
    (closing ??= (async () => {
      log({ level: 'info', event: 'draining', commandsInFlight: admission.inFlight });
      const deadline = performance.now() + drainTimeoutMs;
      await server.close(drainTimeoutMs);
      // What is still due now belongs to clients that have gone away.
      await closeBackends(Math.max(0, deadline - performance.now()));
      await stop();
    })());
  return {
    url: `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`,
    port: address.port,
    backend: full.description,
    setTokens(tokens) {
      authenticator.replace(tokens);
      for (const { streams } of Object.values(doors)) streams.endInvalid((id) => authenticator.isValid(id));
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The backends of both tokens; one and the same where the read-only token has no Redis user of its own. */
async function connect(
  options: GatewayOptions,
  metrics: Metrics,
  log: Log,
  onConnected: () => void,
): Promise<{ full: Backend; readOnly: Backend; stop: () => Promise<void> }> {
  const { redisUrl, readOnlyRedisUrl, tlsCaFile, replyTimeoutMs, scriptTimeoutMs } = options;
  const { maxInFlight = DEFAULT_MAX_IN_FLIGHT } = options;
  const backendOptions: BackendOptions = {
    replyTimeoutMs,
    scriptTimeoutMs,
    maxPendingPerShard: Math.ceil(maxInFlight / 4),
    onState(connected, redis, cause) {
      if (!connected) metrics.count('connectionLost');
      if (connected) log({ level: 'info', event: 'redis_connected', redis });
      else log({ level: 'warn', event: 'redis_lost', redis, reason: describe(cause) });
      // Not in this turn: the backend is still taking the connection over.
      if (connected) setImmediate(onConnected);
    },
    onEvent(event: BackendEvent) {
      if (event.event === 'script_killed') metrics.count('scriptKilled');
      log({ level: event.event === 'script_killed' ? 'warn' : 'error', ...event });
    },
  };
  if (redisUrl === undefined) {
    return connectToEmbedded(backendOptions, {
      hangTimeoutMs: scriptTimeoutMs,
      onRestart(reason) {
        metrics.count('engineRestarted');
        log({ level: 'error', event: 'embedded_engine_restarted', reason, dataLost: true });
      },
    });
  }
  const full = connectTo(redisUrl, tlsCaFile, backendOptions);
  const readOnly = readOnlyRedisUrl === undefined ? full : connectTo(readOnlyRedisUrl, tlsCaFile, backendOptions);
  return { full, readOnly, stop: () => Promise.resolve() };
}

function namesDatabase(redisUrl: string): boolean {
  const address = parseAddress(redisUrl);
  if (address.kind === 'direct') return address.endpoint.database !== undefined;
  return address.kind === 'sentinel' && address.login.database !== undefined;
}

function tokensOf(token: string | readonly string[], readOnlyToken: string | readonly string[] | undefined): Tokens {
  return { full: [token].flat(), readOnly: readOnlyToken === undefined ? [] : [readOnlyToken].flat() };
}
