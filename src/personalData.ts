import { and, eq } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Table, TableColumn } from '#db';

import type { Drizzle, Statement } from './db/client';

/** A table of your own with personal data: it takes part in an account's deletion and in its export. */
export interface PersonalTable {
  /** Its member of `app` in an export. */
  name: string;
  /** A query of all rows of this user. */
  rows: (db: Drizzle, userId: string) => Statement;
  /**
   * Deletes the user's rows, in the D1 batch that deletes the account.
   *
   * @param when a condition that is false if the account is not deleted after all: add it to the statement's `where`, by `and(…)`
   */
  remove: (db: Drizzle, userId: string, when: SQL) => Statement;
}

/** The entry of a table whose column `userId` names the owner of each row. */
export function ownedBy(name: string, table: Table & { userId: TableColumn }): PersonalTable {
  return {
    name,
    rows: (db, userId) =>
      db
        .select()
        .from(table as Table)
        .where(eq(table.userId, userId)),
    remove: (db, userId, when) => db.delete(table).where(and(eq(table.userId, userId), when)),
  };
}

/**
 * Tables of your own, one entry each.
 *
 * @example
 * ownedBy('orders', orders),
 */
export const personalTables: PersonalTable[] = [];
