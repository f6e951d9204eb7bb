import { and, eq, gt, isNotNull, sql } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Drizzle } from '../../db/client';
import { unionAll } from '../../db/portable';
import { revokedTokens, sessions } from '../../db/schema';
import type { Argument } from '../../redis/client';

/** A field of a user's blacklist hash, and until when it must be known. */
export interface Denial {
  /** `s:<sid>` or `j:<jti>` */
  field: string;
  expiresAtMs: number;
}

/** More than a user can have. Where there are more, Redis does not get the mark of a complete list. */
const MOST = 200;

/**
 * What denies access tokens of a user that have not expired: sessions that ended recently, and tokens revoked one by
 * one. A write of a user's epoch into Redis must include these: from then on a hash that denies nothing counts as an approval.
 * (Refresh tokens need a record in Redis, which an ended session does not get.)
 */
export function recentDenials(db: Drizzle, userId: string, config: Config, nowMs: number) {
  const sinceMs = nowMs - (config.tokens.accessTtlSeconds + 60) * 1_000;
  const ended = db
    .select({ field: sql<string>`'s:' || ${sessions.id}`.as('field'), expiresAtMs: sessions.expiresAtMs })
    .from(sessions)
    .where(and(eq(sessions.userId, userId), isNotNull(sessions.endedAtMs), gt(sessions.endedAtMs, sinceMs)));
  const revoked = db
    .select({ field: sql<string>`'j:' || ${revokedTokens.id}`.as('field'), expiresAtMs: revokedTokens.expiresAtMs })
    .from(revokedTokens)
    .where(and(eq(revokedTokens.userId, userId), gt(revokedTokens.expiresAtMs, nowMs - 60_000)));
  return unionAll(ended, revoked).limit(MOST);
}

/** Fields and values for the blacklist hash; `undefined` when the list may not be whole. */
export function denialFields(denials: readonly Denial[]): Argument[] | undefined {
  return denials.length < MOST ? denials.flatMap(({ field, expiresAtMs }) => [field, expiresAtMs]) : undefined;
}
