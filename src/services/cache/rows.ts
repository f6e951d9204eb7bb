import type { Database, Drizzle } from '../../db/client';
import type { CacheKey } from './entry';
import type { LifeOptions, QueryOptions } from './options';

/** A value after conversion to JSON and back: dates become text; values without a JSON form disappear. */
export type Json<T> = T extends Date
  ? string
  : T extends readonly (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Name in keyof T]: Json<T[Name]> }
      : T;

/** A Drizzle query that has not run yet. */
export interface RowsQuery<T> extends PromiseLike<T> {
  toSQL(): { sql: string; params: readonly unknown[] };
}

export interface RowsOptions extends LifeOptions {
  readonly namespace: string;
  readonly user?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  readonly lease?: boolean | undefined;
}

/** A cached read that runs when awaited. It can be passed to `reads(…)`. */
export interface CachedRows<T> extends PromiseLike<Json<T>> {
  readonly key: CacheKey;
}

export interface RowsDeps {
  database: Database;
  cache: {
    keyOf(options: QueryOptions): CacheKey;
    query(options: QueryOptions, loader: () => Promise<unknown>): Promise<unknown>;
  };
}

/** The arguments of the cache key are the query's SQL and values, so different queries have different entries. */
export function createRows<T>(
  { database, cache }: RowsDeps,
  options: RowsOptions,
  build: (db: Drizzle) => RowsQuery<T>,
): CachedRows<T> {
  const { sql, params } = database.build(build).toSQL();
  const request: QueryOptions = { ...options, args: [sql, params], readsDatabase: true };
  return {
    key: cache.keyOf(request),
    // oxlint-disable-next-line unicorn/no-thenable -- awaited like the Drizzle query that it stands for
    then: (onRows, onError) =>
      cache
        .query(request, () => database.run(async (db) => build(db)))
        .then((rows) => rows as Json<T>)
        .then(onRows, onError),
  };
}
