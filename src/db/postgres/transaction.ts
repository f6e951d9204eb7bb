import { DatabaseUnavailable } from '../errors';
import type { PostgresClient, Query } from './client';
import { isConflict, postgresError } from './errors';

/** Attempts for a transaction that conflicts with others. The waits in between double each time. */
const TRIES = 12;
const FIRST_WAIT_MS = 2;
const LONGEST_WAIT_MS = 200;

const plain = (text: string): Query => ({ text, values: [], isArray: false });

/**
 * Runs all of the queries or none, as if no other transaction ran at the same time (SERIALIZABLE). BEGIN, the queries and
 * COMMIT travel together: one round trip. A transaction that the server ends because of a conflict is retried.
 *
 * @returns the rows of each query
 * @throws {DatabaseError}
 */
export async function inTransaction(
  client: PostgresClient,
  queries: readonly Query[],
  { before = [], after = [] }: { before?: readonly string[]; after?: readonly string[] } = {},
): Promise<unknown[][]> {
  const all = [
    plain('begin isolation level serializable'),
    ...before.map(plain),
    ...queries,
    ...after.map(plain),
    plain('commit'),
  ];
  const texts = queries.map(({ text }) => text);
  for (let tried = 1; ; tried += 1) {
    const outcomes = await client.pipeline(all);
    // After the first failure all later queries fail as well, and COMMIT rolls back.
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed === undefined) {
      const results = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      if (results.at(-1)?.command !== 'COMMIT') throw new DatabaseUnavailable('not committed');
      return results.slice(1 + before.length, 1 + before.length + queries.length).map(({ rows }) => rows);
    }
    const { reason } = failed;
    if (!isConflict(reason) || tried === TRIES) throw postgresError(reason, texts);
    // Random waits: with equal ones the same transactions would conflict again.
    const waitMs = Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tried);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}
