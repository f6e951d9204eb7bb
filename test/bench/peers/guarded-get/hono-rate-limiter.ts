import { Redis } from '@upstash/redis/cloudflare';
import { Hono } from 'hono';
import { createMiddleware } from 'hono/factory';
import type { MiddlewareHandler } from 'hono';
import { RedisStore, rateLimiter } from 'hono-rate-limiter';

import { loadUser, verify } from './user.ts';
import type { Bindings, User } from './user.ts';

interface PeerEnv {
  Bindings: Bindings;
  Variables: { claims: { sub: string; jti: string } };
}

interface Tools {
  redis: Redis;
  limit: MiddlewareHandler<PeerEnv>;
}

let tools: Tools | undefined;

/** One an isolate: the store loads its scripts when it is made, which a Worker may do in a request only. */
function toolsOf(env: Bindings): Tools {
  if (tools === undefined) {
    const redis = Redis.fromEnv(env);
    const limit = rateLimiter<PeerEnv>({
      windowMs: 3_600_000,
      limit: 100_000_000,
      keyGenerator: (c) => c.var.claims.sub,
      store: new RedisStore({ client: redis, prefix: `${env.PREFIX}:hrl:` }),
    });
    tools = { redis, limit };
  }
  return tools;
}

const authenticate = createMiddleware<PeerEnv>(async (c, next) => {
  const claims = await verify(c.env, c.req.header('Authorization'));
  if (claims === null) return c.json({ error: 'invalid token' }, 401);
  c.set('claims', claims);
  return next();
});

const app = new Hono<PeerEnv>();

app.use(authenticate);
app.use((c, next) => toolsOf(c.env).limit(c, next));

app.get('/v1/users/me', async (c) => {
  const { redis } = toolsOf(c.env);
  const { sub, jti } = c.var.claims;
  if ((await redis.get(`${c.env.PREFIX}:blacklist:${jti}`)) !== null) return c.json({ error: 'revoked' }, 401);

  const key = `${c.env.PREFIX}:user:${sub}`;
  const cached = await redis.get<User>(key);
  if (cached !== null) return c.json(cached);
  const user = await loadUser(c.env.DB, sub);
  if (user === null) return c.json({ error: 'not found' }, 404);
  await redis.set(key, user, { ex: 600 });
  return c.json(user);
});

export default app;
