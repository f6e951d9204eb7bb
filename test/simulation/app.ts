import { eq } from 'drizzle-orm';
import { Hono } from 'hono';

import { createApp } from '../../src/app';
import { log } from '../../src/config/log';
import { authenticate } from '../../src/middlewares/auth.middleware';
import { users } from '../../src/db/schema';
import { guard } from '../../src/middlewares/guard.middleware';
import { readsWithin } from '../../src/middlewares/policy';
import { reads } from '../../src/middlewares/reads.middleware';
import { rateLimiter } from '../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../src/middlewares/services.middleware';
import { scheduled } from '../../src/scheduled';
import { CacheService } from '../../src/services/cache.service';
import { LockService, lockRefused } from '../../src/services/lock.service';
import { SessionService } from '../../src/services/session.service';
import { UserService } from '../../src/services/user.service';
import { orAborted } from '../../src/util/orAborted';
import { sleep } from '../../src/util/retry';
import { OWN_LIMITS } from './own.ts';
import type { LockWish } from './own.ts';

/** By a query parameter of the limit's name. */
const limitedBy = (name: 'own' | 'shop') =>
  rateLimiter({ name, ...OWN_LIMITS[name], identity: (c) => `${name}:${c.req.query(name) ?? ''}` });

/** Routes as an app adds them. They use what the product's own routes do not use, or not in a form that a client could judge. */
const own = new Hono<AppEnv>()
  .get('/limited', guard(readsWithin, limitedBy('own')), (c) => c.body(null, 204))
  .get('/limited-twice', guard(readsWithin, limitedBy('own'), limitedBy('shop')), (c) => c.body(null, 204))
  .get(
    '/me',
    guard(
      readsWithin,
      authenticate(),
      reads((c) => UserService.keyOf(c.get('auth').userId)),
    ),
    async (c) => c.json(await UserService.getUser(c.get('auth').userId), 200),
  )
  .get('/name', async (c) => {
    const id = c.req.query('id') ?? '';
    const [row] = await CacheService.rows(
      { namespace: 'own', user: id, tags: ['own'], ttlSeconds: 20, staleSeconds: 40, staleIfErrorSeconds: 60 },
      (db) => db.select({ name: users.name }).from(users).where(eq(users.id, id)),
    );
    return c.json({ name: row?.name ?? null }, 200);
  })
  .get('/session', async (c) => {
    const session = await SessionService.getSession(c.req.query('id') ?? '');
    return c.json({ lives: session !== null }, 200);
  })
  .post('/locks', async (c) => {
    const { leaseMs, workMs, waitMs } = await c.req.json<LockWish>();
    await using lock = await LockService.acquire('own', { leaseMs, waitMs });
    if (!lock.acquired) throw lockRefused(lock);
    const { fence, signal } = lock;
    log('info', 'own.lock_held', { fence });
    signal.addEventListener('abort', () => log('info', 'own.lock_left', { fence }), { once: true });
    for (let leftMs = workMs; leftMs > 0 && !signal.aborted; leftMs -= leaseMs / 2) {
      await orAborted(sleep(Math.min(leftMs, leaseMs / 2)), signal).catch(() => undefined);
      if (leftMs > leaseMs / 2 && !signal.aborted) await lock.extend();
    }
    return c.json({ fence }, 200);
  });

const app = createApp();
app.route('/v1/own', own);

export default { fetch: app.fetch, scheduled } satisfies ExportedHandler<Env>;
