import { and, inArray, isNull, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { describeError, log } from '../../config/log';
import { DatabaseUnavailable, isUniqueViolation } from '../../db/client';
import type { Drizzle, Statement } from '../../db/client';
import { sessions } from '../../db/schema';
import type { SessionEndReason, SessionRow } from '../../db/schema';
import { chunks } from '../../util/chunks';
import { retry } from '../../util/retry';
import type { AuditService } from '../audit.service';
import type { EventKind, EventService } from '../event.service';
import type { IdempotencyService } from '../idempotency.service';
import type { OutboxEntry, OutboxMessage, OutboxService } from '../outbox.service';
import { endedWith } from './statements';

/** The event in an account's history for each reason. */
const ENDINGS: Partial<Record<SessionEndReason, EventKind>> = {
  logout: 'logout',
  revoked: 'session-revoked',
  administrator: 'session-revoked',
  reuse: 'refresh-reuse',
};

/** D1 binds at most 100 values per statement. */
const IDS_A_STATEMENT = 90;
/** Waits between attempts to record an end after the response. */
const RECORD_WAITS_MS = [250, 1_000, 4_000, 10_000];

export interface EndingDeps {
  outbox: OutboxService;
  event: EventService;
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

/** Ends of sessions for the batch of another change. */
export interface PreparedEnds {
  entry: OutboxEntry;
  statements: (db: Drizzle) => Statement[];
}

export const isLive = (sessionId: string) =>
  sql`exists (select 1 from ${sessions} where ${sessions.id} = ${sessionId} and ${sessions.endedAtMs} is null)`;

/** Ends sessions: in D1 together with a message for Redis, in one transaction. */
export function createEnding({ outbox, event, audit, idempotency, waitUntil, now }: EndingDeps) {
  /** Statements that mark sessions as ended and store the messages for Redis. They do nothing if `when` is false. */
  function prepareEnds(
    ended: readonly Pick<SessionRow, 'id' | 'expiresAtMs'>[],
    reason: SessionEndReason,
    when?: SQL,
  ): PreparedEnds {
    const messages = ended.map(({ id, expiresAtMs }): OutboxMessage => ({
      kind: 'session-end',
      sessionId: id,
      reason,
      expiresAtMs,
    }));
    const entry = outbox.prepare(messages, when);
    const ids = ended.map(({ id }) => id);
    const statements = (db: Drizzle): Statement[] => [
      ...chunks(ids, IDS_A_STATEMENT).map((chunk) =>
        db
          .update(sessions)
          .set(endedWith(reason, now()))
          .where(and(inArray(sessions.id, chunk), isNull(sessions.endedAtMs), when)),
      ),
      ...entry.statements(db),
    ];
    return { entry, statements };
  }

  async function end(
    { id, userId, expiresAtMs }: Pick<SessionRow, 'id' | 'userId' | 'expiresAtMs'>,
    reason: SessionEndReason,
    by?: string,
  ): Promise<void> {
    const { entry, statements } = prepareEnds([{ id, expiresAtMs }], reason);
    const kind = ENDINGS[reason];
    const happened = kind && event.prepare({ kind, userId, sessionId: id, ...(by && { by }) }, isLive(id));
    const noted = by && audit.prepare({ by, action: 'session-ended', userId, detail: { sessionId: id } }, isLive(id));
    const record = () =>
      idempotency.batch((db) => [
        ...(noted ? [noted(db)] : []),
        ...(happened?.statements(db) ?? []),
        ...statements(db),
      ]);
    // In parallel: the response waits for both, but depends only on D1.
    const committed = record();
    try {
      // Redis has detected the reuse itself, and keeps reporting it until it is notified that D1 has recorded the end.
      if (reason === 'reuse') await committed;
      await Promise.all([committed, entry.deliver(committed)]);
    } catch (error) {
      // Redis may already deny the session, so a client's retry can get a 401. Keep retrying the D1 write.
      if (error instanceof DatabaseUnavailable) waitUntil(keepRecording(record));
      throw error;
    }
    happened?.report();
  }

  async function keepRecording(record: () => Promise<unknown>): Promise<void> {
    try {
      await retry(record, { waitsMs: RECORD_WAITS_MS, isFinal: isUniqueViolation });
    } catch (error) {
      // The rows exist: only D1's response was lost.
      if (!isUniqueViolation(error)) log('error', 'session.end_lost', describeError(error));
    }
  }

  return { prepareEnds, end };
}
