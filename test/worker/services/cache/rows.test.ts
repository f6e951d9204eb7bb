import { eq } from 'drizzle-orm';
import { Hono } from 'hono';
import { beforeAll, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../../src/app';
import { DatabaseUnavailable } from '../../../../src/db/client';
import { users } from '../../../../src/db/schema';
import { authenticate } from '../../../../src/middlewares/auth.middleware';
import { cached } from '../../../../src/middlewares/cached.middleware';
import { onError } from '../../../../src/middlewares/error.middleware';
import { guard } from '../../../../src/middlewares/guard.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { ownedRows } from '../../../../src/routes/ownedRows';
import { CacheService } from '../../../../src/services/cache.service';
import readme from '../../../../README.md?raw';
// oxlint-disable-next-line import/default -- Vite gives the file's text
import page from '../../../../docs/routes.md?raw';
import { orderRoutes as listRoutes } from '../../examples/list.routes';
// oxlint-disable-next-line import/default -- Vite gives the file's text
import list from '../../examples/list.routes.ts?raw';
// oxlint-disable-next-line import/default -- Vite gives the file's text
import owned from '../../examples/notes.routes.ts?raw';
import { notes } from '../../examples/notes.table';
import { orderRoutes } from '../../examples/orders.routes';
// oxlint-disable-next-line import/default -- Vite gives the file's text
import example from '../../examples/orders.routes.ts?raw';
// oxlint-disable-next-line import/default -- Vite gives the file's text
import ownTest from '../../examples/orders.test.ts?raw';
import { observedClient } from '../../support/cache';
import { bindings, callerOf, inRequest, isolateFor } from '../../support/request';

const bound = bindings();
let token = '';
let userId = '';
beforeAll(async () => {
  const call = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
  const email = `rows.${crypto.randomUUID()}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', {
    body: { email, password: 'correct horse battery', name: 'Ada' },
  });
  token = body.access_token as string;
  userId = body.user.id as string;
  await bound.DB.exec(
    'CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, note TEXT NOT NULL)',
  );
  const insert = bound.DB.prepare('INSERT INTO orders VALUES (?, ?, ?)');
  await bound.DB.batch([insert.bind('o1', userId, 'first'), insert.bind('o2', 'somebody else', 'theirs')]);
});

function orderApp(routes: Hono<AppEnv> = orderRoutes) {
  const { client, state } = observedClient();
  const isolate = isolateFor(bound, { client });
  const app = new Hono<AppEnv>().use(services({ isolate })).route('/orders', routes);
  app.onError(onError);
  return { call: callerOf(app, bound), state, isolate };
}

describe('a route of one’s own', () => {
  test('is that of docs/routes.md, word for word', () => {
    const shown = example.slice(example.indexOf('const mine ='));
    expect(page).toContain(`\`\`\`ts\n${shown}\`\`\``);
    expect(page).toContain(`\n\n${owned.slice(owned.indexOf('const rows ='))}\`\`\``);
    expect(page).toContain(`\`\`\`ts\n${ownTest.slice(ownTest.indexOf('const call ='))}\`\`\``);
  });

  test('is that of the README, word for word, but for where it stands', async () => {
    const shown = list.replaceAll('../../../src/', '../').replace('./orders.routes', '../db/schema');
    expect(readme).toContain(`${shown}\`\`\``);
    const { call } = orderApp(listRoutes);
    const { status, body } = await call('GET', '/orders', { token });
    expect({ status, body }).toEqual({ status: 200, body: [{ id: 'o1', userId, note: 'first' }] });
  });

  test('lists with one trip, and one command for entry and tag versions', async () => {
    const { call, state } = orderApp();
    for (let warm = 0; warm < 2; warm += 1) await call('GET', '/orders', { token });
    state.sent = [];
    const { status, body } = await call('GET', '/orders', { token });
    expect({ status, body }).toEqual({ status: 200, body: [{ id: 'o1', userId, note: 'first' }] });
    expect(state.sent.map((commands) => commands.map(([name]) => name))).toEqual([['EVALSHA', 'HMGET', 'MGET']]);
  });

  test('shows one, and 404 for none and for another user’s', async () => {
    const { call } = orderApp();
    expect((await call('GET', '/orders/o1', { token })).body).toMatchObject({ note: 'first' });
    for (const id of ['o2', 'none']) expect((await call('GET', `/orders/${id}`, { token })).status).toBe(404);
    expect((await call('PATCH', '/orders/o2', { token, body: { note: 'mine' } })).status).toBe(404);
  });

  test('creates and deletes, and lists show it at once', async () => {
    const { call } = orderApp();
    const before = (await call('GET', '/orders', { token })).body;
    const made = await call('POST', '/orders', { token, body: { note: 'new' } });
    expect(made).toMatchObject({ status: 201, body: { userId, note: 'new' } });
    const path = `/orders/${String(made.body['id'])}`;
    expect((await call('GET', path, { token })).body).toEqual(made.body);
    expect((await call('GET', '/orders', { token })).body).toContainEqual(made.body);
    expect((await call('DELETE', path, { token })).status).toBe(204);
    expect((await call('GET', path, { token })).status).toBe(404);
    expect((await call('DELETE', path, { token })).status).toBe(404);
    expect((await call('DELETE', '/orders/o2', { token })).status).toBe(404);
    expect((await call('GET', '/orders', { token })).body).toEqual(before);
  });

  test('changes, and cached values have ended before the response', async () => {
    const { call, state } = orderApp();
    await call('GET', '/orders/o1', { token });
    for (const note of ['second', 'third']) {
      expect((await call('PATCH', '/orders/o1', { token, body: { note } })).body).toMatchObject({ note });
      expect((await call('GET', '/orders/o1', { token })).body).toMatchObject({ note });
      expect((await call('GET', '/orders', { token })).body).toMatchObject([{ note }]);
    }
    // What cannot be delivered to Redis is in the outbox, with the change.
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    state.before = (commands) =>
      commands.some(([name]) => name === 'SET') ? Promise.reject(new RedisUnavailable('refused')) : undefined;
    const changed = await call('PATCH', '/orders/o1', { token, body: { note: 'fourth' } });
    log.mockRestore();
    expect(changed).toMatchObject({ status: 200, body: { note: 'fourth' } });
    expect(changed.headers.get('Gatehouse-Degraded')).toContain('invalidation=pending');
    const { results } = await bound.DB.prepare("SELECT message FROM outbox WHERE state = 'pending'").all();
    expect(results.map(({ message }) => JSON.parse(String(message)) as unknown)).toContainEqual({
      kind: 'invalidate',
      users: [userId],
    });
  });
});

describe('owned rows', () => {
  const other = `prices-${crypto.randomUUID()}`;
  const rows = ownedRows('notes', notes, { ttlSeconds: 300, tags: [other] });
  const routes = new Hono<AppEnv>()
    .get('/', guard(authenticate(), rows.readsPage()), async (c) =>
      c.json(await rows.page(c.var.auth.userId, { page: 1, limit: 20 })),
    )
    .get(
      '/whole',
      guard(authenticate(), cached({ ttlSeconds: 300, tags: (c) => [rows.tag(c.var.auth?.userId ?? '')] })),
      async (c) => c.json(await rows.page(c.var.auth.userId, { page: 1, limit: 20 })),
    )
    .post('/', guard(authenticate()), async (c) => c.json(await rows.create(c.var.auth.userId, { text: 'made' }), 201))
    .post('/others', guard(authenticate()), async (c) => c.json(await CacheService.invalidate({ tags: [other] })));
  const total = ({ body }: { body: { total: number } }) => body.total;
  beforeAll(async () => {
    await bound.DB.exec(
      'CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, text TEXT NOT NULL, created_at_ms INTEGER NOT NULL)',
    );
  });

  test('end with the tags of what else they depend on', async () => {
    const { call } = orderApp(routes);
    const before = total(await call('GET', '/orders', { token }));
    await bound.DB.prepare('INSERT INTO notes VALUES (?, ?, ?, ?)').bind(crypto.randomUUID(), userId, 'x', 1).run();
    expect(total(await call('GET', '/orders', { token }))).toBe(before);
    await call('POST', '/orders/others', { token });
    expect(total(await call('GET', '/orders', { token }))).toBe(before + 1);
  });

  test('end a cached response that has their tag', async () => {
    const { call } = orderApp(routes);
    const before = total(await call('GET', '/orders/whole', { token }));
    expect((await call('GET', '/orders/whole', { token })).headers.get('Cache-Status')).toContain('hit');
    await call('POST', '/orders', { token });
    expect(total(await call('GET', '/orders/whole', { token }))).toBe(before + 1);
  });
});

test('an empty change of owned rows is a 422, also where the schema lets it pass', async () => {
  const rows = ownedRows('notes', notes, { ttlSeconds: 60 });
  for (const fields of [{}, { text: undefined }]) {
    await expect(inRequest(async () => rows.change(userId, 'any', fields))).rejects.toMatchObject({
      code: 'VALIDATION_FAILED',
      status: 422,
    });
  }
});

describe('rows', () => {
  const unused = new Proxy({} as D1Database, {
    get: () => () => {
      throw new Error('D1_ERROR: the database was asked');
    },
  });

  test('are cached by SQL, values, user and tags', async () => {
    const isolate = isolateFor(bound);
    await inRequest(
      async () => {
        const key = (limit: number, extra: object = {}) =>
          CacheService.rows({ namespace: 'n', ttlSeconds: 60, ...extra }, (db) => db.select().from(users).limit(limit))
            .key.entryKey;
        expect(key(1)).toBe(key(1));
        expect(new Set([key(1), key(2), key(1, { user: 'u' }), key(1, { tags: ['t'] })]).size).toBe(4);
      },
      { isolate },
    );
  });

  test('have the same form from the database and from the cache, and an outage of the database is not theirs', async () => {
    const isolate = isolateFor(bound);
    const namespace = `rows-${crypto.randomUUID()}`;
    const read = async () =>
      CacheService.rows({ namespace, ttlSeconds: 60 }, (db) => db.select().from(users).where(eq(users.id, userId)));
    const first = await inRequest(async () => read(), { isolate });
    expect(first).toMatchObject([{ id: userId, createdAtMs: expect.any(Number) }]);
    const broken = { withSession: () => unused } as unknown as D1Database;
    expect(await inRequest(async () => read(), { isolate, db: broken })).toEqual(first);
    await inRequest(async () => CacheService.invalidate({ namespaces: [namespace] }), { isolate });
    await expect(inRequest(async () => read(), { isolate, db: broken })).rejects.toThrow(DatabaseUnavailable);
  });
});
