import { cachified, totalTtl } from '@epic-web/cachified';
import type { Cache, CacheEntry } from '@epic-web/cachified';
import { Redis } from '@upstash/redis/cloudflare';
import { Hono } from 'hono';

import { STALE_AFTER_SECONDS, STALE_FOR_SECONDS, TTL_SECONDS, addRoutes, oncePerIsolate } from './routes.ts';
import type { Bindings, Contender } from './routes.ts';

/** Entries as JSON, which Redis forgets when they are past their life and their grace. */
function restCache({ PREFIX, ...env }: Bindings): Cache {
  const redis = Redis.fromEnv(env, { automaticDeserialization: false });
  const named = (key: string) => `${PREFIX}:${key}`;
  return {
    name: 'Redis over REST',
    async get(key) {
      const json = await redis.get<string>(named(key));
      return json === null ? null : (JSON.parse(json) as CacheEntry);
    },
    set(key, entry) {
      const px = totalTtl(entry.metadata);
      const json = JSON.stringify(entry);
      return Number.isFinite(px) ? redis.set(named(key), json, { px }) : redis.set(named(key), json);
    },
    delete: (key) => redis.del(named(key)),
  };
}

function contenderOf(env: Bindings): Contender {
  const cache = restCache(env);
  const read: Contender['read'] = ({ key, load, waitUntil }) =>
    cachified({ key, cache, ttl: TTL_SECONDS * 1_000, getFreshValue: load, waitUntil });
  return {
    read,
    readStale: ({ key, load, waitUntil }) =>
      cachified({
        key,
        cache,
        ttl: STALE_AFTER_SECONDS * 1_000,
        swr: STALE_FOR_SECONDS * 1_000,
        getFreshValue: load,
        waitUntil,
      }),
    readMany: (lookups) => Promise.all(lookups.map(read)),
    async forget(key) {
      await cache.delete(key);
    },
  };
}

const app = new Hono<{ Bindings: Bindings }>();
addRoutes(app, oncePerIsolate(contenderOf));

export default app;
