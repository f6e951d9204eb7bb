/**
 * Why no reply can be had: `refused` no connection; `timeout` the call was given up; `deadline` this request stopped
 * waiting (the call may still succeed); `status` not 2xx; `garbage` not the protocol; `state` Redis itself says that
 * it cannot serve (LOADING, READONLY, …); `breaker` not even tried.
 */
export type UnavailableReason = 'refused' | 'timeout' | 'deadline' | 'status' | 'garbage' | 'state' | 'breaker';

/** Anything that went wrong with Redis. Messages never hold keys, arguments or values. */
export abstract class RedisError extends Error {}

/** Redis could not be asked, or not in time. */
export class RedisUnavailable extends RedisError {
  override readonly name = 'RedisUnavailable';
  readonly reason: UnavailableReason;

  constructor(reason: UnavailableReason, options?: ErrorOptions) {
    super(`Redis is unavailable (${reason})`, options);
    this.reason = reason;
  }
}

/** Redis answered this command with an error. `code` is the reply's first word, such as `WRONGTYPE`. */
export class RedisReplyError extends RedisError {
  override readonly name = 'RedisReplyError';
  readonly code: string;

  constructor(code: string) {
    super(`Redis answered ${code}`);
    this.code = code;
  }
}

/** Replies that speak of the server, not of the command: whoever asks again later gets an answer. */
const STATE_CODES = new Set([
  'LOADING',
  'READONLY',
  'OOM',
  'MOVED',
  'ASK',
  'TRYAGAIN',
  'CLUSTERDOWN',
  'MASTERDOWN',
  'NOREPLICAS',
  'MISCONF',
  'BUSY',
  'NOAUTH',
  'WRONGPASS',
  'UNAVAILABLE',
]);

/** The error that a reply's text stands for. The text itself quotes arguments and is dropped. */
export function replyError(text: string): RedisError {
  // Upstash's quotas have no code of their own.
  if (/^ERR (?:max .*exceeded|DB capacity)/i.test(text)) return new RedisUnavailable('state');
  const code = /^[A-Z][A-Z0-9_]*/.exec(text)?.[0] ?? 'ERR';
  return STATE_CODES.has(code) ? new RedisUnavailable('state') : new RedisReplyError(code);
}
