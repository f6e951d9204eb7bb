import { and, eq, gt, isNotNull, sql } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Drizzle } from '../../db/client';
import { unionAll } from '../../db/portable';
import { revokedTokens, sessions } from '../../db/schema';
import type { Argument } from '../../redis/client';

/** A field of a user's blacklist hash, and its expiry. */
export interface Denial {
  /** `s:<sid>` or `j:<jti>` */
  field: string;
  expiresAtMs: number;
}

/** More denials than a user can normally have. Beyond that Redis does not get the mark of a complete list. */
const MOST = 200;

/**
 * A user's denials of access tokens that have not expired: recently ended sessions, and tokens revoked individually. A
 * write of a user's epoch into Redis must include them, because a hash with an epoch allows all tokens that it does not
 * deny. (Refresh tokens need a session record in Redis, and an ended session gets none.)
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

/** Fields and values for the blacklist hash; `undefined` if the list may be incomplete. */
export function denialFields(denials: readonly Denial[]): Argument[] | undefined {
  return denials.length < MOST ? denials.flatMap(({ field, expiresAtMs }) => [field, expiresAtMs]) : undefined;
}
