import { and, asc, count, eq, isNull, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle } from '../../db/client';
import { positionOf, rowsOf } from '../../db/portable';
import { users } from '../../db/schema';
import { fold } from '../../util/fold';
import { totalOf } from '../pages';

/** The content of `users.search`. The line break separates name and address: no search text contains one. */
export function searchText({ name, email }: { name: string; email: string }): string {
  return `${fold(name)}\n${fold(email)}`;
}

/**
 * Rows whose name or address contains the text, folded by {@link fold}. Not LIKE: D1 accepts patterns of at most 50 bytes.
 * Rows not yet filled are compared without regard to the case of A to Z only.
 */
export function isFound(folded: string): SQL | undefined {
  return or(
    sql`${positionOf(folded, users.search)} > 0`,
    and(isNull(users.search), sql`${positionOf(folded, sql`lower(${users.name}) || ${'\n'} || ${users.email}`)} > 0`),
  );
}

/**
 * For the batch of a change of the name, after that statement. If the new name folds to the same text as the former one,
 * the trigger assumes that the search text was not updated, and clears it. This statement restores it.
 */
export function refolded(db: Drizzle, userId: string, name: string) {
  return db
    .update(users)
    .set({ search: searchOf(name) })
    .where(and(eq(users.id, userId), isNull(users.search)));
}

/** The search text of a row with a new name. Addresses are stored folded: see `normalizeEmail`. */
export const searchOf = (name: string) => sql`${`${fold(name)}\n`} || ${users.email}`;

/** The search text of a row with a new address; `null` stays, and is filled later. */
export const searchWithEmail = (email: string) =>
  sql`substr(${users.search}, 1, ${positionOf('\n', users.search)}) || ${fold(email)}`;

/** Ids of found rows per query and cache entry: several pages. */
const FOUND_IDS = 200;

/**
 * The block of a page of a search. Pages in the same block share one query, which reads each account once for the ids and
 * the total together.
 */
export function blockOf({ page, limit }: { page: number; limit: number }) {
  const pages = Math.max(1, Math.floor(FOUND_IDS / limit));
  const block = Math.floor((page - 1) / pages);
  const size = pages * limit;
  return { block, size, offset: block * size, at: ((page - 1) % pages) * limit };
}

/** Ids of found accounts, and their total number: one statement, whose first scan ends at the last id needed. */
export async function findIds(
  database: Database,
  folded: string,
  { size, offset }: { size: number; offset: number },
): Promise<{ ids: string[]; total: number }> {
  const [rows] = await database.batch((db) => {
    const found = db
      .$with('found')
      .as(
        db
          .select({ id: users.id, createdAtMs: users.createdAtMs })
          .from(users)
          .where(isFound(folded))
          .orderBy(asc(users.createdAtMs), asc(users.id))
          .limit(size)
          .offset(offset),
      );
    const last = sql`(select created_at_ms, id from ${found} order by created_at_ms desc, id desc limit 1)`;
    const rowsAndOthers = db
      .with(found)
      .select({
        id: found.id,
        // Fewer rows than requested: there are no others.
        others:
          sql<number>`case when (select count(*) from ${found}) < ${size} then 0 else (select count(*) from ${users}
          where (${users.createdAtMs}, ${users.id}) > ${last} and ${isFound(folded)}) end`.as('others'),
      })
      .from(found)
      .orderBy(asc(found.createdAtMs), asc(found.id));
    return [rowsAndOthers] as const;
  });
  const countAll = () => database.run((db) => db.select({ total: count() }).from(users).where(isFound(folded)));
  return { ids: rows.map(({ id }) => id), total: await totalOf(rows, offset, countAll) };
}

/** The number of rows that one round reads and writes. */
const ROUND = 500;

/**
 * Fills missing search texts, with two queries per 500 rows. It may stop at any point: filled rows stay, and rows changed
 * in the meantime are left for the next round.
 *
 * @returns the number of filled rows
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
    const folded = rows.map((row) => ({ ...row, search: searchText(row) }));
    const changed = await database.run((db) =>
      db
        .update(users)
        .set({ search: sql`folded.search` })
        .from(rowsOf('folded', ['id', 'name', 'email', 'search'], folded))
        .where(
          and(
            sql`${users.id} = folded.id and ${users.name} = folded.name and ${users.email} = folded.email`,
            isNull(users.search),
          ),
        )
        .returning({ id: users.id }),
    );
    filled += rows.length;
    if (rows.length < ROUND) return filled;
    if (changed.length === 0) return filled;
  }
  return filled;
}
