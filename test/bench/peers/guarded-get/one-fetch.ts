import { Hono } from 'hono';

import { loadUser } from './user.ts';
import type { Bindings, User } from './user.ts';

const app = new Hono<{ Bindings: Bindings }>();

let user: User | null | undefined;

/** The floor of a guard that asks Redis: one `fetch` of a pipeline of three commands, and what Hono and workerd cost. */
app.get('/v1/users/me', async (c) => {
  user ??= await loadUser(c.env.DB, (await c.env.DB.prepare('SELECT id FROM users').first<string>('id')) ?? '');
  const { PREFIX, UPSTASH_REDIS_REST_URL: url, UPSTASH_REDIS_REST_TOKEN: token } = c.env;
  const response = await fetch(`${url}/pipeline`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: JSON.stringify([
      ['SET', `${PREFIX}:limit`, '1', 'PX', 3_600_000],
      ['HMGET', `${PREFIX}:blacklist`, 'ep', 'av', 's:1', 'j:1'],
      ['MGET', `${PREFIX}:user`, `${PREFIX}:user:tag`],
    ]),
  });
  const replies = await response.json<{ result?: unknown }[]>();
  if (replies.length !== 3) return c.json({ error: 'no reply' }, 503);
  return c.json(user);
});

export default app;
