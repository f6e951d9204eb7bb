import type { Table } from 'drizzle-orm';

export interface BatchOptions {
  /** A table whose rows are numbered in the order of insertion: the batch sees every row below the largest number that it sees. */
  settled?: Table;
  /** Such a table, whose rows the batch renumbers. Rows inserted later get larger numbers. */
  renumbered?: Table;
  /** The ORDER BY of the statements is that of an index. Read the index in this order and stop once LIMIT is reached. */
  alongIndex?: boolean;
}

/** One request's connection, made by an engine from its binding. It throws the errors of `errors.ts`. */
export interface Connection<Drizzle, Statement> {
  drizzle: Drizzle;
  /**
   * All or nothing, serializable, one round trip.
   *
   * @returns the rows of each statement
   */
  batch(make: (db: Drizzle) => readonly Statement[], options?: BatchOptions): Promise<unknown[]>;
  /** A problem with the connection to a database that does respond, in words for an operator. */
  check?(): Promise<string | undefined>;
  /** Called after a query timed out: later queries must not wait behind it. */
  abandon?(): void;
  /** Called at the end of the request, if the engine has a connection to close. */
  close?(): void;
}
