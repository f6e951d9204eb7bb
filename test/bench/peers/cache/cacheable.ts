import { Redis } from '@upstash/redis/cloudflare';
import { Cacheable, Keyv } from 'cacheable';
import type { KeyvStoreAdapter } from 'cacheable';
import { Hono } from 'hono';

import { TTL_SECONDS, addRoutes, oncePerIsolate } from './routes.ts';
import type { Bindings, Contender, Value } from './routes.ts';

/** What Keyv's Redis adapter does over TCP; Keyv itself makes strings of what it stores. */
function restAdapter(redis: Redis): KeyvStoreAdapter {
  const adapter: KeyvStoreAdapter = {
    opts: {},
    get: async <T>(key: string) => ((await redis.get<string>(key)) ?? undefined) as T | undefined,
    getMany: async <T>(keys: string[]) =>
      (await redis.mget<(string | null)[]>(...keys)).map((text) => (text ?? undefined) as T | undefined),
    set: (key: string, value: string, ttlMs?: number) =>
      ttlMs === undefined ? redis.set(key, value) : redis.set(key, value, { px: ttlMs }),
    async setMany(entries) {
      const pipeline = redis.pipeline();
      for (const { key, value, ttl } of entries) {
        const text = value as string;
        if (ttl === undefined) pipeline.set(key, text);
        else pipeline.set(key, text, { px: ttl });
      }
      await pipeline.exec();
    },
    delete: async (key) => (await redis.unlink(key)) > 0,
    deleteMany: async (keys) => (await redis.unlink(...keys)) > 0,
    has: async (key) => (await redis.exists(key)) > 0,
    async clear() {
      throw new Error('not asked for here');
    },
    // It has no events of its own: a call that fails rejects.
    on: () => adapter,
  };
  return adapter;
}

function contenderOf(env: Bindings): Contender {
  const redis = Redis.fromEnv(env, { automaticDeserialization: false });
  const cacheOf = (tags: boolean) =>
    new Cacheable({
      primary: new Keyv({ store: restAdapter(redis), namespace: `${env.PREFIX}-${tags ? 'tagged' : 'plain'}` }),
      ttl: TTL_SECONDS * 1_000,
      tags,
    });
  // Tags cost every read of a cache that has them, so its documentation has them off where they are not used.
  const plain = cacheOf(false);
  const tagged = cacheOf(true);
  const found = (value: Value | undefined): Value => {
    if (value === undefined) throw new Error('no value');
    return value;
  };
  return {
    read: async ({ key, load }) => found(await plain.getOrSet(key, load)),
    async readTagged({ key, load }, tags) {
      // Its getOrSet takes no tags.
      const cached = await tagged.get<Value>(key);
      if (cached !== undefined) return cached;
      const value = await load();
      await tagged.set(key, value, { tags });
      return value;
    },
    async readMany(lookups) {
      const cached = await plain.getMany<Value>(lookups.map(({ key }) => key));
      const values = await Promise.all(lookups.map(async ({ load }, index) => cached[index] ?? load()));
      const missing = values.filter((_, index) => cached[index] === undefined);
      if (missing.length > 0) await plain.setMany(missing.map((value) => ({ key: value.key, value })));
      return values;
    },
    forget: (key) => plain.delete(key),
    invalidateTag: (tag) => tagged.tags.invalidateTag(tag),
  };
}

const app = new Hono<{ Bindings: Bindings }>();
addRoutes(app, oncePerIsolate(contenderOf));

export default app;
