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
import type { LocalDenials, UserVersions } from '../blacklist/denials';
import { blacklistTtlMs } from '../blacklist/ttl';
import { isCount } from '../replies';
import { invalidationCommands, keysOf } from '../cache/invalidation';
import type { Invalidation } from '../cache/invalidation';

/** The versions that a change has raised. Missing in messages of former releases. */
export interface RaisedFlags {
  epochRaised?: 1;
  accessVersionRaised?: 1;
}

export const flagsOf = (raised: readonly (keyof UserVersions)[]): RaisedFlags => ({
  ...(raised.includes('epoch') && { epochRaised: 1 }),
  ...(raised.includes('accessVersion') && { accessVersionRaised: 1 }),
});

/** A message to Redis. Delivering it twice, late or out of order is harmless. */
export type OutboxMessage =
  | { kind: 'session-end'; sessionId: string; reason: SessionEndReason; expiresAtMs: number }
  | { kind: 'token-end'; userId: string; tokenId: string; expiresAtMs: number }
  | ({ kind: 'epoch'; userId: string } & UserVersions & RaisedFlags)
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

export interface MessageDeps {
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  /** Forgets the values that this request has read from the cache. */
  forgetReads: (redisKeys: readonly string[]) => void;
  now: () => number;
}

export const VERSION_FIELDS = ['epoch', 'accessVersion'] as const;
/** Versions in Redis that are further ahead of D1's than this are not accepted. */
export const MOST_AHEAD = 1_000_000;

/** Redis has larger versions of a user than a message: from a later change, or because D1 was restored from a backup. */
export interface LargerVersions {
  userId: string;
  /** Redis's versions. */
  known: UserVersions;
  /** The versions that the change has raised, and that are larger in Redis. */
  raised: readonly (keyof UserVersions)[];
}

/**
 * Applies the message in this isolate, and in Redis.
 *
 * @returns larger versions in Redis than those to which the change has raised D1's, if any
 * @throws {RedisError}
 */
export async function deliverMessage(
  message: OutboxMessage,
  batch: RedisBatch,
  { keys, config, denials, forgetReads, now }: MessageDeps,
): Promise<LargerVersions | undefined> {
  const lifeMs = blacklistTtlMs(config);
  switch (message.kind) {
    case 'none':
      return undefined;
    case 'session-end': {
      const { sessionId, reason, expiresAtMs } = message;
      denials.endSession(sessionId);
      const restMs = Math.max(1, expiresAtMs - now());
      const touched = [keys.session(sessionId), keys.blacklist(userOfSession(sessionId))];
      confirm(await batch.run(sessionEnd, touched, [sessionId, reason, restMs, expiresAtMs, lifeMs]), 1);
      return undefined;
    }
    case 'token-end': {
      const { userId, tokenId, expiresAtMs } = message;
      denials.endToken(tokenId, denialOf(expiresAtMs));
      const denied = [lifeMs, `j:${tokenId}`, expiresAtMs];
      versionsOf(await batch.run(blacklistMerge, [keys.blacklist(userId)], denied));
      return undefined;
    }
    case 'epoch': {
      const { userId, epoch, accessVersion } = message;
      denials.raise(userId, message);
      // Do not set `ep`: the message does not know the user's other denials.
      const versions = [lifeMs, 'least', epoch, 'av', accessVersion];
      const known = versionsOf(await batch.run(blacklistMerge, [keys.blacklist(userId)], versions));
      const raised = VERSION_FIELDS.filter(
        (field) =>
          message[`${field}Raised`] === 1 &&
          known[field] > message[field] &&
          known[field] - message[field] <= MOST_AHEAD,
      );
      return raised.length > 0 ? { userId, known, raised } : undefined;
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
      return undefined;
    }
  }
}

/** A user's versions, as {@link blacklistMerge} replies. */
function versionsOf(reply: RedisValue): UserVersions {
  const [epoch, accessVersion] = Array.isArray(reply) && reply.length === 2 ? reply : [];
  if (!isVersionOrZero(epoch) || !isVersionOrZero(accessVersion)) throw new RedisUnavailable('garbage');
  return { epoch, accessVersion };
}

const isVersionOrZero = (value: RedisValue | undefined): value is number => value === 0 || isCount(value);

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
