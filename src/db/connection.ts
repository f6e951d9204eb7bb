import type { Table } from 'drizzle-orm';

export interface BatchOptions {
  /**
   * A table with numbers in the order of insertion: the batch sees every row whose number is smaller than the largest that it
   * sees.
   */
  settled?: Table;
  /** A table of that kind whose rows get other numbers in the batch: later rows get larger ones. */
  renumbered?: Table;
  /**
   * The statements' ORDER BY is that of an index, whose entries are to be read in this order until LIMIT has its rows.
   */
  alongIndex?: boolean;
}

/** What an engine makes of its binding, for one request. Its errors are those of `errors.ts`. */
export interface Connection<Drizzle, Statement> {
  drizzle: Drizzle;
  /**
   * All or nothing, serializable, one round trip.
   *
   * @returns the rows of each statement
   */
  batch(make: (db: Drizzle) => readonly Statement[], options?: BatchOptions): Promise<unknown[]>;
  /** What is wrong on the way to a database that responds, in words for an operator. */
  check?(): Promise<string | undefined>;
  /** When a query has had no response in time: later ones do not wait behind it. */
  abandon?(): void;
  /** When the request is over, where that ends the connection. */
  close?(): void;
}
