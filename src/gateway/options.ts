import type { Log } from './log.ts';
import type { LogRequests } from './requestLog.ts';

/** Options of `startGateway`. */
export interface GatewayOptions {
  /**
   * `redis://[user:password@]host[:port][/database]`, `redis+sentinel://sentinel[,sentinel…]/master-name`,
   * `redis+cluster://node[,node…]`, each also as `rediss…`. Absent: the embedded engine.
   */
  redisUrl?: string;
  /**
   * The same, with a Redis user that may only read: commands of the read-only token go there. Absent: they go to
   * `redisUrl`, and scripts and functions are refused to that token.
   */
  readOnlyRedisUrl?: string;
  /** PEM file of the authority that signed the certificates of `rediss` servers. @default Node's own list */
  tlsCaFile?: string;
  /** Bearer token, or several, that allow everything. */
  token: string | readonly string[];
  /** Bearer token, or several, that allow reading only. */
  readOnlyToken?: string | readonly string[];
  /** Whether the token may come in the URL (`?_token=…`), as the protocol has it. @default true */
  tokenInUrl?: boolean;
  /** Address to listen on. @default '127.0.0.1' */
  host?: string;
  /** Port to listen on; 0: any that is free. @default 8079 */
  port?: number;
  /** Open connections; further ones are closed at once. @default 10_000 */
  maxConnections?: number;
  /** Connections that have not shown a valid token; the oldest makes way for the newest. @default 500 */
  maxUnprovenConnections?: number;
  /** Requests a second from one address without a valid token that get 401; more get 429. @default 20 */
  maxWrongTokensPerSecond?: number;
  /** Largest request body, in bytes. @default 33_554_432 (32 MiB) */
  maxRequestBytes?: number;
  /** Bytes of request bodies held at a time, over all clients; beyond it 503. @default 268_435_456 (256 MiB) */
  maxBufferedBytes?: number;
  /** Commands in flight over all clients; beyond it 503. @default 100_000 */
  maxInFlight?: number;
  /** Open subscriptions and monitors; beyond it 503. @default 1000 */
  maxStreams?: number;
  /** The longest that Redis may leave a command unanswered, in milliseconds. @default 5000 */
  replyTimeoutMs?: number;
  /**
   * Scripts and functions that hold Redis up for so long are killed, in milliseconds, but not before Redis's own
   * `busy-reply-threshold`; the embedded engine is replaced by an empty one. 0: never. @default 5000
   */
  scriptTimeoutMs?: number;
  /** How long `close()` waits for requests in progress, in milliseconds. @default 10_000 */
  drainTimeoutMs?: number;
  /** Which requests are logged, one line each. @default 'none' */
  logRequests?: LogRequests;
  /** Receives an entry when a connection is made or lost, and for each error. @default nothing is logged */
  log?: Log;
}
