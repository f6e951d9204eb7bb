import { and, eq, gt, inArray, isNull, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { log } from '../../config/log';
import type { Database } from '../../db/client';
import { events, idempotencyKeys, knownOrigins, loginFailures, oneTimeTokens, sessions, users } from '../../db/schema';
import type { SessionEndReason } from '../../db/schema';
import type { PersonalTable } from '../../personalData';
import { anyOf, flag } from '../../db/portable';
import { versionStep } from '../blacklist/versionStep';
import type { IdempotencyService } from '../idempotency.service';
import type { OutboxMessage, OutboxService } from '../outbox.service';
import type { AuditService } from '../audit.service';
import { endOthers, whileOwner } from '../session/statements';
import { leavesAnAdministrator } from './administrators';

/**
 * Sessions that ended together with others of their user. Only the user's epoch was delivered to Redis, so their records,
 * with e-mail address and role, are still there.
 */
const ENDED_TOGETHER: SessionEndReason[] = ['logout-all', 'password', 'email', 'disabled', 'deleted', 'administrator'];

/** The reference, in JSON, of a request whose user has been deleted since. */
const DELETED = 'null';

/**
 * `overtaken`: a session began in the meantime. The account was then not deleted, because Redis would keep that session's
 * record.
 */
export type Deletion = 'deleted' | 'missing' | 'overtaken' | 'last-administrator';

export interface DeletionDeps {
  database: Database;
  outbox: OutboxService;
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  /** The message that invalidates and overwrites every cached copy of a user. */
  copiesOf: (userId: string) => OutboxMessage;
  /** The app's own tables. */
  personal: readonly PersonalTable[];
  now: () => number;
}

/** Deletes a user, with all personal data in D1 and Redis. */
export function createDeletion({ database, outbox, audit, idempotency, copiesOf, personal, now }: DeletionDeps) {
  /** Sessions that may have a record in Redis. */
  async function recordedSessions(userId: string, atMs: number) {
    return database.run((db) =>
      db
        .select({ sessionId: sessions.id, expiresAtMs: sessions.expiresAtMs, endedAtMs: sessions.endedAtMs })
        .from(sessions)
        .where(
          and(
            eq(sessions.userId, userId),
            gt(sessions.expiresAtMs, atMs),
            or(isNull(sessions.endedAtMs), inArray(sessions.endedReason, ENDED_TOGETHER)),
          ),
        ),
    );
  }

  /**
   * Repeats the messages: an earlier attempt was committed, but its response was lost, so nothing was delivered to Redis
   * yet.
   */
  async function deliverAgain(userId: string, ends: readonly OutboxMessage[]): Promise<void> {
    if (ends.length === 0) return;
    const again = outbox.prepare([copiesOf(userId), ...ends]);
    await database.batch((db) => again.statements(db));
    await again.deliver();
  }

  async function attempt(
    userId: string,
    { by, only }: { by?: string | undefined; only?: SQL } = {},
  ): Promise<Deletion> {
    const atMs = now();
    const recorded = await recordedSessions(userId, atMs);
    const live = recorded.filter(({ endedAtMs }) => endedAtMs === null).map(({ sessionId }) => sessionId);
    const allowed =
      only === undefined ? leavesAnAdministrator(userId) : sql`${leavesAnAdministrator(userId)} and ${only}`;
    // No session has begun since. Once true, it stays true until the batch ends.
    const allKnown = sql`not exists (select 1 from ${sessions} where ${sessions.userId} = ${userId}
      and ${sessions.endedAtMs} is null and ${sessions.expiresAtMs} > ${atMs} and ${sessions.id} not in ${anyOf(live)})
      and ${whileOwner(userId, allowed)}`;
    const ends = recorded.map(
      ({ sessionId, expiresAtMs }) => ({ kind: 'session-end', reason: 'deleted', sessionId, expiresAtMs }) as const,
    );
    const messages = outbox.prepare([copiesOf(userId), ...ends], allKnown);
    const versions = outbox.prepareVersions(userId);
    const noted = by === undefined ? undefined : audit.prepare({ by, action: 'deleted', userId }, allKnown);
    const ofUser = eq(users.id, userId);
    const [rows, ...rest] = await idempotency.batch(
      (db) => [
        // Raise the versions before the row is deleted, so that the message outdates every token.
        db
          .update(users)
          .set({ epoch: sql`${users.epoch} + ${versionStep()}` })
          .where(and(ofUser, allKnown))
          .returning(),
        ...versions.statements(db),
        ...(noted === undefined ? [] : [noted(db)]),
        ...messages.statements(db),
        endOthers(db, { userId, reason: 'deleted', atMs, when: allKnown }),
        // The rows kept until the tokens have expired hold no personal data.
        db
          .update(sessions)
          .set({ device: '', address: '', data: '{}' })
          .where(and(eq(sessions.userId, userId), allKnown)),
        db.delete(events).where(and(eq(events.userId, userId), allKnown)),
        // A retry of the registration must not create the account again. The kept row names neither the user nor the
        // request.
        db
          .update(idempotencyKeys)
          .set({ userId: null, reference: DELETED, response: null })
          .where(and(eq(idempotencyKeys.userId, userId), allKnown)),
        db.delete(knownOrigins).where(and(eq(knownOrigins.userId, userId), allKnown)),
        db.delete(loginFailures).where(and(eq(loginFailures.account, `u:${userId}`), allKnown)),
        ...personal.map(({ remove }) => remove(db, userId, allKnown)),
        db.delete(users).where(and(ofUser, allKnown)),
        // After the user, because the condition may be that one of these tokens is still valid.
        db
          .delete(oneTimeTokens)
          .where(and(eq(oneTimeTokens.userId, userId), sql`not exists (select 1 from ${users} where ${ofUser})`)),
        db
          .select({ isSafe: flag(leavesAnAdministrator(userId)) })
          .from(users)
          .where(ofUser),
        // This request's own row outlives the user, and holds no data about them.
      ],
      { when: sql`not exists (select 1 from ${users} where ${ofUser})`, userId: null },
    );
    const [gone] = rows;
    const [left] = rest.at(-1) as { isSafe: number }[];
    if (gone === undefined) {
      if (left === undefined) {
        await deliverAgain(userId, ends);
        return 'missing';
      }
      return left.isSafe === 1 ? 'overtaken' : 'last-administrator';
    }
    log('info', 'audit.deleted', { userId, by });
    await Promise.all([messages.deliver(), versions.deliver(gone)]);
    return 'deleted';
  }

  return { attempt };
}
