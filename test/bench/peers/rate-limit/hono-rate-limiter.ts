import { Redis } from '@upstash/redis/cloudflare';
import { Hono } from 'hono';
import type { MiddlewareHandler } from 'hono';
import { RedisStore, rateLimiter } from 'hono-rate-limiter';

import { maxRequests, windowMs } from './numbers.ts';

interface Bindings {
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
  KEY_PREFIX: string;
}

interface PeerEnv {
  Bindings: Bindings;
}

let limit: MiddlewareHandler<PeerEnv> | undefined;

/** One an isolate: the store loads its scripts when it is made, which a Worker may do in a request only. */
function limitOf(env: Bindings): MiddlewareHandler<PeerEnv> {
  limit ??= rateLimiter<PeerEnv>({
    windowMs,
    limit: maxRequests,
    keyGenerator: (c) => new URL(c.req.url).pathname,
    store: new RedisStore({ client: Redis.fromEnv(env), prefix: `${env.KEY_PREFIX}:` }),
  });
  return limit;
}

const app = new Hono<PeerEnv>();

app.use((c, next) => limitOf(c.env)(c, next));
app.get('/:identity', (c) => c.text('ok'));

export default app;
