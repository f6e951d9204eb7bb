import { asc, eq } from 'drizzle-orm';
import { Hono } from 'hono';
import { beforeAll, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../../src/app';
import { DatabaseUnavailable } from '../../../../src/db/client';
import { users } from '../../../../src/db/schema';
import { AppError } from '../../../../src/errors';
import { authenticate } from '../../../../src/middlewares/auth.middleware';
import { reads } from '../../../../src/middlewares/cache.middleware';
import { onError } from '../../../../src/middlewares/error.middleware';
import { guard } from '../../../../src/middlewares/guard.middleware';
import { policy } from '../../../../src/middlewares/policy';
import { rateLimiter } from '../../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { CacheService } from '../../../../src/services/cache.service';
import { observedClient } from '../../support/cache';
import { bindings, callerOf, inRequest, isolateFor } from '../../support/request';

// A developer's own list, detail and change, as the README shows them, over the table that there is.

const mine = (userId: string) => ({ namespace: 'profiles', user: userId, ttlSeconds: 300 });

const profilesOf = (userId: string) =>
  CacheService.rows(mine(userId), (db) => db.select().from(users).where(eq(users.id, userId)).orderBy(asc(users.id)));

const profileOf = (userId: string, id: string) =>
  CacheService.rows(mine(userId), (db) => db.select().from(users).where(eq(users.id, id)).limit(1));

const profileRoutes = new Hono<AppEnv>()
  .get(
    '/',
    guard(
      rateLimiter(policy.api),
      authenticate(),
      reads((c) => profilesOf(c.var.auth.userId)),
    ),
    async (c) => c.json(await profilesOf(c.var.auth.userId)),
  )
  .get('/:id', guard(rateLimiter(policy.api), authenticate()), async (c) => {
    const [profile] = await profileOf(c.var.auth.userId, c.req.param('id'));
    if (profile === undefined) throw new AppError('NOT_FOUND');
    return c.json(profile);
  })
  .patch('/:id', guard(rateLimiter(policy.api), authenticate()), async (c) => {
    const { userId } = c.var.auth;
    const { name } = await c.req.json<{ name: string }>();
    const [[profile]] = await CacheService.change({ users: [userId] }, (db) => [
      db.update(users).set({ name }).where(eq(users.id, userId)).returning(),
    ]);
    return c.json(profile);
  });

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
});

function profileApp() {
  const { client, state } = observedClient();
  const isolate = isolateFor(bound, { client });
  const app = new Hono<AppEnv>().use(services({ isolate })).route('/profiles', profileRoutes);
  app.onError(onError);
  return { call: callerOf(app, bound), state, isolate };
}

describe('a route of one’s own', () => {
  test('lists with one trip, and one command for entry and nonces', async () => {
    const { call, state } = profileApp();
    for (let warm = 0; warm < 2; warm += 1) await call('GET', '/profiles', { token });
    state.sent = [];
    const { status, body } = await call('GET', '/profiles', { token });
    expect({ status, body }).toMatchObject({ status: 200, body: [{ id: userId }] });
    expect(state.sent.map((commands) => commands.map(([name]) => name))).toEqual([['EVALSHA', 'HMGET', 'MGET']]);
  });

  test('shows one, and 404 for none', async () => {
    const { call } = profileApp();
    expect((await call('GET', `/profiles/${userId}`, { token })).body).toMatchObject({ id: userId });
    expect((await call('GET', '/profiles/nobody', { token })).status).toBe(404);
  });

  test('changes, and what was cached is over before that is answered', async () => {
    const { call, state } = profileApp();
    await call('GET', `/profiles/${userId}`, { token });
    for (const name of ['Grace', 'Edsger']) {
      expect((await call('PATCH', `/profiles/${userId}`, { token, body: { name } })).body).toMatchObject({ name });
      expect((await call('GET', `/profiles/${userId}`, { token })).body).toMatchObject({ name });
      expect((await call('GET', '/profiles', { token })).body).toMatchObject([{ name }]);
    }
    // The change while Redis is away is in the outbox with it …
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    await call('GET', `/profiles/${userId}`, { token });
    state.before = (commands) =>
      commands.some(([name]) => name === 'SET') ? Promise.reject(new RedisUnavailable('refused')) : undefined;
    const changed = await call('PATCH', `/profiles/${userId}`, { token, body: { name: 'Barbara' } });
    expect(changed).toMatchObject({ status: 200, body: { name: 'Barbara' } });
    expect(changed.headers.get('Gatehouse-Degraded')).toContain('invalidation=pending');
    log.mockRestore();
    const { results } = await bound.DB.prepare(
      "SELECT message, state FROM outbox WHERE message LIKE '%invalidate%' AND state = 'pending'",
    ).all();
    expect(results.map(({ message }) => JSON.parse(String(message)) as unknown)).toContainEqual({
      kind: 'invalidate',
      users: [userId],
    });
  });
});

describe('rows', () => {
  const unused = new Proxy({} as D1Database, {
    get: () => () => {
      throw new Error('D1_ERROR: the database was asked');
    },
  });

  test('are cached by what is asked: SQL, values, user and tags', async () => {
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
