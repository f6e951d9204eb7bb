import { Redis } from '@upstash/redis/cloudflare';
import { betterAuth } from 'better-auth';
import type { SecondaryStorage } from 'better-auth';

import { OPTIONS } from './options.ts';

interface Bindings {
  DB: D1Database;
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
  PREFIX: string;
  SECRET: string;
  BASE_URL: string;
  UPDATE_AGE_SECONDS: string;
}

/** Its secondary storage as the documentation writes it for Redis, on the REST client. */
function storageOf(env: Bindings): SecondaryStorage {
  // It parses what it stored by itself.
  const redis = Redis.fromEnv(env, { automaticDeserialization: false });
  const named = (key: string) => `${env.PREFIX}:${key}`;
  return {
    get: (key) => redis.get<string>(named(key)),
    getAndDelete: (key) => redis.getdel<string>(named(key)),
    set: (key, value, ttl) => (ttl ? redis.set(named(key), value, { ex: ttl }) : redis.set(named(key), value)),
    async delete(key) {
      await redis.del(named(key));
    },
    async increment(key, ttl) {
      const count = await redis.incr(named(key));
      if (count === 1) await redis.expire(named(key), ttl);
      return count;
    },
  };
}

function authOf(env: Bindings) {
  return betterAuth({
    ...OPTIONS,
    database: env.DB,
    secondaryStorage: storageOf(env),
    secret: env.SECRET,
    baseURL: env.BASE_URL,
    session: { updateAge: Number(env.UPDATE_AGE_SECONDS), cookieCache: { enabled: false } },
    // It would cost round trips of its own.
    rateLimit: { enabled: false },
    telemetry: { enabled: false },
  });
}

let auth: ReturnType<typeof authOf> | undefined;

export default {
  fetch(request, env) {
    auth ??= authOf(env);
    return auth.handler(request);
  },
} satisfies ExportedHandler<Bindings>;
