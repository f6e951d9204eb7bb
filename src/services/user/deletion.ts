import { and, eq, gt, inArray, isNull, or, sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { events, oneTimeTokens, sessions, users } from '../../db/schema';
import type { SessionEndReason, UserRow } from '../../db/schema';
import type { OutboxMessage, OutboxService } from '../outbox.service';
import { endOthers } from '../session/statements';

/**
 * Sessions that ended with others of their user: Redis was told the user's epoch and nothing about each, so their records,
 * with e-mail address and role, are still there.
 */
const ENDED_TOGETHER: SessionEndReason[] = ['logout-all', 'password', 'disabled', 'deleted'];

export interface DeletionDeps {
  database: Database;
  outbox: OutboxService;
  /** What ends, and overwrites, every cached copy of a user. */
  copiesOf: (userId: string) => OutboxMessage;
  now: () => number;
}

/** Removes a user, and everything personal from D1 and Redis. */
export function createDeletion({ database, outbox, copiesOf, now }: DeletionDeps) {
  /** Sessions of which Redis may have a record. */
  async function recordedSessions(userId: string) {
    return database.run((db) =>
      db
        .select({ sessionId: sessions.id, expiresAtMs: sessions.expiresAtMs, row: sql<number>`rowid` })
        .from(sessions)
        .where(
          and(
            eq(sessions.userId, userId),
            gt(sessions.expiresAtMs, now()),
            or(isNull(sessions.endedAtMs), inArray(sessions.endedReason, ENDED_TOGETHER)),
          ),
        ),
    );
  }

  /** @returns `false` when a session began meanwhile: nothing was done, as Redis would not be told about that one */
  async function attempt(userId: string): Promise<boolean> {
    const recorded = await recordedSessions(userId);
    const newest = recorded.reduce((latest, { row }) => Math.max(latest, row), 0);
    // Rows are numbered as they are inserted. Stays true to the end of the batch once it is true.
    const allKnown = sql`not exists (select 1 from ${sessions} where ${sessions.userId} = ${userId}
      and ${sessions.endedAtMs} is null and rowid > ${newest})`;
    const ends = recorded.map(
      ({ sessionId, expiresAtMs }) => ({ kind: 'session-end', reason: 'deleted', sessionId, expiresAtMs }) as const,
    );
    const told = outbox.prepare([copiesOf(userId), ...ends], allKnown);
    const versions = outbox.prepareVersions(userId);
    const ofUser = eq(users.id, userId);
    const [rows, ...rest] = await database.batch((db) => [
      // Raised before the user goes, so that the message outdates every token.
      db
        .update(users)
        .set({ epoch: sql`${users.epoch} + 1` })
        .where(and(ofUser, allKnown))
        .returning(),
      ...versions.statements(db),
      ...told.statements(db),
      endOthers(db, { userId, reason: 'deleted', atMs: now(), when: allKnown }),
      // What remains until the tokens have expired says nothing about the person.
      db
        .update(sessions)
        .set({ device: '', address: '', data: '{}' })
        .where(and(eq(sessions.userId, userId), allKnown)),
      db.delete(events).where(and(eq(events.userId, userId), allKnown)),
      db.delete(oneTimeTokens).where(and(eq(oneTimeTokens.userId, userId), allKnown)),
      db.delete(users).where(and(ofUser, allKnown)),
      db.select({ id: users.id }).from(users).where(ofUser),
    ]);
    const [gone] = rows as UserRow[];
    const left = rest.at(-1) as unknown[];
    if (gone === undefined) return left.length === 0;
    await Promise.all([told.deliver(), versions.deliver(gone)]);
    return true;
  }

  return { attempt };
}
