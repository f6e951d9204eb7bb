import { Ratelimit } from '@upstash/ratelimit';
import { Redis } from '@upstash/redis/cloudflare';
import { Hono } from 'hono';

import { loadUser, verify } from './user.ts';
import type { Bindings, User } from './user.ts';

interface Tools {
  redis: Redis;
  ratelimit: Ratelimit;
}

let tools: Tools | undefined;

/** One an isolate, as Hono's example does it; Upstash's own makes both anew for each request, which costs more. */
function toolsOf(env: Bindings): Tools {
  if (tools === undefined) {
    const redis = Redis.fromEnv(env);
    const limiter = Ratelimit.slidingWindow(100_000_000, '1 h');
    tools = { redis, ratelimit: new Ratelimit({ redis, limiter, prefix: `${env.PREFIX}:ratelimit` }) };
  }
  return tools;
}

const app = new Hono<{ Bindings: Bindings }>();

app.get('/v1/users/me', async (c) => {
  const { redis, ratelimit } = toolsOf(c.env);
  const claims = await verify(c.env, c.req.header('Authorization'));
  if (claims === null) return c.json({ error: 'invalid token' }, 401);

  const { success, pending } = await ratelimit.limit(claims.sub);
  c.executionCtx.waitUntil(pending);
  if (!success) return c.json({ error: 'too many requests' }, 429);

  if ((await redis.get(`${c.env.PREFIX}:blacklist:${claims.jti}`)) !== null) return c.json({ error: 'revoked' }, 401);

  const key = `${c.env.PREFIX}:user:${claims.sub}`;
  const cached = await redis.get<User>(key);
  if (cached !== null) return c.json(cached);
  const user = await loadUser(c.env.DB, claims.sub);
  if (user === null) return c.json({ error: 'not found' }, 404);
  await redis.set(key, user, { ex: 600 });
  return c.json(user);
});

export default app;
