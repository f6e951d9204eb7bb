import type { BatchResults, Drizzle, Statement } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { cacheFill } from '../redis/scripts/cacheFill';
import { canonicalize, hashCanonical } from './cache/canonical';
import { encodeEntry } from './cache/entry';
import type { CacheKey } from './cache/entry';
import type { SingleFlight, Loaded } from './cache/singleFlight';
import type { Windows } from './cache/freshness';
import { createManualFills } from './cache/manualFills';
import type { ManualFills } from './cache/manualFills';
import type { Invalidation } from './cache/invalidation';
import { createInvalidator } from './cache/invalidator';
import type { ChangeRecord, InvalidatorDeps } from './cache/invalidator';
import type { EntryMemory } from './cache/entryMemory';
import type { CacheMemory } from './cache/memory';
import type {
  CacheResult,
  KeyOptions,
  LifeOptions,
  Loader,
  LoaderContext,
  NegativeEntry,
  QueryOptions,
} from './cache/options';
import { createReader } from './cache/reader';
import type { CacheReads } from './cache/reader';
import { createReadThrough } from './cache/readThrough';
import type { ReadThroughDeps } from './cache/readThrough';
import { decodeEntry } from './cache/loaderRunner';
import type { Wanted } from './cache/loaderRunner';
import { createRows } from './cache/rows';
import type { CachedRows, RowsOptions, RowsQuery } from './cache/rows';
import type { FreshSingleFlight } from './freshSingleFlight';
import type { LockService } from './lock.service';
import type { Lookups } from './lookups';
import type { Refresher } from './memory/refresher';
import { facade } from './scope';

export type { CacheKey } from './cache/entry';
export type { Invalidation } from './cache/invalidation';
export type {
  CacheResult,
  KeyOptions,
  LifeOptions,
  Loader,
  LoaderContext,
  NegativeEntry,
  QueryOptions,
} from './cache/options';
export type { CachedRows, Json, RowsOptions } from './cache/rows';
export type { CacheSchema } from './cache/schema';

/**
 * Cache-aside reads that never serve values invalidated during their load: an entry carries the tag versions of its
 * namespace, tags and user from before the loader ran, and is served only while Redis still has the same versions.
 *
 * While Redis is away every read runs its loader. A request reuses values that it has read or loaded (for at most a
 * second), unless it invalidates something.
 */
export interface CacheService {
  keyOf(options: KeyOptions): CacheKey;
  userKey(userId: string): CacheKey;
  /**
   * Requests entries now, in the same pipeline as the request's other commands.
   *
   * @param withinMs for how long the isolate may serve them without asking Redis again; 0: never
   */
  prefetch(keys: CacheKey | readonly CacheKey[], withinMs?: number): void;
  /**
   * Fresh entries that Redis had at most `withinMs` ago, and that this isolate has not invalidated since.
   *
   * @returns a function that lets this request read them without asking Redis. Entries that soon exceed `withinMs` are read
   *   again after the response. `undefined` if any entry is not remembered
   */
  recall(keys: readonly CacheKey[], withinMs: number): (() => void) | undefined;
  /**
   * The cached value, or the loader's. When a loader returns `null`, it has found nothing, and that is not cached.
   * `notFound()` caches it for a while.
   *
   * @example
   * const orders = await CacheService.query({ namespace: 'orders', args: { userId, page }, user: userId, ttlSeconds: 60 },
   *   () => loadOrders(userId, page));
   */
  query<T>(options: QueryOptions<T>, loader: Loader<T>): Promise<T | null>;
  /** {@link query}, with the origin of the value. */
  result<T>(options: QueryOptions<T>, loader: Loader<T>): Promise<CacheResult<T>>;
  /**
   * Reads many entries: one round trip for all, and one call of the loader for the missing ones.
   *
   * @param loader receives the missing requests, and returns a value (or `null`, or `notFound()`) for each, in their order
   * @example
   * const products = await CacheService.getMany(
   *   ids.map((id) => ({ namespace: 'products', args: { id }, ttlSeconds: 300 })),
   *   (missing) => loadProducts(missing.map(({ args }) => args.id)));
   */
  getMany<T, R extends QueryOptions<T> = QueryOptions<T>>(
    requests: readonly R[],
    loader: (missing: readonly R[], context: LoaderContext) => Promise<readonly (T | NegativeEntry | null)[]>,
  ): Promise<(T | null)[]>;
  /**
   * The rows of a Drizzle query, cached by its SQL and values, within the database's deadline. It runs when awaited, and
   * can be passed to `reads(…)`.
   *
   * @example
   * const ordersOf = (userId: string) => CacheService.rows({ namespace: 'orders', user: userId, ttlSeconds: 60 },
   *   (db) => db.select().from(orders).where(eq(orders.userId, userId)));
   * const rows = await ordersOf(userId);
   */
  rows<T>(options: RowsOptions, build: (db: Drizzle) => RowsQuery<T>): CachedRows<T>;
  /** {@link query} for the entry of `cacheUser` and `getCachedUser`. */
  user<T>(userId: string, life: number | UserOptions, loader: Loader<T>): Promise<T | null>;
  /**
   * {@link user} for many users: one round trip for all, one call of the loader for the missing ones.
   *
   * @param loader returns a user (or `null`) for each of the missing ids, in their order
   */
  users<T>(
    userIds: readonly string[],
    life: UserOptions,
    loader: (missing: readonly string[]) => Promise<readonly (T | null)[]>,
  ): Promise<(T | null)[]>;
  /**
   * Stores a user that this request has loaded. Call `getCachedUser` before the load: it records the state of the cache.
   * Otherwise the state is recorded only now, and a user loaded before an invalidation would count as current.
   *
   * @returns `true`: stored, and served unless the user was invalidated since that `getCachedUser`. `false`: not stored,
   *   because Redis is away or this or another request has invalidated the user
   */
  cacheUser(userId: string, user: unknown, ttlSeconds?: number): Promise<boolean>;
  getCachedUser<T>(userId: string): Promise<T | null>;
  invalidateUser(userId: string): Promise<{ pending: boolean }>;
  /**
   * Forgets the values that this request has read. Later requests may not join loads that began before this call.
   *
   * @param redisKeys the keys written by an invalidation: loads of other entries may still be joined. If omitted, no load
   *   may be
   */
  forgetReads(redisKeys?: readonly string[]): void;
  /**
   * One round trip for any number of entries. Await it before you respond.
   *
   * @returns `pending: true` when Redis could not be reached: the outbox keeps retrying
   * @throws {DatabaseUnavailable} when neither Redis nor the outbox could be written
   */
  invalidate(change: Invalidation): Promise<{ pending: boolean }>;
  /**
   * Invalidates all entries of the matching namespaces. `orders:*` names one namespace: one command for any number of
   * entries. For a glob of names (`orders-*`) Redis's key space is searched for namespaces, for up to 20 s: not for a
   * request's hot path.
   *
   * @param cursor the cursor returned by an earlier call
   * @returns the number of namespaces; `cursor` to continue from, `null` at the end
   * @throws {RedisUnavailable} during such a search: the namespaces not yet found are not invalidated
   */
  deletePattern(
    pattern: string,
    cursor?: string,
  ): Promise<{ namespaces: number; pending: boolean; cursor: string | null }>;
  /**
   * Commits a change in the database together with the invalidation of the entries that it makes stale. Both are in one
   * transaction (the invalidation as an outbox row), then the invalidation is delivered to Redis. You can respond as soon
   * as this resolves. With `idempotent()` on the route, the row of its key is in the same transaction.
   *
   * @returns the rows of each statement
   * @throws {DatabaseUnavailable} the error of a violated unique constraint passes through
   * @example
   * const [[order]] = await CacheService.change({ users: [userId] },
   *   (db) => [db.update(orders).set({ note }).where(eq(orders.id, id)).returning()]);
   */
  change<const S extends readonly [Statement, ...Statement[]]>(
    invalidation: Invalidation,
    statements: (db: Drizzle) => S,
    changeRecord?: ChangeRecord,
  ): Promise<BatchResults<S>>;
}

/** How long a cached user may be served, and its source. */
export interface UserOptions extends LifeOptions, Pick<Wanted, 'readsDatabase'> {
  /** The user, if this request has read it already. */
  readonly known?: Wanted['known'];
}

declare module './scope' {
  interface ServiceMap {
    cache: CacheService;
  }
}

export const CacheService: CacheService = facade('cache');

export interface CacheDeps extends InvalidatorDeps {
  singleFlight: SingleFlight;
  freshLoads: FreshSingleFlight<Loaded>;
  lookups: Lookups;
  nextOrder: () => number;
  memory: CacheMemory;
  entries: EntryMemory;
  refresher: Refresher;
  waitUntil: (promise: Promise<unknown>) => void;
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  freshBatch: () => RedisBatch;
  /** For `lease`. */
  locks: Pick<LockService, 'acquire'>;
  /** Uniform in [0, 1). */
  random: () => number;
  spans: ReadThroughDeps['spans'];
  refreshWithinMs: ReadThroughDeps['refreshWithinMs'];
  instruments: ReadThroughDeps['instruments'];
  reads: () => CacheReads;
  manualFills: () => ManualFills;
}

/** One wanted entry, with the caller's options. */
interface Request<R> extends Wanted {
  readonly request: R;
}

export function createCacheService(given: CacheDeps): CacheService {
  const { batch, keys, database, settings, forgetReads, degraded, instruments } = given;
  const reader = createReader(given);
  const deps = { ...given, reader };
  const { resolve, snapshotsOf, fills } = createReadThrough(deps);
  const manual = createManualFills(deps);

  const userKey = (userId: string): CacheKey => ({
    entryKey: keys.user(userId),
    canonical: `user:${userId}`,
    tagVersionKeys: [keys.userVersion(userId)],
  });

  /** Reads one entry through its loader. */
  async function one<T>(wanted: Wanted, loader: Loader<T>): Promise<CacheResult<T>> {
    const [result] = await resolve([wanted], async (_, context) => [await loader(context)]);
    return result as CacheResult<T>;
  }

  const wantedOf = (options: QueryOptions): Wanted => ({
    key: service.keyOf(options),
    windows: windowsOf(options),
    schema: options.schema,
    lease: options.lease,
    readsDatabase: options.readsDatabase,
    withinMs: withinOf(options),
  });

  const service: CacheService = {
    userKey,
    forgetReads,
    ...createInvalidator(given),

    keyOf({ namespace, args, user, tags = [] }) {
      const declared = [...new Set(tags)].sort();
      const hash = hashCanonical(canonicalize([namespace, args, user, declared]));
      const tagVersionKeys = [keys.namespaceVersion(namespace), ...declared.map((tag) => keys.tagVersion(tag))];
      return user === undefined
        ? { namespace, entryKey: keys.cacheEntry(namespace, hash), canonical: hash, tagVersionKeys }
        : {
            namespace,
            entryKey: keys.userEntry(namespace, user, hash),
            canonical: hash,
            tagVersionKeys: [keys.userVersion(user), ...tagVersionKeys],
          };
    },

    prefetch(wanted, withinMs) {
      void reader.read(Array.isArray(wanted) ? (wanted as readonly CacheKey[]) : [wanted as CacheKey], withinMs);
    },

    recall: (wanted, withinMs) => reader.recall(wanted, withinMs),

    async query<T>(options: QueryOptions<T>, loader: Loader<T>) {
      return (await one(wantedOf(options), loader)).value;
    },

    async result<T>(options: QueryOptions<T>, loader: Loader<T>) {
      return one(wantedOf(options), loader);
    },

    async getMany<T, R extends QueryOptions<T>>(
      requests: readonly R[],
      loader: (missing: readonly R[], context: LoaderContext) => Promise<readonly (T | NegativeEntry | null)[]>,
    ) {
      const named = requests.map((request): Request<R> => ({ request, ...wantedOf(request) }));
      // An entry that was requested twice is read and loaded once.
      const distinct = [...new Map(named.map((wanted) => [wanted.key.entryKey, wanted])).values()];
      const results = await resolve(distinct, (missing, context) =>
        loader(
          missing.map(({ request }) => request),
          context,
        ),
      );
      const values = new Map(distinct.map(({ key }, index) => [key.entryKey, results[index]?.value ?? null]));
      return named.map(({ key }) => (values.get(key.entryKey) ?? null) as T | null);
    },

    rows(options, build) {
      return createRows({ database, cache: service }, options, build);
    },

    async user<T>(userId: string, life: number | UserOptions, loader: Loader<T>) {
      const options = typeof life === 'number' ? { ttlSeconds: life } : life;
      return (await one({ key: userKey(userId), ...userOptions(options) }, loader)).value;
    },

    async users<T>(
      userIds: readonly string[],
      life: UserOptions,
      loader: (missing: readonly string[]) => Promise<readonly (T | null)[]>,
    ) {
      const wanted = userIds.map((userId) => ({ userId, key: userKey(userId), ...userOptions(life) }));
      const results = await resolve(wanted, (missing) => loader(missing.map(({ userId }) => userId)));
      return results.map(({ value }) => value as T | null);
    },

    async getCachedUser<T>(userId: string) {
      const key = userKey(userId);
      const [snapshot] = (await snapshotsOf([key])) ?? [];
      const entry = snapshot?.entry;
      if (entry !== undefined && entry.softExpiryMs > given.now()) {
        const found = decodeEntry(entry, undefined);
        if (found.ok && found.value !== null) {
          instruments.cacheRequests.count('user', 'hit');
          return found.value as T;
        }
      }
      instruments.cacheRequests.count('user', snapshot === undefined ? 'bypass' : 'miss');
      // The caller is about to load: invalidations from now on must be noticed.
      await manual.note(key, snapshot);
      return null;
    },

    async cacheUser(userId, user, ttlSeconds = settings.userTtlSeconds) {
      const key = userKey(userId);
      const json = JSON.stringify(user) as string | undefined;
      if (json === undefined) throw new TypeError('the user has no JSON form');
      const [snapshot] = manual.has(key) ? [] : ((await snapshotsOf([key])) ?? []);
      if (snapshot !== undefined) await manual.note(key, snapshot);
      const manualFill = await manual.take(key);
      if (manualFill === undefined) return false;
      try {
        const windows = windowsOf({ ttlSeconds, staleIfErrorSeconds: settings.staleIfErrorSeconds });
        const entry = fills.entryOf(json, windows, 0, false);
        const body = encodeEntry(key, manualFill.tagVersions, entry);
        const lifeMs = entry.hardExpiryMs - entry.createdAtMs;
        const args = fills.fillArguments(manualFill, body, lifeMs, manualFill.loadingAtMs);
        return fills.noteTime(await batch.run(cacheFill, ...args)) === 'filled';
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('cache=bypass');
        return false;
      } finally {
        // Later reads of this request must see the written value.
        reader.forget(key);
      }
    },

    invalidateUser(userId) {
      return service.invalidate({ users: [userId] });
    },
  };
  return service;
}

function userOptions(options: UserOptions) {
  const { readsDatabase, known } = options;
  return { windows: windowsOf(options), readsDatabase, known, withinMs: withinOf(options) };
}

/** With a longer time, remembered values would not count as fresh, and old entries would fill the memory. */
const MAX_WITHIN_SECONDS = 60;

function withinOf({ withinSeconds = 0 }: LifeOptions): number {
  if (!(withinSeconds >= 0 && withinSeconds <= MAX_WITHIN_SECONDS)) {
    throw new RangeError(`withinSeconds must be from 0 to ${MAX_WITHIN_SECONDS}`);
  }
  return withinSeconds * 1_000;
}

function windowsOf({ ttlSeconds, staleSeconds = 0, staleIfErrorSeconds = 0 }: LifeOptions): Windows {
  if (!(ttlSeconds > 0)) throw new RangeError('ttlSeconds must be positive');
  if (!(staleSeconds >= 0 && staleIfErrorSeconds >= 0)) throw new RangeError('a stale time must not be negative');
  return { ttlMs: ttlSeconds * 1_000, staleMs: staleSeconds * 1_000, staleIfErrorMs: staleIfErrorSeconds * 1_000 };
}
