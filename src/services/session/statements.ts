import { and, eq, isNull, ne, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Drizzle, Statement } from '../../db/client';
import { POSITION_FUNCTION } from '../../db/portable';
import { sessions, users } from '../../db/schema';
import type { SessionEndReason } from '../../db/schema';
import { networkOfAddress } from '../../util/networkSql';

type NewSession = Required<
  Omit<
    typeof sessions.$inferInsert,
    'generation' | 'tokenId' | 'authenticatedAtMs' | 'passwordFailures' | 'endedAtMs' | 'endedReason'
  >
>;

/** The select for a session's insertion: one row, if the owner's epoch is still the session's and the account is active. */
export function began(db: Drizzle, session: NewSession) {
  const { id, userId, device, address, createdAtMs, lastSeenAtMs, expiresAtMs, epoch, data } = session;
  return db
    .select({
      id: sql<string>`${id}`.as('id'),
      userId: users.id,
      device: sql<string>`${device}`.as('device'),
      address: sql<string>`${address}`.as('address'),
      createdAtMs: sql<number>`${createdAtMs}`.as('created_at_ms'),
      lastSeenAtMs: sql<number>`${lastSeenAtMs}`.as('last_seen_at_ms'),
      expiresAtMs: sql<number>`${expiresAtMs}`.as('expires_at_ms'),
      epoch: users.epoch,
      generation: sql<number>`1`.as('generation'),
      tokenId: sql<null>`null`.as('token_id'),
      authenticatedAtMs: sql<null>`null`.as('authenticated_at_ms'),
      passwordFailures: sql<number>`0`.as('password_failures'),
      data: sql<string>`${data}`.as('data'),
      endedAtMs: sql<null>`null`.as('ended_at_ms'),
      endedReason: sql<null>`null`.as('ended_reason'),
    })
    .from(users)
    .where(and(eq(users.id, userId), eq(users.epoch, epoch), eq(users.status, 'active')));
}

/** A condition on a user's row, for statements about that user's sessions. */
export const whileOwner = (userId: string, when: SQL) =>
  sql`exists (select 1 from ${users} where ${users.id} = ${userId} and ${when})`;

/** The sessions to end, the reason, and the condition on their user's row. */
interface Ending {
  userId: string;
  except?: string;
  reason: SessionEndReason;
  atMs: number;
  when?: SQL;
}

/** The columns of an ended session. The address is kept only as a network. */
export const endedWith = (endedReason: SessionEndReason, endedAtMs: number) => ({
  endedAtMs,
  endedReason,
  address: sql<string>`${sql.raw(networkOfAddress(POSITION_FUNCTION))}`,
});

/** Marks every live session of a user but one as ended. The user's new epoch is what ends them. */
export function endOthers(db: Drizzle, { userId, except, reason, atMs, when }: Ending): Statement {
  return db
    .update(sessions)
    .set(endedWith(reason, atMs))
    .where(
      and(
        eq(sessions.userId, userId),
        isNull(sessions.endedAtMs),
        except === undefined ? undefined : ne(sessions.id, except),
        when && whileOwner(userId, when),
      ),
    );
}
