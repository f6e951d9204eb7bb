import { and, asc, desc, eq, gte, inArray, lt, lte, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Database, Drizzle } from '../../db/client';
import { anyOf, jsonObject, positionOf } from '../../db/portable';
import { outbox, users } from '../../db/schema';
import type { OutboxRow } from '../../db/schema';
import type { UserVersions } from '../blacklist/denials';
import { blacklistTtlMs } from '../blacklist/ttl';
import { flagsOf } from './message';

/** The number of rows to read, deliver and mark at a time: two queries. */
export const LOT = 1_000;
/** The most messages in one pipeline. */
export const PIPELINE = 250;
/** D1 binds at most 100 values per statement: a row has six, and a condition some. */
export const ROWS_A_STATEMENT = 16;
/** An undelivered row is due again in the next run, but not in the same one. */
export const RETRY_MS = 1;

export interface RowDeps {
  config: Config;
  now: () => number;
}

/** The columns of a new row apart from its message. */
export function newRow({ config, now }: RowDeps) {
  const createdAtMs = now();
  return {
    id: crypto.randomUUID(),
    state: 'pending' as const,
    dueAtMs: 0,
    createdAtMs,
    expiresAtMs: createdAtMs + blacklistTtlMs(config),
  };
}

/**
 * The message about a user's versions, for a query that reads the user's row.
 *
 * @param raised the versions that the change has raised
 */
export const versionsMessage = (raised: readonly (keyof UserVersions)[] = []) =>
  jsonObject({
    kind: sql`'epoch'`,
    userId: users.id,
    epoch: users.epoch,
    accessVersion: users.accessVersion,
    ...Object.fromEntries(Object.keys(flagsOf(raised)).map((flag) => [flag, sql`1`])),
  });

/** Whether an undelivered message of a user has raised a version. Reads every undelivered message. */
export const isRaiseUndelivered = (userId: string, field: keyof UserVersions): SQL =>
  sql`exists (select 1 from ${outbox} where ${outbox.state} = 'pending' and ${positionOf(userId, outbox.message)} > 0
    and ${positionOf(`"${field}Raised"`, outbox.message)} > 0)`;

/** Undelivered messages: first new ones in the database's order, then those whose delivery failed before. */
export async function pendingLot(database: Database, dueUntilMs: number): Promise<OutboxRow[]> {
  const [rows] = await database.batch(
    (db) => [
      db
        .select()
        .from(outbox)
        .where(and(eq(outbox.state, 'pending'), lte(outbox.dueAtMs, dueUntilMs)))
        .orderBy(asc(outbox.dueAtMs), asc(outbox.seq))
        .limit(LOT),
    ],
    { alongIndex: true },
  );
  return rows;
}

/** Delivered messages from `fromSeq` on and before `beforeSeq`, newest first. */
export async function deliveredLot(database: Database, fromSeq: number, beforeSeq: number): Promise<OutboxRow[]> {
  const [rows] = await database.batch(
    (db) => [
      db
        .select()
        .from(outbox)
        .where(and(gte(outbox.seq, fromSeq), lt(outbox.seq, beforeSeq), eq(outbox.state, 'delivered')))
        .orderBy(desc(outbox.seq))
        .limit(LOT),
    ],
    { alongIndex: true },
  );
  return rows;
}

export const markDelivered = (db: Drizzle, seqs: readonly number[]) =>
  db
    .update(outbox)
    .set({ state: 'delivered' })
    .where(inArray(outbox.seq, anyOf(seqs)));

/**
 * For a request, which knows its rows by their ids. Rows that a run of the cron trigger has tried without success in the
 * meantime are left to the next run.
 */
export const markDeliveredById = (db: Drizzle, ids: readonly string[]) =>
  db
    .update(outbox)
    .set({ state: 'delivered' })
    .where(and(inArray(outbox.id, anyOf(ids)), eq(outbox.dueAtMs, 0)));

/** The number that puts a row at the end of the database's order. The rows of `seqs` keep their relative order. */
const atTheEnd = (seqs: readonly number[]) =>
  sql<number>`${outbox.seq} + (select max(seq) from outbox) + 1 - ${Math.min(...seqs)}`;

/**
 * Rows that were delivered after later ones. They move to the end of the order, so that the heartbeat's guarantee holds:
 * every message with a smaller `seq` was delivered before the heartbeat was written.
 */
export const markDeliveredLate = (db: Drizzle, seqs: readonly number[]) =>
  db
    .update(outbox)
    .set({ state: 'delivered', dueAtMs: 0, seq: atTheEnd(seqs) })
    .where(inArray(outbox.seq, anyOf(seqs)));

/** Postpones undeliverable rows, so that they delay neither other messages nor the heartbeat. */
export const postpone = (db: Drizzle, seqs: readonly number[], dueAtMs: number) =>
  db
    .update(outbox)
    .set({ state: 'pending', dueAtMs })
    .where(inArray(outbox.seq, anyOf(seqs)));

/** The most rows per statement, so that a purge is always short. */
export const PURGE_ROWS = 5_000;

/** The oldest delivered row, at which a purge begins. Undelivered rows before it are skipped. */
export const oldestDelivered = (db: Drizzle, beforeSeq: number) =>
  db
    .select({ seq: outbox.seq, createdAtMs: outbox.createdAtMs })
    .from(outbox)
    .where(and(lt(outbox.seq, beforeSeq), eq(outbox.state, 'delivered')))
    .orderBy(asc(outbox.seq))
    .limit(1);

/** Deletes delivered rows that are no longer needed, among this many rows from `fromSeq` on. */
export function purgeStatement(
  db: Drizzle,
  { createdBeforeMs, fromSeq, beforeSeq }: { createdBeforeMs: number; fromSeq: number; beforeSeq: number },
) {
  const oldest = db
    .select({ seq: outbox.seq, state: outbox.state, createdAtMs: outbox.createdAtMs })
    .from(outbox)
    .where(and(gte(outbox.seq, fromSeq), lt(outbox.seq, beforeSeq)))
    .orderBy(asc(outbox.seq))
    .limit(PURGE_ROWS)
    .as('oldest');
  const purged = db
    .select({ seq: oldest.seq })
    .from(oldest)
    .where(and(eq(oldest.state, 'delivered'), lt(oldest.createdAtMs, createdBeforeMs)));
  return db.delete(outbox).where(inArray(outbox.seq, purged));
}
