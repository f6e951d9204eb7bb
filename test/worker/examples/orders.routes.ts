import { and, eq } from 'drizzle-orm';
import { Hono } from 'hono';
import * as z from 'zod';

import { table, text } from '#db';
import { AppError } from '../../../src/errors';
import { authenticate } from '../../../src/middlewares/auth.middleware';
import { validJson } from '../../../src/middlewares/body.middleware';
import { reads } from '../../../src/middlewares/reads.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { policy } from '../../../src/middlewares/policy';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';

export const orders = table('orders', {
  id: text('id').primaryKey(),
  userId: text('user_id').notNull(),
  note: text('note').notNull(),
});

const changeSchema = z.strictObject({ note: z.string().max(200) });

// What follows stands in docs/routes.md, word for word.

const mine = (userId: string) => ({ namespace: 'orders', user: userId, ttlSeconds: 300 });

const ordersOf = (userId: string) =>
  CacheService.rows(mine(userId), (db) => db.select().from(orders).where(eq(orders.userId, userId)));

const orderOf = (userId: string, id: string) =>
  CacheService.rows(mine(userId), (db) =>
    db
      .select()
      .from(orders)
      .where(and(eq(orders.userId, userId), eq(orders.id, id))),
  );

const signedIn = () => guard(rateLimiter(policy.api), authenticate());

export const orderRoutes = new Hono<AppEnv>()
  .get(
    '/',
    guard(
      rateLimiter(policy.api),
      authenticate(),
      reads((c) => ordersOf(c.var.auth.userId)),
    ),
    async (c) => c.json(await ordersOf(c.var.auth.userId)),
  )
  .get('/:id', signedIn(), async (c) => {
    const [order] = await orderOf(c.var.auth.userId, c.req.param('id'));
    if (order === undefined) throw new AppError('NOT_FOUND');
    return c.json(order);
  })
  .patch('/:id', signedIn(), validJson(changeSchema), async (c) => {
    const { userId } = c.var.auth;
    const [[order]] = await CacheService.change({ users: [userId] }, (db) => [
      db
        .update(orders)
        .set(c.req.valid('json'))
        .where(and(eq(orders.userId, userId), eq(orders.id, c.req.param('id'))))
        .returning(),
    ]);
    if (order === undefined) throw new AppError('NOT_FOUND');
    return c.json(order);
  });
