import { eq } from 'drizzle-orm';
import { Hono } from 'hono';

import { authenticate } from '../../../src/middlewares/auth.middleware';
import { reads } from '../../../src/middlewares/reads.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { policy } from '../../../src/middlewares/policy';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';
import { orders } from './orders.routes';

const ordersOf = (userId: string) =>
  CacheService.rows({ namespace: 'orders', user: userId, ttlSeconds: 300 }, (db) =>
    db.select().from(orders).where(eq(orders.userId, userId)),
  );

const listed = guard(
  rateLimiter(policy.api),
  authenticate(),
  reads((c) => ordersOf(c.var.auth.userId)),
);

export const orderRoutes = new Hono<AppEnv>().get('/', listed, async (c) =>
  c.json(await ordersOf(c.var.auth.userId), 200),
);
