import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { createAuthenticate } from './auth.ts';
import type { Backend } from './backend.ts';
import { DirectBackend } from './backends/direct.ts';
import { startEmbeddedEngine } from './embedded.ts';
import { createGatewayServer } from './server.ts';
import { describeEndpoint, parseRedisUrl } from './settings.ts';

/** Options of {@link startGateway}. */
export interface GatewayOptions {
  /** `redis://[user:password@]host[:port][/database]`, or `rediss://`. Absent: the embedded engine. */
  redisUrl?: string;
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
  /** Commands in flight over all clients before further ones are answered 503. @default 10_000 */
  maxInFlight?: number;
  /** The longest that Redis may leave a command unanswered, in milliseconds. @default 5000 */
  replyTimeoutMs?: number;
  /** How long `close()` waits for requests in progress, in milliseconds. @default 10_000 */
  drainTimeoutMs?: number;
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
  const { redisUrl, token, readOnlyToken, host = '127.0.0.1', port = 8079 } = options;
  const { maxRequestBytes = 32 * 1024 * 1024, maxInFlight = 10_000, replyTimeoutMs, drainTimeoutMs = 10_000 } = options;
  const { backend, stop } = await connectBackend(redisUrl, replyTimeoutMs);
  const server = createGatewayServer({
    backend,
    authenticate: createAuthenticate(token, readOnlyToken),
    maxRequestBytes,
    maxInFlight,
  });
  try {
    await listen(server, host, port);
  } catch (error) {
    await backend.close(0);
    await stop();
    throw error;
  }

  // Where Redis is there, the first request finds it connected; where it is not, the start does not depend on it.
  await Promise.race([backend.firstAttempt, setTimeout(1000, undefined, { ref: false })]);
  const address = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  const close = () =>
    (closing ??= (async () => {
      await closeServer(server, drainTimeoutMs);
      await backend.close();
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
  replyTimeoutMs: number | undefined,
): Promise<{ backend: Backend; stop: () => Promise<void> }> {
  if (redisUrl !== undefined) {
    const endpoint = parseRedisUrl(redisUrl);
    const backend = new DirectBackend(endpoint, describeEndpoint(endpoint), { replyTimeoutMs });
    return { backend, stop: () => Promise.resolve() };
  }
  const engine = await startEmbeddedEngine();
  const backend = new DirectBackend(engine.endpoint, `embedded ${engine.version}`, { replyTimeoutMs });
  return { backend, stop: () => engine.stop() };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'EADDRINUSE' ? 'is in use' : `cannot be listened on (${error.code})`;
      const told = new Error(`gateway: ${host}:${port} ${reason}`, { cause: error });
      reject(Object.assign(told, { code: error.code }));
    });
    server.listen(port, host, resolve);
  });
}

/** Stops accepting, lets requests in progress end (`graceMs` at most), and closes the connections that are idle. */
async function closeServer(server: Server, graceMs: number): Promise<void> {
  const late = globalThis.setTimeout(() => server.closeAllConnections(), graceMs);
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
  clearTimeout(late);
}
