import { isIP } from 'node:net';
import { createClient } from 'redis';

/** Where one Redis server listens and how to sign in to it. */
export interface Endpoint {
  host: string;
  port: number;
  /** Absent: plain TCP. `ca`: the authority to trust, in PEM; absent: those that Node trusts. */
  tls?: { ca?: string | undefined } | undefined;
  username?: string | undefined;
  password?: string | undefined;
  /** Logical database. @default 0 */
  database?: number | undefined;
}

/** node-redis as the gateway configures it. */
export type RedisClient = ReturnType<typeof newClient>;

/** Times of one client, in milliseconds. */
export interface ClientTimes {
  /** @default 2000 */
  connectTimeoutMs?: number;
  /** How often to ask for a PING while nothing else is asked. @default never */
  pingInterval?: number;
  /** A connection on which nothing is read or written for so long is given up. @default never */
  socketTimeout?: number;
}

/**
 * Makes a client that never reconnects and never queues while offline. A Connection makes a new one instead:
 * a command is then either written to one socket once, or refused.
 */
export function newClient(
  endpoint: Endpoint,
  { connectTimeoutMs = 2000, pingInterval, socketTimeout }: ClientTimes = {},
) {
  const { host, port, tls, username, password, database } = endpoint;
  return createClient({
    RESP: 2,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(database !== undefined && { database }),
    socket: {
      host,
      port,
      connectTimeout: connectTimeoutMs,
      reconnectStrategy: false,
      ...(socketTimeout !== undefined && { socketTimeout }),
      ...(tls && { tls: true, ca: tls.ca, ...(isIP(host) === 0 && { servername: host }) }),
    },
    ...(pingInterval !== undefined && { pingInterval }),
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    // A timer and a signal for each command by default, for the time it waits to be WRITTEN; nothing waits here.
    commandOptions: { timeout: 0 },
  });
}

/** An error's text for logs and clients: connection errors contain an address, never a password. */
export function describe(error: unknown): string {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return describe(error.errors[0]);
  const text = error instanceof Error ? error.message || error.name : String(error);
  // A server that does not know AUTH repeats its arguments.
  return text.replace(/, with args beginning with:.*/s, '');
}
