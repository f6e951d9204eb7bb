import type { D1Database } from '@cloudflare/workers-types';
import { DrizzleError, is } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/d1';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import type { BatchItem } from 'drizzle-orm/batch';

import { primaryOf } from './binding';
import { DatabaseUnavailable, StatementMistake, findDatabaseError } from './errors';
import * as schema from './schema';
import { withoutValues } from './shape';

export { ConstraintViolation, DatabaseError, DatabaseUnavailable, StatementMistake, isUniqueViolation } from './errors';

export type Drizzle = DrizzleD1Database<typeof schema>;
export type Statement = BatchItem<'sqlite'>;

export interface Database {
  /**
   * Runs queries within the deadline.
   *
   * @throws {DatabaseUnavailable} when another try may succeed
   * @throws {ConstraintViolation} see {@link isUniqueViolation}
   * @throws {StatementMistake} for a statement that fails each time. Errors of `work` itself pass through
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

/** D1's primary, each time: a lagging replica must not decide over sessions and caches. */
export function createDatabase(binding: D1Database, { deadlineMs }: DatabaseOptions): Database {
  let db: Drizzle | undefined;
  const connect = () => (db ??= drizzle(primaryOf(binding), { schema }));

  const run: Database['run'] = async (work) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new DatabaseUnavailable('no response in time')), deadlineMs);
    });
    try {
      return await Promise.race([work(connect()), deadline]);
    } catch (error) {
      throw findDatabaseError(error) ?? drizzleMistake(error) ?? error;
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    run,
    build: (make) => {
      try {
        return make(connect());
      } catch (error) {
        throw drizzleMistake(error) ?? error;
      }
    },
    batch: (statements) =>
      run(async (drizzleDb) => {
        const [first, ...rest] = statements(drizzleDb);
        return first === undefined ? [] : drizzleDb.batch([first, ...rest]);
      }),
  };
}

/** Drizzle refuses some statements itself, mostly with a bare `Error`. */
const DRIZZLE_TEXTS =
  /^(?:No values to set|values\(\) must be called with at least one value|Insert select error|You cannot specify|Set operator error|Cannot pass undefined values|Alias ".*" is already used|Cannot execute a query on a query builder|Your .* references a column)/;

function drizzleMistake(error: unknown): StatementMistake | undefined {
  if (!(error instanceof Error)) return undefined;
  const { message } = error;
  const isDrizzles = is(error, DrizzleError) || DRIZZLE_TEXTS.test(message);
  return isDrizzles ? new StatementMistake({ message: withoutValues(message) }, { cause: error }) : undefined;
}

/** In pieces of at most `size`: D1 binds at most 100 values a statement. */
export function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}
