import { setTimeout } from 'node:timers/promises';
import { describeAddress, parseAddress } from './address.ts';
import { createAuthenticate } from './auth.ts';
import type { Backend, BackendOptions } from './backend.ts';
import { ClusterBackend } from './backends/cluster.ts';
import { DirectBackend } from './backends/direct.ts';
import { SentinelBackend } from './backends/sentinel.ts';
import { describe } from './client.ts';
import { startEmbeddedEngine } from './embedded.ts';
import type { Log } from './log.ts';
import { Metrics } from './metrics.ts';
import { createGatewayServer } from './server.ts';

/** Options of {@link startGateway}. */
export interface GatewayOptions {
  /**
   * `redis://[user:password@]host[:port][/database]`, `redis+sentinel://sentinel[,sentinel…]/master-name`,
   * `redis+cluster://node[,node…]`, each also as `rediss…`. Absent: the embedded engine.
   */
  redisUrl?: string;
  /** PEM file of the authority that signed the certificates of `rediss` servers. @default Node's own list */
  tlsCaFile?: string;
  /** Bearer token that allows everything. */
  token: string;
  /** Bearer token that allows reading only. */
  readOnlyToken?: string;
  /** Address to listen on. @default '127.0.0.1' */
  host?: string;
  /** Port to listen on; 0: any that is free. @default 8079 */
  port?: number;
  /** Largest request body, in bytes. @default 33_554_432 (32 MiB) */
  maxRequestBytes?: number;
  /** Bytes of request bodies held at a time, over all clients; more is answered 503. @default 268_435_456 (256 MiB) */
  maxBufferedBytes?: number;
  /** Commands in flight over all clients; more are answered 503. @default 100_000 */
  maxInFlight?: number;
  /** Open subscriptions and monitors; more are answered 503. @default 1000 */
  maxStreams?: number;
  /** The longest that Redis may leave a command unanswered, in milliseconds. @default 5000 */
  replyTimeoutMs?: number;
  /** How long `close()` waits for requests in progress, in milliseconds. @default 10_000 */
  drainTimeoutMs?: number;
  /** Told of connections made and lost, and of errors. @default nothing is logged */
  log?: Log;
}

/** A running gateway. */
export interface Gateway {
  /** For example `http://127.0.0.1:8079`. */
  readonly url: string;
  readonly port: number;
  /** What it talks to, without password: `embedded Valkey 9.1.1`, `redis://127.0.0.1:6379`. */
  readonly backend: string;
  /** Takes no further connections, answers what is in flight, and closes everything. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Starts the gateway: Upstash's REST protocol over HTTP in front of a Redis server, or of an embedded engine.
 * It starts whether or not Redis is there; until it is, commands are answered 503 at once.
 *
 * ```ts
 * await using gateway = await startGateway({ token: 'secret', port: 0 });
 * const redis = new Redis({ url: gateway.url, token: 'secret' });
 * ```
 *
 * @throws {SettingsError} when `redisUrl` cannot be used
 * @throws an Error with the code `EADDRINUSE` or `EACCES`, and one line of text, when the port is not to be had
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { redisUrl, tlsCaFile, token, readOnlyToken, host = '127.0.0.1', port = 8079, log = () => {} } = options;
  const { maxRequestBytes = 32 * 1024 * 1024, maxBufferedBytes = 256 * 1024 * 1024 } = options;
  const { maxInFlight = 100_000, maxStreams = 1000, replyTimeoutMs, drainTimeoutMs = 10_000 } = options;
  const metrics = new Metrics();
  const { backend, stop } = await connectBackend(redisUrl, tlsCaFile, {
    replyTimeoutMs,
    onState(connected, redis, cause) {
      if (!connected) metrics.connectionLost();
      if (connected) log({ level: 'info', event: 'redis_connected', redis });
      else log({ level: 'warn', event: 'redis_lost', redis, reason: describe(cause) });
    },
  });
  const server = createGatewayServer({
    backend,
    authenticate: createAuthenticate(token, readOnlyToken),
    maxRequestBytes,
    maxBufferedBytes,
    maxInFlight,
    maxStreams,
    metrics,
    log,
  });
  try {
    await server.listen(host, port);
  } catch (error) {
    await backend.close(0);
    await stop();
    throw error;
  }

  // Where Redis is there, the first request finds it connected; where it is not, the start does not depend on it.
  await Promise.race([backend.firstAttempt, setTimeout(1000, undefined, { ref: false })]);
  const { address } = server;
  let closing: Promise<void> | undefined;
  const close = () =>
    (closing ??= (async () => {
      log({ level: 'info', event: 'draining', commandsInFlight: server.inFlight });
      const deadline = performance.now() + drainTimeoutMs;
      await server.close(drainTimeoutMs);
      // What is still due now belongs to clients that have gone away.
      await backend.close(Math.max(0, deadline - performance.now()));
      await stop();
    })());
  return {
    url: `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`,
    port: address.port,
    backend: backend.description,
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function connectBackend(
  redisUrl: string | undefined,
  tlsCaFile: string | undefined,
  options: BackendOptions,
): Promise<{ backend: Backend; stop: () => Promise<void> }> {
  if (redisUrl === undefined) {
    const engine = await startEmbeddedEngine();
    const source = { resolve: () => Promise.resolve(engine.endpoint) };
    const backend = new DirectBackend(source, `embedded ${engine.version}`, options);
    return { backend, stop: () => engine.stop() };
  }
  const address = parseAddress(redisUrl, tlsCaFile);
  const description = describeAddress(address);
  const stop = () => Promise.resolve();
  if (address.kind === 'direct') {
    const source = { resolve: () => Promise.resolve(address.endpoint) };
    return { backend: new DirectBackend(source, description, options), stop };
  }
  const backend =
    address.kind === 'sentinel'
      ? new SentinelBackend(address, description, options)
      : new ClusterBackend(address.seeds, description, options);
  return { backend, stop };
}
