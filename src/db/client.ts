import type { D1Database } from '@cloudflare/workers-types';
import { drizzle } from 'drizzle-orm/d1';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { BatchItem } from 'drizzle-orm/batch';

import * as schema from './schema';

export type Drizzle = DrizzleD1Database<typeof schema>;
export type Statement = BatchItem<'sqlite'>;

/** The database did not answer, or not in time. The change that was asked for may or may not have happened. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable';
}

export interface Database {
  /**
   * Runs queries within the deadline.
   *
   * @throws {DatabaseUnavailable} but for a unique constraint, whose error passes through (see {@link isUniqueViolation})
   */
  run<T>(work: (db: Drizzle) => Promise<T>): Promise<T>;
  /** A query that is not run: for its SQL. */
  build<T>(make: (db: Drizzle) => T): T;
  /**
   * Several statements as one transaction: all or nothing.
   *
   * @returns each one's rows, for those that return any
   */
  batch(statements: (db: Drizzle) => Statement[]): Promise<unknown[]>;
}

export interface DatabaseOptions {
  deadlineMs: number;
}

/**
 * D1's primary: what decides over sessions and caches must never come from a lagging replica, hence `first-primary`
 * (https://developers.cloudflare.com/d1/best-practices/read-replication/).
 */
export function createDatabase(binding: D1Database, { deadlineMs }: DatabaseOptions): Database {
  let db: Drizzle | undefined;
  // The session has what drizzle uses of a database: prepare() and batch().
  const connect = () => (db ??= drizzle(binding.withSession('first-primary') as unknown as D1Database, { schema }));

  const run: Database['run'] = async (work) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new DatabaseUnavailable('no answer in time')), deadlineMs);
    });
    try {
      return await Promise.race([work(connect()), deadline]);
    } catch (error) {
      if (error instanceof DatabaseUnavailable || isUniqueViolation(error)) throw error;
      // Drizzle's message quotes the query and its values.
      throw new DatabaseUnavailable(kindOf(error));
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    run,
    build: (make) => make(connect()),
    batch: (statements) =>
      run(async (drizzleDb) => {
        const [first, ...rest] = statements(drizzleDb);
        return first === undefined ? [] : drizzleDb.batch([first, ...rest]);
      }),
  };
}

/** Whether a write met a UNIQUE constraint. D1 tells by text alone. */
export function isUniqueViolation(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 4; cause = cause.cause, depth += 1) {
    if (cause.message.includes('UNIQUE constraint failed')) return true;
  }
  return false;
}

/** SQLite's or D1's code, such as `SQLITE_ERROR`; never the message. */
function kindOf(error: unknown): string {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 4; cause = cause.cause, depth += 1) {
    const code = /\b(?:SQLITE|D1)_[A-Z_]+\b/.exec(cause.message)?.[0];
    if (code !== undefined) return code;
  }
  return error instanceof Error ? error.name : 'unknown';
}

/** In pieces of at most `size`: D1 binds at most 100 values a statement. */
export function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
