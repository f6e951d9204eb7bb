import { RedisReplyError, RedisUnavailable } from './errors';
import type { RedisError } from './errors';

/** The server cannot serve at present, or is no longer the master: it may have missed writes. */
const SERVER = new Set([
  'LOADING',
  'READONLY',
  'OOM',
  'MASTERDOWN',
  'MISCONF',
  'NOREPLICAS',
  'NOMASTERLINK',
  'BUSY',
  'NOAUTH',
  'WRONGPASS',
  'DENIED',
]);

/**
 * No server has the key at present, or another server than the gateway expects. `UNAVAILABLE` comes from the gateway
 * itself.
 */
const SHARD = new Set(['CLUSTERDOWN', 'UNAVAILABLE', 'MOVED', 'ASK', 'TRYAGAIN', 'REDIRECT']);

/** The keys are being moved to another server. Their server still serves its other keys. */
const MOVING = new Set(['MOVED', 'ASK', 'TRYAGAIN', 'REDIRECT']);

/** Whether the whole shard cannot serve, not only a slot that is being moved. */
export function isShardDown({ code }: RedisUnavailable): boolean {
  return code === undefined || !MOVING.has(code);
}

/**
 * Redis 6 puts this before an error that ended a script: `ERR Error running script (call to f_<sha>): `, and the position
 * in the script once or twice (`@user_script:1: `, `@user_script: 1: `). Redis 7 puts the position after the error.
 */
const SCRIPT_PREFIX = /^(?:ERR Error running script \(call to f_[0-9a-f]{40}\): )?(?:@?[a-z_]+: ?\d+: )*-?/;

/** EXEC refused as a whole, followed by the reason. */
const TRANSACTION_PREFIX = /^EXECABORT Transaction discarded because of: -?/;

/** Beginnings of texts whose code is only ERR. */
const PLAIN: readonly [text: RegExp, code: string, kind: 'state' | 'shard'][] = [
  // A script in a cluster that is down, or that has lost the key's slot. Redis 6 begins with "Lua script".
  [/^(?:Lua s|S)cript attempted to execute a (?:write )?command while the cluster is down/, 'CLUSTERDOWN', 'shard'],
  [/^(?:Lua s|S)cript attempted to access a (?:slot not served|non local key)/, 'CLUSTERDOWN', 'shard'],
  [/^max number of clients/, 'MAXCLIENTS', 'state'],
  // Upstash's quotas. Its limits for one command are sizes: "max request size exceeded", "max key size exceeded".
  [/^max (?!(?:[a-z]+ ){0,3}size exceeded)[a-z ]+ exceeded/i, 'QUOTA', 'state'],
  [/^max (?:database|db|disk|data) size exceeded/i, 'QUOTA', 'state'],
  [/^DB capacity/i, 'QUOTA', 'state'],
];

/**
 * Classifies the text of an error reply by its code and by the code's position. The text itself quotes arguments and is
 * dropped.
 */
export function replyError(text: string): RedisError {
  const plain = text.replace(SCRIPT_PREFIX, '').replace(TRANSACTION_PREFIX, '');
  const code = /^[A-Z][A-Z0-9_]*(?= |$)/.exec(plain)?.[0] ?? 'ERR';
  if (SERVER.has(code)) return new RedisUnavailable('state', { code });
  if (SHARD.has(code)) return new RedisUnavailable('shard', { code });
  if (code !== 'ERR') return new RedisReplyError(code);
  const rest = plain.replace(/^ERR /, '');
  const known = PLAIN.find(([beginning]) => beginning.test(rest));
  return known === undefined ? new RedisReplyError('ERR') : new RedisUnavailable(known[2], { code: known[1] });
}

/**
 * Whether a request was refused as a whole because it, or one of its commands, is too large. None of its commands was
 * executed.
 */
export function isTooLarge(text: string): boolean {
  return /^ERR max [a-z ]*size exceeded/i.test(text) && replyError(text) instanceof RedisReplyError;
}
