import { eq } from 'drizzle-orm';
import type { Context } from 'hono';
import { Hono } from 'hono';

import { createApp } from '../../../src/app';
import { authenticate } from '../../../src/middlewares/auth.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { idempotent } from '../../../src/middlewares/idempotent.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { scheduled } from '../../../src/scheduled';
import { CacheService } from '../../../src/services/cache.service';
import { orders } from '../examples/orders.routes';

/**
 * The app with routes of its developer's that take an `Idempotency-Key`. Handlers ask the test (`TRUTH_URL`) before and
 * after their change, which thereby counts them and holds them up.
 */
type Bindings = Env & { TRUTH_URL: string };

interface Wish {
  note: string;
  /** Names to ask the test for. */
  before?: string;
  after?: string;
  /** Length of what is added to the response. */
  pad?: number;
  /** What it responds with after the change. @default 201 */
  status?: number;
  cookie?: boolean;
}

const ask = (c: Context, name: string) =>
  fetch(`${(c.env as Bindings).TRUTH_URL}/${encodeURIComponent(name)}`).then((response) => response.ok);

async function place(c: Context, userId: string): Promise<Response> {
  const { note, before, after, pad = 0, status = 201, cookie = false } = await c.req.json<Wish>();
  if (before !== undefined && !(await ask(c, before))) throw new Error('the test has said no');
  const order = { id: crypto.randomUUID(), userId, note };
  await CacheService.change({ users: [userId] }, (db) => [db.insert(orders).values(order)], {
    reference: { id: order.id },
  });
  if (after !== undefined) await ask(c, after);
  if (cookie) c.header('Set-Cookie', 'a=b');
  c.header('Location', `/own/orders/${order.id}`);
  c.header('X-Not-Kept', '1');
  return c.json({ ...order, pad: 'x'.repeat(pad) }, status as 201);
}

const own = new Hono<AppEnv>()
  .post('/orders', guard(authenticate(), idempotent()), (c) => place(c, c.var.auth.userId))
  .post('/orders/:shop', guard(authenticate(), idempotent()), (c) => place(c, c.var.auth.userId))
  .post(
    '/referred',
    guard(
      authenticate(),
      idempotent({
        maxBytes: 1_000,
        async again(c, reference) {
          const { id } = reference as { id: string };
          const [order] = await c
            .get('request')
            .database.run((db) => db.select().from(orders).where(eq(orders.id, id)));
          return c.json(order, 201);
        },
      }),
    ),
    (c) => place(c, c.var.auth.userId),
  )
  // Its effect is elsewhere.
  .post('/outside', guard(idempotent({ required: true })), async (c) => {
    const { before = '' } = await c.req.json<Wish>();
    await ask(c, before);
    return c.json({ receipt: crypto.randomUUID() });
  });

const app = createApp();
app.route('/own', own);

export default { fetch: app.fetch, scheduled } satisfies ExportedHandler<Env>;
