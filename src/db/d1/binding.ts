import type { D1Database, D1DatabaseSession, D1PreparedStatement } from '@cloudflare/workers-types';

import { databaseError } from './errors';

/**
 * The part of a D1 binding that Drizzle uses. Every query and batch gets its own session, which begins at the primary: "All
 * queries" of a `first-primary` session are sequentially consistent, but only "the first query" goes to the primary
 * (https://developers.cloudflare.com/d1/best-practices/read-replication/). A replica may serve a later one, and lag behind
 * the changes of other requests.
 *
 * Every error is thrown as `DatabaseUnavailable`, `ConstraintViolation` or `StatementMistake`.
 */
export function primaryOf(binding: D1Database): D1Database {
  const begin = () => binding.withSession('first-primary');
  const primary = {
    prepare: (sql: string) => new Statement(begin, sql),
    batch: (statements: readonly Statement[]) =>
      withDatabaseErrors(
        async () => {
          const session = begin();
          return session.batch(statements.map((statement) => statement.in(session)));
        },
        statements.map(({ sql }) => sql),
      ),
  };
  // Drizzle uses only these two methods of the binding.
  return primary as unknown as D1Database;
}

class Statement {
  readonly sql: string;
  readonly #begin: () => D1DatabaseSession;
  readonly #values: readonly unknown[];

  constructor(begin: () => D1DatabaseSession, sql: string, values: readonly unknown[] = []) {
    this.#begin = begin;
    this.sql = sql;
    this.#values = values;
  }

  bind(...values: unknown[]): Statement {
    return new Statement(this.#begin, this.sql, values);
  }

  in(session: D1DatabaseSession): D1PreparedStatement {
    const statement = session.prepare(this.sql);
    return this.#values.length > 0 ? statement.bind(...this.#values) : statement;
  }

  all(): Promise<unknown> {
    return this.#run((statement) => statement.all());
  }

  run(): Promise<unknown> {
    return this.#run((statement) => statement.run());
  }

  raw(): Promise<unknown> {
    return this.#run((statement) => statement.raw());
  }

  first(): Promise<unknown> {
    return this.#run((statement) => statement.first());
  }

  #run<T>(query: (statement: D1PreparedStatement) => Promise<T>): Promise<T> {
    return withDatabaseErrors(async () => query(this.in(this.#begin())), [this.sql]);
  }
}

async function withDatabaseErrors<T>(query: () => Promise<T>, sql: readonly string[]): Promise<T> {
  try {
    return await query();
  } catch (error) {
    throw databaseError(error, sql);
  }
}
