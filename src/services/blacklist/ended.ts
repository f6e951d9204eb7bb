import { and, desc, eq, gt, isNotNull } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Drizzle } from '../../db/client';
import { sessions } from '../../db/schema';
import type { Argument } from '../../redis/client';

/** A session that has ended, and until when that must be known. */
export interface EndedSession {
  id: string;
  expiresAtMs: number;
}

/** More than a user can have; where there are more, Redis is not told that it knows them all. */
const MOST = 200;

/**
 * The sessions of a user whose access tokens may outlive them. Whoever gives Redis a user's epoch must bring these
 * along: from then on Redis is believed when it denies nothing. (Refresh tokens need a record in Redis, which an ended
 * session does not get.)
 */
export function recentlyEnded(db: Drizzle, userId: string, config: Config, nowMs: number) {
  const since = nowMs - (config.tokens.accessTtlSeconds + 60) * 1_000;
  return db
    .select({ id: sessions.id, expiresAtMs: sessions.expiresAtMs })
    .from(sessions)
    .where(and(eq(sessions.userId, userId), isNotNull(sessions.endedAtMs), gt(sessions.endedAtMs, since)))
    .orderBy(desc(sessions.endedAtMs))
    .limit(MOST);
}

/** Fields and values for the blacklist hash; `undefined` when the list may not be whole. */
export function denialFields(ended: readonly EndedSession[]): Argument[] | undefined {
  return ended.length < MOST ? ended.flatMap(({ id, expiresAtMs }) => [`s:${id}`, expiresAtMs]) : undefined;
}
