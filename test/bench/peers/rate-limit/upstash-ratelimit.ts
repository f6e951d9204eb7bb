import { Ratelimit } from '@upstash/ratelimit';
import { Redis } from '@upstash/redis/cloudflare';
import { Hono } from 'hono';

import { maxRequests, windowMs } from './numbers.ts';

interface Bindings {
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
  KEY_PREFIX: string;
  /** `off`: without the cache of refusals that it has by default. */
  EPHEMERAL_CACHE?: string;
  /** `fixed`: its fixed window in place of its sliding one. */
  WINDOW?: string;
}

let ratelimit: Ratelimit | undefined;

/** One an isolate, as its documentation asks for: its cache of refusals lives in it. */
function ratelimitOf(env: Bindings): Ratelimit {
  ratelimit ??= new Ratelimit({
    redis: Redis.fromEnv(env),
    limiter:
      env.WINDOW === 'fixed'
        ? Ratelimit.fixedWindow(maxRequests, `${windowMs} ms`)
        : Ratelimit.slidingWindow(maxRequests, `${windowMs} ms`),
    prefix: `${env.KEY_PREFIX}:ratelimit`,
    ...(env.EPHEMERAL_CACHE === 'off' && { ephemeralCache: false }),
  });
  return ratelimit;
}

const app = new Hono<{ Bindings: Bindings }>();

app.get('/:identity', async (c) => {
  const { success, reason, pending } = await ratelimitOf(c.env).limit(c.req.param('identity'));
  c.executionCtx.waitUntil(pending);
  // It admits a request when Redis does not reply in time: that is no decision, so it gives no figure.
  if (reason === 'timeout') return c.text('no decision', 503);
  return success ? c.text('ok') : c.text('too many requests', 429);
});

export default app;
