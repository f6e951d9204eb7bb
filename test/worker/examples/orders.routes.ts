import { and, eq } from 'drizzle-orm';
import { Hono } from 'hono';
import * as z from 'zod';

import { table, text } from '#db';
import { AppError } from '../../../src/errors';
import { authenticate } from '../../../src/middlewares/auth.middleware';
import { validJson } from '../../../src/middlewares/body.middleware';
import { reads } from '../../../src/middlewares/reads.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { idempotent } from '../../../src/middlewares/idempotent.middleware';
import { policy } from '../../../src/middlewares/policy';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';

export const orders = table('orders', {
  id: text('id').primaryKey(),
  userId: text('user_id').notNull(),
  note: text('note').notNull(),
});

const orderSchema = z.strictObject({ note: z.string().max(200) });

// What follows stands in docs/routes.md, word for word.

const mine = (userId: string) => ({ namespace: 'orders', user: userId, ttlSeconds: 300 });

const ordersOf = (userId: string) =>
  CacheService.rows(mine(userId), (db) => db.select().from(orders).where(eq(orders.userId, userId)));

const isOrder = (userId: string, id: string) => and(eq(orders.userId, userId), eq(orders.id, id));

const orderOf = (userId: string, id: string) =>
  CacheService.rows(mine(userId), (db) => db.select().from(orders).where(isOrder(userId, id)));

const caller = [rateLimiter(policy.api), authenticate()] as const;

export const orderRoutes = new Hono<AppEnv>()
  .get(
    '/',
    guard(
      ...caller,
      reads((c) => ordersOf(c.var.auth.userId)),
    ),
    async (c) => c.json(await ordersOf(c.var.auth.userId), 200),
  )
  .post('/', guard(...caller, idempotent()), validJson(orderSchema), async (c) => {
    const { userId } = c.var.auth;
    const order = { id: crypto.randomUUID(), userId, ...c.req.valid('json') };
    await CacheService.change({ users: [userId] }, (db) => [db.insert(orders).values(order)]);
    return c.json(order, 201);
  })
  .get(
    '/:id',
    guard(
      ...caller,
      reads((c) => orderOf(c.var.auth.userId, c.req.param('id') ?? '')),
    ),
    async (c) => {
      const [order] = await orderOf(c.var.auth.userId, c.req.param('id'));
      if (order === undefined) throw new AppError('NOT_FOUND');
      return c.json(order, 200);
    },
  )
  .patch('/:id', guard(...caller, idempotent()), validJson(orderSchema), async (c) => {
    const { userId } = c.var.auth;
    const [[order]] = await CacheService.change({ users: [userId] }, (db) => [
      db
        .update(orders)
        .set(c.req.valid('json'))
        .where(isOrder(userId, c.req.param('id')))
        .returning(),
    ]);
    if (order === undefined) throw new AppError('NOT_FOUND');
    return c.json(order, 200);
  })
  .delete('/:id', guard(...caller, idempotent()), async (c) => {
    const { userId } = c.var.auth;
    const [[order]] = await CacheService.change({ users: [userId] }, (db) => [
      db
        .delete(orders)
        .where(isOrder(userId, c.req.param('id')))
        .returning(),
    ]);
    if (order === undefined) throw new AppError('NOT_FOUND');
    return c.body(null, 204);
  });
