/**
 * Why there is no reply. `refused`: no connection. `timeout`: the call was abandoned. `deadline`: this request stopped
 * waiting (the call may still succeed). `status`: not 2xx. `garbage`: not the protocol. `state`: the server reports that it
 * cannot serve (LOADING, READONLY, …). `shard`: the shard of the key cannot serve (CLUSTERDOWN, …). `breaker`: the call was
 * not made.
 */
export type UnavailableReason =
  | 'refused'
  | 'timeout'
  | 'deadline'
  | 'status'
  | 'garbage'
  | 'state'
  | 'shard'
  | 'breaker';

/** Base class of all Redis errors. Messages never hold keys, arguments or values. */
export abstract class RedisError extends Error {}

export interface UnavailableOptions extends ErrorOptions {
  code?: string;
}

/** Redis could not be reached, or did not reply in time. */
export class RedisUnavailable extends RedisError {
  override readonly name = 'RedisUnavailable';
  readonly reason: UnavailableReason;
  /** For `state` and `shard`: the server's error code, such as `READONLY`. */
  readonly code: string | undefined;

  constructor(reason: UnavailableReason, { code, ...options }: UnavailableOptions = {}) {
    super(`Redis is unavailable (${code === undefined ? reason : `${reason}: ${code}`})`, options);
    this.reason = reason;
    this.code = code;
  }
}

/** Redis replied to this command with an error. `code` is the reply's first word, such as `WRONGTYPE`. */
export class RedisReplyError extends RedisError {
  override readonly name = 'RedisReplyError';
  readonly code: string;

  constructor(code: string) {
    super(`Redis replied ${code}`);
    this.code = code;
  }
}
