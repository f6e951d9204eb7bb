import type { RedisBatch } from '../redis/batch';
import type { RedisValue } from '../redis/client';
import { RedisUnavailable } from '../redis/errors';
import { DEFAULT_TTL_SECONDS, FALLBACK_TTL_SECONDS, RedisNamespace } from '../redis/keys';
import type { Keys } from '../redis/keys';
import { escapeGlob, walkKeys } from '../redis/scan';
import { bump } from './cache/entry';
import { facade } from './scope';

export { RedisNamespace } from '../redis/keys';

/** A call's behaviour while Redis is away. `null`: a read finds no value, a write returns false. `throw`: it throws. */
export interface RedisCallOptions {
  /** @default 'null' */
  whenUnavailable?: 'null' | 'throw';
}

/**
 * Plain keys with a namespace and a TTL. Calls issued in one turn share a round trip.
 *
 * A `null` may mean "no such key" or "Redis is away". If the difference matters, pass `whenUnavailable: 'throw'`.
 *
 * @example
 * await RedisService.setJSON('profile', userId, { theme: 'dark' }, 3600);
 * const profile = await RedisService.getJSON<Profile>('profile', userId);
 */
export interface RedisService {
  get(namespace: string, key: string, options?: RedisCallOptions): Promise<string | null>;
  /** @param ttlSeconds if omitted, the namespace's default: every key has a TTL */
  set(namespace: string, key: string, value: string, ttlSeconds?: number, options?: RedisCallOptions): Promise<boolean>;
  /** Also `null` for a value that is not JSON. */
  getJSON<T>(namespace: string, key: string, options?: RedisCallOptions): Promise<T | null>;
  setJSON(
    namespace: string,
    key: string,
    value: unknown,
    ttlSeconds?: number,
    options?: RedisCallOptions,
  ): Promise<boolean>;
  /** Whether the key existed. */
  delete(namespace: string, key: string, options?: RedisCallOptions): Promise<boolean>;
  /**
   * Deletes every key of the namespace that matches the glob (`user:*`), for 20 s at most. It walks the whole key space:
   * not for a request's hot path. Use `CacheService.deletePattern` for entries of `CacheService`: it invalidates them with
   * one command, while this method also deletes invalidations that loads in progress have yet to see.
   *
   * @returns the number of deleted keys, also if Redis went away in between; with `throw` it then throws
   */
  deletePattern(namespace: string, pattern: string, options?: RedisCallOptions): Promise<number>;
  /**
   * {@link deletePattern} in pieces: for `budgetMs` (at least one page), continuing from the cursor of the last piece.
   *
   * @returns `cursor` for the next call; `null` at the end
   * @throws {RedisUnavailable} the passed cursor stays valid: deleting twice is harmless
   */
  deletePatternFrom(
    namespace: string,
    pattern: string,
    options?: { cursor?: string; budgetMs?: number },
  ): Promise<DeletedPage>;
}

interface DeletedPage {
  deleted: number;
  cursor: string | null;
}

declare module './scope' {
  interface ServiceMap {
    redis: RedisService;
  }
}

export const RedisService: RedisService = facade('redis');

/** The namespaces that contain the cache's tag versions. */
const WITH_TAG_VERSIONS: ReadonlySet<string> = new Set([RedisNamespace.CACHE, RedisNamespace.USER]);

/** A call that walks the key space stops after this time and returns its cursor. */
const BUDGET_MS = 20_000;

export interface RedisDeps {
  batch: RedisBatch;
  keys: Keys;
  /** Makes a batch with a long deadline, for work with many trips. */
  slowBatch: () => RedisBatch;
  now?: () => number;
}

export function createRedisService({ batch, keys, slowBatch, now = Date.now }: RedisDeps): RedisService {
  async function attempt<T>(call: Promise<T>, instead: T, options: RedisCallOptions | undefined): Promise<T> {
    try {
      return await call;
    } catch (error) {
      if (!(error instanceof RedisUnavailable) || options?.whenUnavailable === 'throw') throw error;
      return instead;
    }
  }

  async function deletePage(slow: RedisBatch, namespace: string, pattern: string, from: string, budgetMs: number) {
    let deleted = 0;
    const cursor = await walkKeys(
      slow,
      keys.plain(escapeGlob(namespace), pattern),
      async (found) => {
        // These keys may include a tag version by which a load in flight would notice an invalidation. With a new flush
        // sentinel, no load fills an entry with a recreated tag version.
        if (WITH_TAG_VERSIONS.has(namespace.split(':', 1)[0] ?? '')) await slow.send(...bump(keys.flushSentinel));
        // One UNLINK per key, because on a cluster the keys are in different slots. They still share one pipeline.
        const counts = await Promise.all(found.map((key) => slow.send('UNLINK', key)));
        deleted += counts.reduce<number>((sum, count) => sum + Number(count), 0);
      },
      { cursor: from, budgetMs, now },
    );
    return { deleted, cursor };
  }

  const service: RedisService = {
    async get(namespace, key, options) {
      return attempt(textOf(batch.send('GET', keys.plain(namespace, key))), null, options);
    },
    async set(namespace, key, value, ttlSeconds, options) {
      const ttl = ttlSeconds ?? DEFAULT_TTL_SECONDS[namespace] ?? FALLBACK_TTL_SECONDS;
      if (!(ttl > 0)) throw new RangeError('ttlSeconds must be positive');
      const px = Math.ceil(ttl * 1_000);
      const stored = oneOf(batch.send('SET', keys.plain(namespace, key), value, 'PX', px), 'OK', null);
      return (await attempt(stored, null, options)) === 'OK';
    },
    async getJSON<T>(namespace: string, key: string, options?: RedisCallOptions) {
      const text = await service.get(namespace, key, options);
      if (text === null) return null;
      try {
        return JSON.parse(text) as T;
      } catch {
        return null;
      }
    },
    setJSON(namespace, key, value, ttlSeconds, options) {
      const text = JSON.stringify(value) as string | undefined;
      if (text === undefined) throw new TypeError('the value has no JSON form');
      return service.set(namespace, key, text, ttlSeconds, options);
    },
    async delete(namespace, key, options) {
      return (await attempt(oneOf(batch.send('UNLINK', keys.plain(namespace, key)), 1, 0), 0, options)) === 1;
    },
    async deletePattern(namespace, pattern, options) {
      let deleted = 0;
      const untilMs = now() + BUDGET_MS;
      const slow = slowBatch();
      let cursor: string | null = '0';
      try {
        while (cursor !== null && now() < untilMs) {
          const page: DeletedPage = await deletePage(slow, namespace, pattern, cursor, 0);
          deleted += page.deleted;
          ({ cursor } = page);
        }
      } catch (error) {
        if (!(error instanceof RedisUnavailable) || options?.whenUnavailable === 'throw') throw error;
      }
      return deleted;
    },
    async deletePatternFrom(namespace, pattern, { cursor = '0', budgetMs = BUDGET_MS } = {}) {
      return deletePage(slowBatch(), namespace, pattern, cursor, budgetMs);
    },
  };
  return service;
}

/** @throws {RedisUnavailable} `garbage` for a reply that GET cannot give */
async function textOf(reply: Promise<RedisValue>): Promise<string | null> {
  const value = await reply;
  if (value === null || typeof value === 'string') return value;
  throw new RedisUnavailable('garbage');
}

/** @throws {RedisUnavailable} `garbage` for any other reply */
async function oneOf<T extends RedisValue>(reply: Promise<RedisValue>, ...expected: T[]): Promise<T> {
  const value = await reply;
  const known = expected.find((one) => one === value);
  if (known === undefined) throw new RedisUnavailable('garbage');
  return known;
}
