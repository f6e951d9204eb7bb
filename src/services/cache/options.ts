import type { CacheSchema } from './schema';

/** Names an entry, and what invalidates it. */
export interface KeyOptions {
  /** Groups entries that change together: `invalidate({ namespaces: [namespace] })` ends them all. */
  readonly namespace: string;
  /** Everything that the result depends on: plain objects, arrays, dates and primitives, in any order. */
  readonly args: unknown;
  /** The user whose data this is: `invalidateUser` ends it. */
  readonly user?: string | undefined;
  /** Tags whose invalidation ends it. They are declared here because a read needs their versions. */
  readonly tags?: readonly string[] | undefined;
}

/** How long a value is good. */
export interface LifeOptions {
  /** Fresh for so long, up to a tenth less: what was cached together does not expire together. */
  readonly ttlSeconds: number;
  /** After the TTL it is still served at once for this long, and refreshed after the response. @default 0 */
  readonly staleSeconds?: number | undefined;
  /** After the TTL it is served for this long when the loader fails, exceeds its deadline, or has just failed. @default 0 */
  readonly staleIfErrorSeconds?: number | undefined;
  /**
   * For so long after Redis was asked for it, at most a minute, the isolate may serve a fresh value without asking again:
   * an invalidation by another isolate counts after that time at the latest, one by this isolate at once. 0: each read
   * asks Redis. @default 0
   */
  readonly withinSeconds?: number | undefined;
}

export interface QueryOptions<T = unknown> extends KeyOptions, LifeOptions {
  /**
   * Standard Schema (zod, valibot, …), synchronous. A cached value that does not pass is a miss and is replaced; what a
   * loader returns must pass as well, after a turn through JSON, so that hits and misses give the same.
   */
  readonly schema?: CacheSchema<T> | undefined;
  /**
   * Among all isolates one loads and the others wait for its result (or serve what is stale), by a lock in Redis that
   * costs two round trips on a miss. Within an isolate that is so without it. Not for `getMany`. @default false
   */
  readonly lease?: boolean | undefined;
  /**
   * The loader reads the app's database: while Redis is away, `DATABASE_LOOKUPS_MAX` bounds how many such loads an isolate
   * has under way. @default false
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
  /** The request was served from the cache: this load only refreshes the entry. */
  readonly refresh: boolean;
  /**
   * Makes a negative entry: the loader found nothing, and that is cached for this long (`query` returns `null`). A loader's
   * plain `null` is not cached.
   *
   * @param ttlSeconds @default the query's, or the app's for negative entries if that is shorter
   */
  readonly notFound: (ttlSeconds?: number) => NegativeEntry;
}

export type Loader<T> = (context: LoaderContext) => Promise<T | NegativeEntry | null>;

/** A value and where it comes from. Times are milliseconds since the epoch. */
export interface CacheResult<T> {
  readonly value: T | null;
  /**
   * `hit`: from the cache, fresh; `stale`: from the cache, being refreshed; `fallback`: from the cache, because the loader
   * failed; `loaded`: by the loader; `joined`: by a load that another request had begun; `bypass`: by the loader, while
   * Redis is away.
   */
  readonly from: 'hit' | 'stale' | 'fallback' | 'loaded' | 'joined' | 'bypass';
  /** Whether there was a value, which was too old. */
  readonly expired: boolean;
  readonly createdAtMs: number;
  /** When it stops, or stopped, being fresh. */
  readonly freshUntilMs: number;
  /** From the isolate's memory: Redis was not asked for this request. */
  readonly remembered?: boolean;
}
