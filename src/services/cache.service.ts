import type { BatchResponse } from 'drizzle-orm/batch';

import type { Drizzle, Statement } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { cacheFill } from '../redis/scripts/cacheFill';
import { canonicalize, hashCanonical } from './cache/canonical';
import { encodeEntry } from './cache/entry';
import type { CacheKey } from './cache/entry';
import type { Flights, Loaded } from './cache/flights';
import type { Windows } from './cache/freshness';
import { createIntents } from './cache/intents';
import type { ManualFills } from './cache/intents';
import type { Invalidation } from './cache/invalidation';
import { createInvalidations } from './cache/invalidations';
import type { InvalidationsDeps } from './cache/invalidations';
import type { CacheMemory } from './cache/memory';
import type {
  CacheResult,
  KeyOptions,
  LifeOptions,
  Loader,
  LoaderContext,
  Nothing,
  QueryOptions,
} from './cache/options';
import { createReader } from './cache/reader';
import type { CacheReads } from './cache/reader';
import { createReadThrough } from './cache/readThrough';
import type { ReadThroughDeps } from './cache/readThrough';
import { decodeEntry } from './cache/loads';
import type { Wanted } from './cache/loads';
import { createRows } from './cache/rows';
import type { CachedRows, RowsOptions, RowsQuery } from './cache/rows';
import type { FreshFlights } from './freshFlights';
import type { LockService } from './lock.service';
import type { Lookups } from './lookups';
import { facade } from './scope';

export type { CacheKey } from './cache/entry';
export type { Invalidation } from './cache/invalidation';
export type {
  CacheResult,
  KeyOptions,
  LifeOptions,
  Loader,
  LoaderContext,
  Nothing,
  QueryOptions,
} from './cache/options';
export type { CachedRows, Json, RowsOptions } from './cache/rows';
export type { CacheSchema } from './cache/schema';

/**
 * Cache-aside reads that cannot serve what was invalidated while they were filled: an entry carries the nonces that its
 * namespace, tags and user had before the loader ran, and is served only while Redis still has the same ones.
 *
 * While Redis is away every read goes to its loader. What a request has read or loaded stays so for it (for a second at
 * most), unless it invalidates something.
 */
export interface CacheService {
  keyOf(options: KeyOptions): CacheKey;
  userKey(userId: string): CacheKey;
  /** Asks for entries now, so that they travel with the request's other commands. */
  prefetch(keys: CacheKey | readonly CacheKey[]): void;
  /**
   * The cached value, or the loader's. A loader that returns `null` says that there is nothing; that is not cached.
   * `notFound()` says so for a while.
   *
   * @example
   * const orders = await CacheService.query({ namespace: 'orders', args: { userId, page }, user: userId, ttlSeconds: 60 },
   *   () => loadOrders(userId, page));
   */
  query<T>(options: QueryOptions<T>, loader: Loader<T>): Promise<T | null>;
  /** {@link query}, with how the value was had. */
  result<T>(options: QueryOptions<T>, loader: Loader<T>): Promise<CacheResult<T>>;
  /**
   * Many at a time: one round trip for all entries, one call of the loader for those that are missing.
   *
   * @param loader is given the missing requests, and returns a value (or `null`, or `notFound()`) for each, in their order
   * @example
   * const products = await CacheService.getMany(
   *   ids.map((id) => ({ namespace: 'products', args: { id }, ttlSeconds: 300 })),
   *   (missing) => loadProducts(missing.map(({ args }) => args.id)));
   */
  getMany<T, R extends QueryOptions<T> = QueryOptions<T>>(
    requests: readonly R[],
    loader: (missing: readonly R[], context: LoaderContext) => Promise<readonly (T | Nothing | null)[]>,
  ): Promise<(T | null)[]>;
  /**
   * The rows of a Drizzle query, cached by its SQL and values, within the database's deadline. It runs when awaited, and
   * `reads(…)` takes it as it is.
   *
   * @example
   * const ordersOf = (userId: string) => CacheService.rows({ namespace: 'orders', user: userId, ttlSeconds: 60 },
   *   (db) => db.select().from(orders).where(eq(orders.userId, userId)));
   * const rows = await ordersOf(userId);
   */
  rows<T>(options: RowsOptions, build: (db: Drizzle) => RowsQuery<T>): CachedRows<T>;
  /** {@link query} for the entry that `cacheUser` and `getCachedUser` name. */
  user<T>(userId: string, life: number | UserOptions, loader: Loader<T>): Promise<T | null>;
  /**
   * {@link user} for many users: one round trip for all, one call of the loader for those that are missing.
   *
   * @param loader returns a user (or `null`) for each of the missing ids, in their order
   */
  users<T>(
    userIds: readonly string[],
    life: UserOptions,
    loader: (missing: readonly string[]) => Promise<readonly (T | null)[]>,
  ): Promise<(T | null)[]>;
  /**
   * Stores a user that this request has loaded after its `getCachedUser`, which must come first: it notes what the cache
   * looked like before the load. Without it that is noted now, and a user who was loaded before an invalidation would
   * count as current.
   *
   * @returns `true`: stored, and served unless the user was invalidated since that `getCachedUser`. `false`: not stored,
   *   because Redis is away or an invalidation was seen, also one by this request
   */
  cacheUser(userId: string, user: unknown, ttlSeconds?: number): Promise<boolean>;
  getCachedUser<T>(userId: string): Promise<T | null>;
  invalidateUser(userId: string): Promise<{ pending: boolean }>;
  /**
   * Drops what this request has read, and lets nobody join a load that began before.
   *
   * @param redisKeys the keys that an invalidation writes: other loads may still be joined. Left out: none may
   */
  forgetReads(redisKeys?: readonly string[]): void;
  /**
   * One round trip, whatever the number of entries. To be awaited before the change is answered.
   *
   * @returns `pending: true` when Redis could not be told: the outbox has it and goes on trying
   * @throws {DatabaseUnavailable} when neither Redis nor the outbox could be told
   */
  invalidate(change: Invalidation): Promise<{ pending: boolean }>;
  /**
   * Ends everything cached in the namespaces that match. `orders:*` names one: one command, whatever the number of its
   * entries. A glob of names (`orders-*`) has Redis searched for namespaces: 20 s at most, not for a request's hot path.
   *
   * @param cursor where an earlier call stopped
   * @returns how many namespaces; `cursor` to go on from, `null` at the end
   * @throws {RedisUnavailable} while a glob is searched: nothing is known of what was not yet found
   */
  deletePattern(
    pattern: string,
    cursor?: string,
  ): Promise<{ namespaces: number; pending: boolean; cursor: string | null }>;
  /**
   * A change in the database together with what it makes wrong: committed as one transaction with its outbox row, then
   * Redis is told. The change can be answered as soon as this resolves.
   *
   * @returns each statement's rows
   * @throws {DatabaseUnavailable} but for a unique constraint, whose error passes through
   * @example
   * const [[order]] = await CacheService.change({ users: [userId] },
   *   (db) => [db.update(orders).set({ note }).where(eq(orders.id, id)).returning()]);
   */
  change<const S extends readonly [Statement, ...Statement[]]>(
    invalidation: Invalidation,
    statements: (db: Drizzle) => S,
  ): Promise<BatchResponse<S>>;
}

/** How long a cached user may be served, and where it comes from. */
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

export interface CacheDeps extends InvalidationsDeps {
  flights: Flights;
  freshLoads: FreshFlights<Loaded>;
  lookups: Lookups;
  nextOrder: () => number;
  memory: CacheMemory;
  waitUntil: (promise: Promise<unknown>) => void;
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  freshBatch: () => RedisBatch;
  /** For `lease`. */
  locks: Pick<LockService, 'acquire'>;
  /** Uniform in [0, 1). */
  random: () => number;
  refreshWithinMs: ReadThroughDeps['refreshWithinMs'];
  reads: () => CacheReads;
  manualFills: () => ManualFills;
}

/** A request for one entry, with the options that it was made with. */
interface Request<R> extends Wanted {
  readonly request: R;
}

export function createCacheService(given: CacheDeps): CacheService {
  const { batch, keys, database, settings, forgetReads, degraded } = given;
  const reader = createReader(given);
  const deps = { ...given, reader };
  const { resolve, snapshotsOf, fills } = createReadThrough(deps);
  const intents = createIntents(deps);

  const userKey = (userId: string): CacheKey => ({
    entryKey: keys.user(userId),
    canonical: `user:${userId}`,
    nonceKeys: [keys.userNonce(userId)],
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
  });

  const service: CacheService = {
    userKey,
    forgetReads,
    ...createInvalidations(given),

    keyOf({ namespace, args, user, tags = [] }) {
      const declared = [...new Set(tags)].sort();
      const hash = hashCanonical(canonicalize([namespace, args, user, declared]));
      const nonceKeys = [keys.namespaceNonce(namespace), ...declared.map((tag) => keys.tagNonce(tag))];
      return user === undefined
        ? { entryKey: keys.cacheEntry(namespace, hash), canonical: hash, nonceKeys }
        : {
            entryKey: keys.userEntry(namespace, user, hash),
            canonical: hash,
            nonceKeys: [keys.userNonce(user), ...nonceKeys],
          };
    },

    prefetch(wanted) {
      void reader.read(Array.isArray(wanted) ? (wanted as readonly CacheKey[]) : [wanted as CacheKey]);
    },

    async query<T>(options: QueryOptions<T>, loader: Loader<T>) {
      return (await one(wantedOf(options), loader)).value;
    },

    async result<T>(options: QueryOptions<T>, loader: Loader<T>) {
      return one(wantedOf(options), loader);
    },

    async getMany<T, R extends QueryOptions<T>>(
      requests: readonly R[],
      loader: (missing: readonly R[], context: LoaderContext) => Promise<readonly (T | Nothing | null)[]>,
    ) {
      const named = requests.map((request): Request<R> => ({ request, ...wantedOf(request) }));
      // Asked for twice, read and loaded once.
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
        if (found.ok && found.value !== null) return found.value as T;
      }
      // The caller is about to load: from here on an invalidation must show.
      await intents.note(key, snapshot);
      return null;
    },

    async cacheUser(userId, user, ttlSeconds = settings.userTtlSeconds) {
      const key = userKey(userId);
      const json = JSON.stringify(user) as string | undefined;
      if (json === undefined) throw new TypeError('the user has no JSON form');
      const [snapshot] = intents.has(key) ? [] : ((await snapshotsOf([key])) ?? []);
      if (snapshot !== undefined) await intents.note(key, snapshot);
      const intent = await intents.take(key);
      if (intent === undefined) return false;
      try {
        const windows = windowsOf({ ttlSeconds, staleIfErrorSeconds: settings.staleIfErrorSeconds });
        const entry = fills.entryOf(json, windows, 0, false);
        const body = encodeEntry(key, intent.nonces, entry);
        const lifeMs = entry.hardExpiryMs - entry.createdAtMs;
        const args = fills.fillArguments(intent, body, lifeMs, intent.loadingAtMs);
        return fills.noteTime(await batch.run(cacheFill, ...args)) === 'filled';
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('cache=bypass');
        return false;
      } finally {
        // Later reads of this request must see what was written.
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
  return { windows: windowsOf(options), readsDatabase, known };
}

function windowsOf({ ttlSeconds, staleSeconds = 0, staleIfErrorSeconds = 0 }: LifeOptions): Windows {
  if (!(ttlSeconds > 0)) throw new RangeError('ttlSeconds must be positive');
  if (!(staleSeconds >= 0 && staleIfErrorSeconds >= 0)) throw new RangeError('a stale time must not be negative');
  return { ttlMs: ttlSeconds * 1_000, staleMs: staleSeconds * 1_000, staleIfErrorMs: staleIfErrorSeconds * 1_000 };
}
