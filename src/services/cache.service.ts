import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { unavailable } from '../errors';
import type { RedisBatch } from '../redis/batch';
import type { RedisValue } from '../redis/client';
import { RedisError } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { cacheFill } from '../redis/scripts/cacheFill';
import { canonicalize, encodeEntry, hashCanonical, newNonce, readSnapshot, tombstone } from './cache/entry';
import type { CacheKey, Snapshot } from './cache/entry';
import type { Flights } from './cache/flights';
import { facade } from './scope';

export type { CacheKey } from './cache/entry';

export interface QueryOptions {
  /** Groups entries that change together: `invalidate({ namespaces: [namespace] })` ends them all. */
  namespace: string;
  /** Everything that the result depends on: plain objects, arrays, dates and primitives, in any order. */
  args: unknown;
  /** The user whose data this is: `invalidateUser` ends it. */
  user?: string;
  tags?: readonly string[];
  ttlSeconds: number;
}

/** What changed. A namespace, tag or user costs one command, whatever the number of entries under it. */
export interface Invalidation {
  keys?: readonly CacheKey[];
  namespaces?: readonly string[];
  tags?: readonly string[];
  users?: readonly string[];
}

export interface LoaderContext {
  /** Aborted at the loader's deadline. */
  signal: AbortSignal;
}

/**
 * Cache-aside reads that cannot serve what was invalidated while they were filled: an entry carries the nonces that its
 * namespace, tags and user had before the loader ran, and is served only while Redis still has the same ones.
 *
 * While Redis is away every read goes to its loader.
 */
export interface CacheService {
  keyOf(options: Omit<QueryOptions, 'ttlSeconds'>): CacheKey;
  userKey(userId: string): CacheKey;
  /** Asks for an entry now, so that it travels with the request's other commands. */
  prefetch(key: CacheKey): void;
  /**
   * The cached value, or the loader's. A loader that returns `null` says that there is nothing; that is not cached.
   *
   * @example
   * const orders = await CacheService.query({ namespace: 'orders', args: { userId, page }, user: userId, ttlSeconds: 60 },
   *   () => loadOrders(userId, page));
   */
  query<T>(options: QueryOptions, loader: (context: LoaderContext) => Promise<T | null>): Promise<T | null>;
  /** {@link query} for the entry that `cacheUser` and `getCachedUser` name. */
  user<T>(userId: string, ttlSeconds: number, loader: (context: LoaderContext) => Promise<T | null>): Promise<T | null>;
  /** Stores a user, unless the user was invalidated since this request's `getCachedUser`. */
  cacheUser(userId: string, user: unknown, ttlSeconds?: number): Promise<boolean>;
  getCachedUser<T>(userId: string): Promise<T | null>;
  invalidateUser(userId: string): Promise<{ pending: boolean }>;
  /** Drops what this request has read, and lets nobody join a load that began before. */
  forgetReads(): void;
  /** @returns `pending: true` when Redis could not be told; record the change in the outbox where that must not be lost */
  invalidate(change: Invalidation): Promise<{ pending: boolean }>;
}

declare module './scope' {
  interface ServiceMap {
    cache: CacheService;
  }
}

export const CacheService: CacheService = facade('cache');

/** A nonce outlives every entry that carries it; a lost one only costs misses. */
const NONCE_TTL_MS = 7 * 86_400_000;

export interface CacheDeps {
  batch: RedisBatch;
  keys: Keys;
  flights: Flights;
  settings: Config['cache'];
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  degraded: (what: string) => void;
}

/** The commands that an invalidation is, for whoever sends them (a request, or the outbox). */
export function invalidationCommands(
  keys: Keys,
  { keys: entries = [], namespaces = [], tags = [], users = [] }: Invalidation,
  tombstoneSeconds: number,
): [string, ...(string | number)[]][] {
  const bump = (key: string): [string, ...(string | number)[]] => ['SET', key, newNonce(), 'PX', NONCE_TTL_MS];
  return [
    ...entries.map((key): [string, ...(string | number)[]] => [
      'SET',
      key.entryKey,
      tombstone(),
      'PX',
      tombstoneSeconds * 1_000,
    ]),
    ...namespaces.map((namespace) => bump(keys.namespaceNonce(namespace))),
    ...tags.map((tag) => bump(keys.tagNonce(tag))),
    ...users.map((user) => bump(keys.userNonce(user))),
  ];
}

export function createCacheService({
  batch,
  keys,
  flights,
  settings,
  waitUntil,
  now,
  degraded,
}: CacheDeps): CacheService {
  /** Reads that are under way or done, by entry: a handler finds what its guard asked for. */
  const reads = new Map<string, Promise<Snapshot>>();

  async function read(key: CacheKey): Promise<Snapshot> {
    // The entry and its user's nonce share a slot, so one MGET; the others live where they may.
    const [first, ...others] = key.nonceKeys;
    const sameSlot = first !== undefined && slotOf(first) === slotOf(key.entryKey);
    const direct = sameSlot ? [key.entryKey, first] : [key.entryKey];
    const rest = sameSlot ? others : key.nonceKeys;
    const [head, ...tail] = await Promise.all([
      direct.length > 1 ? batch.send('MGET', ...direct) : batch.send('GET', key.entryKey),
      ...rest.map((nonceKey) => batch.send('GET', nonceKey)),
    ]);
    const [entry = null, nonce]: RedisValue[] = sameSlot && Array.isArray(head) ? head : [head ?? null];
    return readSnapshot(key, entry, sameSlot ? [nonce ?? null, ...tail] : tail, now());
  }

  function readOnce(key: CacheKey): Promise<Snapshot> {
    let snapshot = reads.get(key.entryKey);
    if (snapshot === undefined) {
      snapshot = read(key);
      // A prefetch that nobody comes for must not become an unhandled rejection.
      snapshot.catch(() => undefined);
      reads.set(key.entryKey, snapshot);
    }
    return snapshot;
  }

  /** `undefined` when Redis cannot be asked: the caller goes on without a cache. */
  async function snapshotOf(key: CacheKey): Promise<Snapshot | undefined> {
    try {
      return await readOnce(key);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('cache=bypass');
      return undefined;
    }
  }

  /**
   * The nonces that a fill will carry. Missing ones are made here, before a loader runs: made at fill time, they would
   * hide an invalidation that came in between.
   */
  async function ensureNonces(key: CacheKey, snapshot: Snapshot): Promise<string[] | undefined> {
    try {
      const nonces = await Promise.all(
        key.nonceKeys.map(async (nonceKey, index) => {
          const known = snapshot.nonces[index];
          if (known != null) return known;
          const [, made] = await Promise.all([
            batch.send('SET', nonceKey, newNonce(), 'NX', 'PX', NONCE_TTL_MS),
            batch.send('GET', nonceKey),
          ]);
          if (typeof made === 'string') snapshot.nonces[index] = made;
          return made;
        }),
      );
      return nonces.every((nonce) => typeof nonce === 'string') ? nonces : undefined;
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('cache=bypass');
      return undefined;
    }
  }

  function fillArguments(
    key: CacheKey,
    writeId: string,
    nonces: string[],
    json: string,
    ttlMs: number,
    costMs: number,
  ) {
    // Up to a tenth shorter, so that entries written together do not expire together.
    const lifeMs = Math.ceil(ttlMs * (0.9 + Math.random() * 0.1));
    const createdAtMs = now();
    const header = { createdAtMs, expiresAtMs: createdAtMs + lifeMs, costMs, nonces, canonical: key.canonical };
    return [[key.entryKey], [writeId, encodeEntry(header, json), lifeMs]] as const;
  }

  async function readThrough<T>(
    key: CacheKey,
    ttlSeconds: number,
    loader: (context: LoaderContext) => Promise<T | null>,
  ): Promise<T | null> {
    const snapshot = await snapshotOf(key);
    if (snapshot?.hit !== undefined) return JSON.parse(snapshot.hit) as T;

    const nonces = snapshot && (await ensureNonces(key, snapshot));
    const load = async (): Promise<string | undefined> => {
      const startMs = now();
      const value = await withDeadline(loader, settings.loaderDeadlineMs);
      if (value === null) return undefined;
      const json = JSON.stringify(value);
      // The loader's deadline is shorter than a tombstone's life, so a fill that passes its compare is current.
      if (snapshot !== undefined && nonces !== undefined) {
        void batch.deferRun(
          cacheFill,
          ...fillArguments(key, snapshot.writeId, nonces, json, ttlSeconds * 1_000, now() - startMs),
        );
      }
      return json;
    };
    const flight = `${key.entryKey} ${flights.generation} ${snapshot?.writeId ?? '-'} ${nonces?.join(' ') ?? '-'}`;
    const json = await flights.run(flight, load, { deadlineMs: settings.loaderDeadlineMs, keepAlive: waitUntil });
    return json === undefined ? null : (JSON.parse(json) as T);
  }

  const userKey = (userId: string): CacheKey => ({
    entryKey: keys.user(userId),
    canonical: `user:${userId}`,
    nonceKeys: [keys.userNonce(userId)],
  });

  const service: CacheService = {
    userKey,

    keyOf({ namespace, args, user, tags = [] }) {
      const canonical = canonicalize([namespace, args, user, [...tags]]);
      const hash = hashCanonical(canonical);
      const nonceKeys = [keys.namespaceNonce(namespace), ...tags.map((tag) => keys.tagNonce(tag))];
      return user === undefined
        ? { entryKey: keys.cacheEntry(namespace, hash), canonical, nonceKeys }
        : {
            entryKey: keys.userEntry(namespace, user, hash),
            canonical,
            nonceKeys: [keys.userNonce(user), ...nonceKeys],
          };
    },

    prefetch(key) {
      void readOnce(key);
    },

    query({ ttlSeconds, ...options }, loader) {
      return readThrough(service.keyOf(options), ttlSeconds, loader);
    },

    user(userId, ttlSeconds, loader) {
      return readThrough(userKey(userId), ttlSeconds, loader);
    },

    async getCachedUser<T>(userId: string) {
      const key = userKey(userId);
      const snapshot = await snapshotOf(key);
      if (snapshot === undefined) return null;
      if (snapshot.hit !== undefined) return JSON.parse(snapshot.hit) as T;
      // The caller is about to load: from here on an invalidation must show.
      await ensureNonces(key, snapshot);
      return null;
    },

    async cacheUser(userId, user, ttlSeconds = settings.userTtlSeconds) {
      const key = userKey(userId);
      const json = JSON.stringify(user) as string | undefined;
      if (json === undefined) throw new TypeError('the user has no JSON form');
      const snapshot = await snapshotOf(key);
      const nonces = snapshot && (await ensureNonces(key, snapshot));
      if (snapshot === undefined || nonces === undefined) return false;
      try {
        const written = await batch.run(
          cacheFill,
          ...fillArguments(key, snapshot.writeId, nonces, json, ttlSeconds * 1_000, 0),
        );
        return written === 1;
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('cache=bypass');
        return false;
      } finally {
        // Later reads of this request must see what was written.
        reads.delete(key.entryKey);
      }
    },

    invalidateUser(userId) {
      return service.invalidate({ users: [userId] });
    },

    forgetReads() {
      reads.clear();
      flights.separate();
    },

    async invalidate(change) {
      service.forgetReads();
      try {
        const commands = invalidationCommands(keys, change, settings.tombstoneSeconds);
        await Promise.all(commands.map((command) => batch.send(...command)));
        return { pending: false };
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('invalidation=pending');
        log('warn', 'cache.invalidation_pending', describeError(error));
        return { pending: true };
      }
    },
  };
  return service;
}

/** The hash tag of a key: keys with the same one live in one slot. */
function slotOf(key: string): string {
  return /\{([^}]+)\}/.exec(key)?.[1] ?? key;
}

/** @throws {AppError} `SERVICE_UNAVAILABLE` at the deadline, whether the loader heeds its signal or not */
async function withDeadline<T>(loader: (context: LoaderContext) => Promise<T>, deadlineMs: number): Promise<T> {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(unavailable('The data'));
      controller.abort(new DOMException('the loader took too long', 'TimeoutError'));
    }, deadlineMs);
  });
  try {
    return await Promise.race([loader({ signal: controller.signal }), late]);
  } finally {
    clearTimeout(timer);
  }
}
