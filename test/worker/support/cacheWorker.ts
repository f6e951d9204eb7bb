import { Hono } from 'hono';

import { onError } from '../../../src/middlewares/error.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';
import type { Invalidation, QueryOptions } from '../../../src/services/cache.service';

/**
 * A Worker for tests from outside: reads and invalidations as requests. Its loaders ask the test for the truth
 * (`TRUTH_URL`), which thereby counts them and holds them up. `X-Clock` is how far its clock is ahead, in milliseconds.
 */
type Bindings = Env & { TRUTH_URL: string };

const truth = async (env: Bindings, name: string): Promise<string> => {
  const response = await fetch(`${env.TRUTH_URL}/${encodeURIComponent(name)}`);
  if (!response.ok) throw new Error('the truth is not to be had');
  return response.text();
};

const app = new Hono<AppEnv>()
  .use(async (c, next) => {
    const aheadMs = Number(c.req.header('X-Clock') ?? 0);
    return services({ now: () => Date.now() + aheadMs })(c, next);
  })
  .post('/query', async (c) => {
    const { options, name } = await c.req.json<{ options: QueryOptions<string>; name: string }>();
    return c.json(await CacheService.result(options, async () => truth(c.env as Bindings, name)));
  })
  .post('/many', async (c) => {
    const { options, count } = await c.req.json<{
      options: Omit<QueryOptions<number>, 'args'>;
      count: { from: number; to: number };
    }>();
    const requests = Array.from({ length: count.to - count.from }, (_, i) => ({
      ...options,
      args: { n: count.from + i },
    }));
    const values = await CacheService.getMany(requests, async (missing) => missing.map(({ args }) => args.n));
    return c.json({ values: values.length });
  })
  .post('/key', async (c) => c.json(CacheService.keyOf(await c.req.json<QueryOptions>())))
  .post('/invalidate', async (c) => c.json(await CacheService.invalidate(await c.req.json<Invalidation>())))
  .post('/user', async (c) => {
    const { userId, name } = await c.req.json<{ userId: string; name: string }>();
    const cached = await CacheService.getCachedUser<string>(userId);
    if (cached !== null) return c.json({ value: cached, from: 'hit' });
    const value = await truth(c.env as Bindings, name);
    return c.json({ value, stored: await CacheService.cacheUser(userId, value, 600) });
  });

app.onError(onError);

export default { fetch: app.fetch } satisfies ExportedHandler<Env>;
