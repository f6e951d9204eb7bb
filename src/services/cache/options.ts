import type { CacheSchema } from './schema';

/** Names an entry, and the groups that invalidate it. */
export interface KeyOptions {
  /** Groups entries that change together: `invalidate({ namespaces: [namespace] })` invalidates all of them. */
  readonly namespace: string;
  /** Everything that the result depends on: plain objects, arrays, dates and primitives, in any order. */
  readonly args: unknown;
  /** The owner of the data: `invalidateUser` invalidates the entry. */
  readonly user?: string | undefined;
  /** Tags that invalidate the entry. They are declared here because a read needs their versions. */
  readonly tags?: readonly string[] | undefined;
}

/** How long a value may be served. */
export interface LifeOptions {
  /** Fresh for this time, or up to a tenth less: entries cached together must not expire together. */
  readonly ttlSeconds: number;
  /** After the TTL it is still served at once for this long, and refreshed after the response. @default 0 */
  readonly staleSeconds?: number | undefined;
  /** After the TTL it is served for this long when the loader fails, exceeds its deadline, or has just failed. @default 0 */
  readonly staleIfErrorSeconds?: number | undefined;
  /**
   * For this time after Redis was asked, at most a minute, the isolate may serve a fresh value without asking again. An
   * invalidation by another isolate takes effect after that time at the latest, one by this isolate at once. 0: each read
   * asks Redis. @default 0
   */
  readonly withinSeconds?: number | undefined;
}

export interface QueryOptions<T = unknown> extends KeyOptions, LifeOptions {
  /**
   * Standard Schema (zod, valibot, …), synchronous. A cached value that it refuses is a miss and is replaced. A loader's
   * value must pass it too, after conversion to JSON and back, so that hits and misses give the same.
   */
  readonly schema?: CacheSchema<T> | undefined;
  /**
   * Single flight across all isolates: one loads, the others wait for its result (or serve a stale value). It uses a lock
   * in Redis, which costs two round trips on a miss. Within an isolate, single flight needs no lease. Not for `getMany`.
   * @default false
   */
  readonly lease?: boolean | undefined;
  /**
   * The loader reads the app's database. While Redis is away, `DATABASE_LOOKUPS_MAX` limits such concurrent loads of an
   * isolate. @default false
   */
  readonly readsDatabase?: boolean | undefined;
}

/** A cacheable "not found", made by {@link LoaderContext.notFound}. */
export class NegativeEntry {
  readonly ttlSeconds: number | undefined;

  constructor(ttlSeconds?: number) {
    this.ttlSeconds = ttlSeconds;
  }
}

export interface LoaderContext {
  /** Aborted at the loader's deadline. */
  readonly signal: AbortSignal;
  /** The request was already served from the cache: this load only refreshes the entry. */
  readonly refresh: boolean;
  /**
   * Makes a negative entry: the loader found nothing, and this result is cached for the given time (`query` returns
   * `null`). A plain `null` is not cached.
   *
   * @param ttlSeconds @default the query's, or the app's for negative entries if that is shorter
   */
  readonly notFound: (ttlSeconds?: number) => NegativeEntry;
}

export type Loader<T> = (context: LoaderContext) => Promise<T | NegativeEntry | null>;

/** A value and its origin. Times are milliseconds since the epoch. */
export interface CacheResult<T> {
  readonly value: T | null;
  /**
   * `hit`: from the cache, fresh; `stale`: from the cache, being refreshed; `fallback`: from the cache, because the loader
   * failed; `loaded`: by the loader; `joined`: by another request's load; `bypass`: by the loader, while Redis is away.
   */
  readonly from: 'hit' | 'stale' | 'fallback' | 'loaded' | 'joined' | 'bypass';
  /** Whether there was a cached value that was too old. */
  readonly expired: boolean;
  readonly createdAtMs: number;
  /** The end of its freshness; may be past. */
  readonly freshUntilMs: number;
  /** From the isolate's memory, without asking Redis for this request. */
  readonly remembered?: boolean;
}
