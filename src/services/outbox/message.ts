import type { Config } from '../../config/env';
import { log } from '../../config/log';
import type { OutboxRow, SessionEndReason } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';
import { userOfSession } from '../../redis/keys';
import type { Keys } from '../../redis/keys';
import { blacklistMerge } from '../../redis/scripts/blacklistMerge';
import { sessionEnd } from '../../redis/scripts/sessionEnd';
import { denialOf } from '../blacklist/denials';
import type { LocalDenials } from '../blacklist/denials';
import { blacklistTtlMs } from '../blacklist/ttl';
import { invalidationCommands, keysOf } from '../cache/invalidation';
import type { Invalidation } from '../cache/invalidation';

/** A message to Redis. Delivering it twice, late or out of order is harmless. */
export type OutboxMessage =
  | { kind: 'session-end'; sessionId: string; reason: SessionEndReason; expiresAtMs: number }
  | { kind: 'token-end'; userId: string; tokenId: string; expiresAtMs: number }
  | { kind: 'epoch'; userId: string; epoch: number; accessVersion: number }
  | ({ kind: 'invalidate' } & Invalidation)
  /** Has no effect; only occupies a number in the order. */
  | { kind: 'none' };

const KINDS: ReadonlySet<string> = new Set<OutboxMessage['kind']>([
  'session-end',
  'token-end',
  'epoch',
  'invalidate',
  'none',
]);

export interface TellOptions {
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  /** Forgets the values that this request has read from the cache. */
  forgetReads: (redisKeys: readonly string[]) => void;
  now: () => number;
}

/** Applies the message in this isolate, and in Redis. @throws {RedisError} */
export async function deliverMessage(
  message: OutboxMessage,
  batch: RedisBatch,
  { keys, config, denials, forgetReads, now }: TellOptions,
): Promise<void> {
  const lifeMs = blacklistTtlMs(config);
  switch (message.kind) {
    case 'none':
      return;
    case 'session-end': {
      const { sessionId, reason, expiresAtMs } = message;
      denials.endSession(sessionId);
      const restMs = Math.max(1, expiresAtMs - now());
      const touched = [keys.session(sessionId), keys.blacklist(userOfSession(sessionId))];
      confirm(await batch.run(sessionEnd, touched, [sessionId, reason, restMs, expiresAtMs, lifeMs]), 1);
      return;
    }
    case 'token-end': {
      const { userId, tokenId, expiresAtMs } = message;
      denials.endToken(tokenId, denialOf(expiresAtMs));
      const denied = [lifeMs, `j:${tokenId}`, expiresAtMs];
      confirm(await batch.run(blacklistMerge, [keys.blacklist(userId)], denied), 1);
      return;
    }
    case 'epoch': {
      const { userId, epoch, accessVersion } = message;
      denials.raise(userId, message);
      // Do not set `ep`: the message does not know the user's other denials.
      const versions = [lifeMs, 'least', epoch, 'av', accessVersion];
      confirm(await batch.run(blacklistMerge, [keys.blacklist(userId)], versions), 1);
      return;
    }
    case 'invalidate': {
      const commands = invalidationCommands(keys, message, config.cache.tombstoneSeconds);
      const ended = keysOf(commands);
      forgetReads(ended);
      try {
        await Promise.all(commands.map(async (command) => confirm(await batch.send(...command), 'OK')));
      } finally {
        // A value that was read while the commands were in flight may be older than the invalidation.
        forgetReads(ended);
      }
    }
  }
}

/** Any other reply does not acknowledge the command. */
function confirm(reply: RedisValue, expected: RedisValue): void {
  if (reply !== expected) throw new RedisUnavailable('garbage');
}

/** `undefined` for a row that this version cannot read: a version that can read it delivers it. */
export function parseMessage(row: OutboxRow): OutboxMessage | undefined {
  let message: OutboxMessage | undefined;
  try {
    message = JSON.parse(row.message) as OutboxMessage;
  } catch {
    message = undefined;
  }
  if (message !== undefined && KINDS.has(message.kind)) return message;
  log('error', 'outbox.unreadable', { id: row.id });
  return undefined;
}
