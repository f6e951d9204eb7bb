import { Redis } from '@upstash/redis/cloudflare';
import { BentoCache, bentostore } from 'bentocache';
import { BaseDriver } from 'bentocache/drivers/base_driver';
import { memoryDriver } from 'bentocache/drivers/memory';
import type { CreateDriverResult, DriverCommonOptions, L2CacheDriver } from 'bentocache/types';
import { Hono } from 'hono';

import { STALE_AFTER_SECONDS, STALE_FOR_SECONDS, TTL_SECONDS, addRoutes, oncePerIsolate } from './routes.ts';
import type { Bindings, Contender } from './routes.ts';

interface RestConfig extends DriverCommonOptions {
  redis: Redis;
}

/** A second layer in Redis over REST: what its own driver does over TCP. */
class RestDriver extends BaseDriver implements L2CacheDriver {
  readonly type = 'l2';
  readonly #redis: Redis;

  constructor({ redis, ...config }: RestConfig) {
    super(config);
    this.#redis = redis;
  }

  namespace(namespace: string): RestDriver {
    return new RestDriver({ ...this.config, redis: this.#redis, prefix: this.createNamespacePrefix(namespace) });
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#redis.get<string>(this.getItemKey(key))) ?? undefined;
  }

  async pull(key: string): Promise<string | undefined> {
    return (await this.#redis.getdel<string>(this.getItemKey(key))) ?? undefined;
  }

  async set(key: string, value: string, ttlMs?: number): Promise<boolean> {
    const name = this.getItemKey(key);
    return (await (ttlMs ? this.#redis.set(name, value, { px: ttlMs }) : this.#redis.set(name, value))) === 'OK';
  }

  async clear(): Promise<void> {
    let cursor = '0';
    do {
      const [next, keys] = await this.#redis.scan(cursor, { match: `${this.prefix}:*`, count: 1_000 });
      if (keys.length > 0) await this.#redis.unlink(...keys);
      cursor = next;
    } while (cursor !== '0');
  }

  async delete(key: string): Promise<boolean> {
    return (await this.#redis.unlink(this.getItemKey(key))) > 0;
  }

  async deleteMany(keys: string[]): Promise<boolean> {
    if (keys.length > 0) await this.#redis.unlink(...keys.map((key) => this.getItemKey(key)));
    return true;
  }

  async disconnect(): Promise<void> {}
}

function restDriver(redis: Redis): CreateDriverResult<L2CacheDriver> {
  const options = { redis };
  return { options, factory: (config: DriverCommonOptions) => new RestDriver({ ...config, redis }) };
}

interface BentoBindings extends Bindings {
  /** `off`: without its first layer, in memory. */
  L1?: string;
}

function contenderOf(env: BentoBindings): Contender {
  const l2 = restDriver(Redis.fromEnv(env, { automaticDeserialization: false }));
  const store = bentostore().useL2Layer(l2);
  const cache = new BentoCache({
    default: 'bench',
    prefix: env.PREFIX,
    ttl: TTL_SECONDS * 1_000,
    stores: { bench: env.L1 === 'off' ? store : store.useL1Layer(memoryDriver()) },
  });
  const read: Contender['read'] = ({ key, load }) => cache.getOrSet({ key, factory: load });
  return {
    read,
    readStale: ({ key, load }) =>
      cache.getOrSet({
        key,
        factory: load,
        ttl: STALE_AFTER_SECONDS * 1_000,
        grace: STALE_FOR_SECONDS * 1_000,
        timeout: 0,
      }),
    readTagged: ({ key, load }, tags) => cache.getOrSet({ key, factory: load, tags }),
    readMany: (lookups) => Promise.all(lookups.map(read)),
    forget: (key) => cache.delete({ key }),
    invalidateTag: (tag) => cache.deleteByTag({ tags: [tag] }),
  };
}

const app = new Hono<{ Bindings: BentoBindings }>();
addRoutes(app, oncePerIsolate(contenderOf));

export default app;
