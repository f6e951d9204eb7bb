import type { CacheSchema } from './schema';

/** Names an entry, and what invalidates it. */
export interface KeyOptions {
  /** Groups entries that change together: `invalidate({ namespaces: [namespace] })` ends them all. */
  readonly namespace: string;
  /** Everything that the result depends on: plain objects, arrays, dates and primitives, in any order. */
  readonly args: unknown;
  /** The user whose data this is: `invalidateUser` ends it. */
  readonly user?: string | undefined;
  /** What else ends it; declared, so that they are known when reading. */
  readonly tags?: readonly string[] | undefined;
}

/** How long a value is good. */
export interface LifeOptions {
  /** Fresh for so long, up to a tenth less: what was cached together does not expire together. */
  readonly ttlSeconds: number;
  /** After that it is still answered at once, and refreshed behind the answer. @default 0 */
  readonly staleSeconds?: number | undefined;
  /** After its TTL it is answered when the loader fails, fails to answer, or has just failed. @default 0 */
  readonly staleIfErrorSeconds?: number | undefined;
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

/** A loader's word for "there is no such thing, and that may be cached". Made by {@link LoaderContext.notFound}. */
export class Nothing {
  readonly ttlSeconds: number | undefined;

  constructor(ttlSeconds?: number) {
    this.ttlSeconds = ttlSeconds;
  }
}

export interface LoaderContext {
  /** Aborted at the loader's deadline. */
  readonly signal: AbortSignal;
  /** The answer was made from the cache already: this load only refreshes it. */
  readonly refresh: boolean;
  /**
   * Returned by a loader: there is nothing, and for so long nobody need ask again (`query` gives `null`). A loader that
   * returns `null` says only that there is nothing now; that is not cached.
   *
   * @param ttlSeconds the query's own when that is shorter than the app's default for negative answers
   */
  readonly notFound: (ttlSeconds?: number) => Nothing;
}

export type Loader<T> = (context: LoaderContext) => Promise<T | Nothing | null>;

/** How a value was had. Times are milliseconds since the epoch. */
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
}
