import { and, eq, isNull, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle } from '../../db/client';
import { users } from '../../db/schema';
import { fold } from '../../util/fold';

/** What `users.search` holds of a row: no search text has a line break in it. */
export function searchText({ name, email }: { name: string; email: string }): string {
  return `${fold(name)}\n${fold(email)}`;
}

/**
 * Rows in whose name or address the text is, which {@link fold} has folded. Not LIKE: D1 takes patterns of 50 bytes at most.
 * Rows that are yet to be filled are compared by A to Z alone.
 */
export function isFound(folded: string): SQL | undefined {
  return or(
    sql`instr(${users.search}, ${folded}) > 0`,
    and(isNull(users.search), sql`instr(lower(${users.name}) || char(10) || ${users.email}, ${folded}) > 0`),
  );
}

/**
 * Stands in the batch of a change of the name, after it. A name that folds as the former one did looks to the trigger like
 * one that was changed without its search text, and is then without one.
 */
export function refolded(db: Drizzle, userId: string, name: string) {
  return db
    .update(users)
    .set({ search: searchOf(name) })
    .where(and(eq(users.id, userId), isNull(users.search)));
}

/** The search text of a row with another name. Addresses are stored folded: see `normalizeEmail`. */
export const searchOf = (name: string) => sql`${`${fold(name)}\n`} || ${users.email}`;

/** Rows that one round reads and writes. */
const ROUND = 500;

/**
 * Fills the search text of rows that lack it, by two queries for each 500. It may stop anywhere: what is filled stays, and
 * what has changed meanwhile is left for the next round.
 *
 * @returns how many it has filled
 */
export async function fillSearch(database: Database, rounds: number): Promise<number> {
  let filled = 0;
  for (let round = 0; round < rounds; round += 1) {
    const rows = await database.run((db) =>
      db
        .select({ id: users.id, name: users.name, email: users.email })
        .from(users)
        .where(isNull(users.search))
        .limit(ROUND),
    );
    if (rows.length === 0) return filled;
    const folded = JSON.stringify(rows.map((row) => ({ ...row, search: searchText(row) })));
    // One parameter, whatever the number of rows: D1 takes a hundred.
    const { meta } = await database.run((db) =>
      db.run(sql`
        UPDATE users SET search = folded.value ->> 'search' FROM json_each(${folded}) AS folded
        WHERE users.id = folded.value ->> 'id' AND users.search IS NULL
          AND users.name = folded.value ->> 'name' AND users.email = folded.value ->> 'email'`),
    );
    filled += rows.length;
    if (rows.length < ROUND) return filled;
    if (meta.changes === 0) return filled;
  }
  return filled;
}
