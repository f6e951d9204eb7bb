import { and, asc, eq, lt, or, sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { least } from '../../db/portable';
import { outbox, redisState } from '../../db/schema';
import type { RedisStateRow } from '../../db/schema';

/** If an isolate dies while it delivers a backlog, another one may continue after this time. */
const LEASE_MS = 15_000;

/** The database's knowledge of the copy in Redis, and of the messages for it. */
export interface HistoryState extends Omit<RedisStateRow, 'id' | 'leaseHolder' | 'leaseUntilMs'> {
  /** The `seq` of the next message. */
  nextSeq: number;
  /** `seq` of the oldest message of the log; `nextSeq` if the log is empty. */
  oldestSeq: number;
  /** `seq` of the oldest message that was not tried yet, or whose request has not yet recorded its delivery. */
  oldestPendingSeq: number | undefined;
}

export type StateChange = Partial<
  Pick<RedisStateRow, 'beat' | 'repeatedSeq' | 'lostSeq' | 'lostDoneSeq' | 'lostSessionsMs'>
>;

export function createStateStore(database: Database, now: () => number) {
  const holder = crypto.randomUUID();

  return {
    /** One query batch that reads a few rows. */
    async read(): Promise<HistoryState> {
      const [[state], [log], [pending]] = await database.batch(
        (db) => [
          db.select().from(redisState).where(eq(redisState.id, 1)),
          db
            .select({
              newest: sql<number>`coalesce((select max(seq) from outbox), 0)`.as('newest'),
              oldest: sql<number | null>`(select min(seq) from outbox)`.as('oldest'),
            })
            .from(redisState)
            .where(eq(redisState.id, 1)),
          // Skip messages whose delivery failed: they get a new number when they are delivered.
          db
            .select({ seq: outbox.seq })
            .from(outbox)
            .where(and(eq(outbox.state, 'pending'), eq(outbox.dueAtMs, 0)))
            .orderBy(asc(outbox.seq))
            .limit(1),
        ],
        { settled: outbox },
      );
      if (state === undefined || log === undefined) throw new Error('the row of the table redis_state is missing');
      const nextSeq = Math.max(log.newest + 1, state.beat);
      return { ...state, nextSeq, oldestSeq: log.oldest ?? nextSeq, oldestPendingSeq: pending?.seq };
    },

    async write(change: StateChange): Promise<void> {
      await database.run((db) => db.update(redisState).set(change).where(eq(redisState.id, 1)));
    },

    /** Records that messages from this `seq` on must be delivered again, in addition to losses already known. */
    async recordLoss(fromSeq: number, sessionsBeforeMs: number | null): Promise<void> {
      await database.run((db) =>
        db
          .update(redisState)
          .set({
            lostSeq: least(sql`coalesce(${redisState.lostSeq}, ${fromSeq})`, fromSeq),
            // A loss during the recovery from another one restarts the recovery.
            lostDoneSeq: null,
            lostSessionsMs: sql`coalesce(${sessionsBeforeMs}, ${redisState.lostSessionsMs})`,
          })
          .where(eq(redisState.id, 1)),
      );
    },

    /**
     * Gives this isolate the lease for delivering backlogs, or extends it.
     *
     * @returns `false` while another isolate has it
     */
    async takeLease(): Promise<boolean> {
      const atMs = now();
      const free = or(
        eq(redisState.leaseHolder, holder),
        lt(redisState.leaseUntilMs, atMs),
        // The lease was set by a clock that is far ahead of this one.
        sql`${redisState.leaseUntilMs} > ${atMs + 4 * LEASE_MS}`,
      );
      const taken = await database.run((db) =>
        db
          .update(redisState)
          .set({ leaseHolder: holder, leaseUntilMs: atMs + LEASE_MS })
          .where(and(eq(redisState.id, 1), free))
          .returning({ id: redisState.id }),
      );
      return taken.length > 0;
    },

    async releaseLease(): Promise<void> {
      await database.run((db) =>
        db
          .update(redisState)
          .set({ leaseHolder: null, leaseUntilMs: 0 })
          .where(and(eq(redisState.id, 1), eq(redisState.leaseHolder, holder))),
      );
    },
  };
}

export type StateStore = ReturnType<typeof createStateStore>;
