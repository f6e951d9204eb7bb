import type { DatabaseCounts } from '../../support/database.ts';
import type { Engine, SetUp } from './setUp.ts';

const HOUR_MS = 3_600_000;
const ROWS_A_STATEMENT = 10_000;

/** As many rows as the first value says, of users whose numbers are larger than the second. */
const ENDS: Record<Engine, string> = {
  d1: `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
    INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
    SELECT lower(hex(randomblob(16))), json_object('kind', 'session-end', 'sessionId', 'user' || (i + ?2) || '.s',
      'reason', 'logout', 'expiresAtMs', ?3), ?4, 0, ?5, ?6 FROM n`,
  postgres: `INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
    SELECT gen_random_uuid()::text, json_build_object('kind', 'session-end', 'sessionId', 'user' || (i + $2::int) || '.s',
      'reason', 'logout', 'expiresAtMs', $3::int8)::text, $4, 0, $5::int8, $6::int8 FROM generate_series(1, $1::int) AS i`,
};

/** Puts ends of sessions into the outbox: of as many users, unless there are fewer users than messages. */
export async function fillOutbox(
  { database, engine }: SetUp,
  messages: number,
  state: 'pending' | 'delivered',
): Promise<void> {
  const nowMs = Date.now();
  for (let done = 0; done < messages; done += ROWS_A_STATEMENT) {
    await database.run(
      ENDS[engine],
      Math.min(ROWS_A_STATEMENT, messages - done),
      done,
      nowMs + HOUR_MS,
      state,
      nowMs,
      nowMs + HOUR_MS,
    );
  }
}

export async function undelivered({ database }: SetUp): Promise<number> {
  const [row] = await database.run("SELECT count(*) FROM outbox WHERE state = 'pending'");
  return Number(row?.[0]);
}

export interface BacklogFigures {
  /** Undelivered messages after each scheduled run. */
  leftAfterRun: number[];
  runsMs: number[];
  cost: DatabaseCounts;
}

/** Runs the cron trigger until nothing is undelivered, at most so many times. */
export async function deliverBacklog(setUp: SetUp, maxRuns: number): Promise<BacklogFigures> {
  const leftAfterRun: number[] = [];
  const total: DatabaseCounts = { trips: 0, batches: 0, queries: 0, rowsRead: 0, rowsWritten: 0 };
  const runsMs: number[] = [];
  while (leftAfterRun.length < maxRuns && leftAfterRun.at(-1) !== 0) {
    const startMs = performance.now();
    const cost = await setUp.database.costOf(() => setUp.scheduled());
    runsMs.push(performance.now() - startMs);
    for (const key of Object.keys(total) as (keyof DatabaseCounts)[]) total[key] += cost[key];
    leftAfterRun.push(await undelivered(setUp));
  }
  return { leftAfterRun, runsMs, cost: total };
}
