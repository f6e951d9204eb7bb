import type { RedisBatch } from '../redis/batch';
import { RedisUnavailable } from '../redis/errors';
import { DEFAULT_TTL_SECONDS, FALLBACK_TTL_SECONDS } from '../redis/keys';
import type { Keys } from '../redis/keys';
import { facade } from './scope';

export { RedisNamespace } from '../redis/keys';

/** What a call does while Redis is away: `null` (a read finds nothing, a write answers false) or `throw`. */
export interface RedisCallOptions {
  /** @default 'null' */
  whenUnavailable?: 'null' | 'throw';
}

/**
 * Plain keys with a namespace and a TTL. Calls of one turn share a round trip.
 *
 * A `null` may mean "no such key" or "Redis is away"; where the difference matters, pass `whenUnavailable: 'throw'`.
 *
 * @example
 * await RedisService.setJSON('profile', userId, { theme: 'dark' }, 3600);
 * const profile = await RedisService.getJSON<Profile>('profile', userId);
 */
export interface RedisService {
  get(namespace: string, key: string, options?: RedisCallOptions): Promise<string | null>;
  /** @param ttlSeconds the namespace's default when left out: no key lives for ever */
  set(namespace: string, key: string, value: string, ttlSeconds?: number, options?: RedisCallOptions): Promise<boolean>;
  /** `null` also for a value that is not JSON. */
  getJSON<T>(namespace: string, key: string, options?: RedisCallOptions): Promise<T | null>;
  setJSON(
    namespace: string,
    key: string,
    value: unknown,
    ttlSeconds?: number,
    options?: RedisCallOptions,
  ): Promise<boolean>;
  /** Whether there was such a key. */
  delete(namespace: string, key: string, options?: RedisCallOptions): Promise<boolean>;
  /**
   * Deletes every key of the namespace that matches the glob (`user:*`), a thousand at a time. It walks the whole key
   * space: not for a request's hot path.
   *
   * @returns how many keys were deleted, also when Redis went away on the way; `throw` tells
   */
  deletePattern(namespace: string, pattern: string, options?: RedisCallOptions): Promise<number>;
}

declare module './scope' {
  interface ServiceMap {
    redis: RedisService;
  }
}

export const RedisService: RedisService = facade('redis');

const SCAN_COUNT = 1_000;

export interface RedisDeps {
  batch: RedisBatch;
  keys: Keys;
  /** One with a deadline for work that takes many trips. */
  slowBatch: () => RedisBatch;
}

export function createRedisService({ batch, keys, slowBatch }: RedisDeps): RedisService {
  async function attempt<T>(call: Promise<T>, instead: T, options: RedisCallOptions | undefined): Promise<T> {
    try {
      return await call;
    } catch (error) {
      if (!(error instanceof RedisUnavailable) || options?.whenUnavailable === 'throw') throw error;
      return instead;
    }
  }

  const service: RedisService = {
    async get(namespace, key, options) {
      const value = await attempt(batch.send('GET', keys.plain(namespace, key)), null, options);
      return value === null ? null : String(value);
    },
    async set(namespace, key, value, ttlSeconds, options) {
      const ttl = ttlSeconds ?? DEFAULT_TTL_SECONDS[namespace] ?? FALLBACK_TTL_SECONDS;
      if (!(ttl > 0)) throw new RangeError('ttlSeconds must be positive');
      const px = Math.ceil(ttl * 1_000);
      return (await attempt(batch.send('SET', keys.plain(namespace, key), value, 'PX', px), null, options)) === 'OK';
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
      return (await attempt(batch.send('UNLINK', keys.plain(namespace, key)), null, options)) === 1;
    },
    async deletePattern(namespace, pattern, options) {
      const match = keys.plain(namespace.replaceAll(/[*?[\]\\^]/g, String.raw`\$&`), pattern);
      const slow = slowBatch();
      let deleted = 0;
      let cursor = '0';
      do {
        const page = await attempt(slow.send('SCAN', cursor, 'MATCH', match, 'COUNT', SCAN_COUNT), null, options);
        if (!Array.isArray(page)) break;
        cursor = String(page[0]);
        const found = Array.isArray(page[1]) ? page[1].map(String) : [];
        // One UNLINK a key: on a cluster they live in different slots. They still leave as one pipeline.
        const counts = await attempt(Promise.all(found.map((key) => slow.send('UNLINK', key))), [], options);
        deleted += counts.reduce<number>((sum, count) => sum + Number(count), 0);
      } while (cursor !== '0');
      return deleted;
    },
  };
  return service;
}
