import { Hono } from 'hono';

import { loadUser } from './user.ts';
import type { Bindings, User } from './user.ts';

const app = new Hono<{ Bindings: Bindings }>();

let user: User | null | undefined;

/** What Hono and workerd cost by themselves: no token, no limit, no Redis. */
app.get('/v1/users/me', async (c) => {
  user ??= await loadUser(c.env.DB, (await c.env.DB.prepare('SELECT id FROM users').first<string>('id')) ?? '');
  return c.json(user);
});

export default app;
