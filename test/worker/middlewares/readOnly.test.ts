import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { changesNothing } from '../../../src/middlewares/readOnly.middleware';
import { bindings, callerOf } from '../support/request';

const open = bindings({ KEY_PREFIX: 'read-only' });
const closed = bindings({ KEY_PREFIX: 'read-only', READ_ONLY: 'true' });
const before = callerOf(createApp(), open);
const call = callerOf(createApp(), closed);
const password = 'a horse that staples batteries';
const email = 'read-only@example.com';

let userId = '';
let access = '';
let refresh = '';

beforeAll(async () => {
  const { body } = await before('POST', '/v1/auth/register', { body: { email, password, name: 'Reader' } });
  userId = body.user.id;
  access = body.access_token;
  refresh = body.refresh_token;
});

/** All of the account: other files have theirs in the same database. */
async function rows() {
  const tables = ['sessions', 'events', 'idempotency_keys', 'one_time_tokens', 'known_origins'];
  const queries = tables.map((table) => env.DB.prepare(`select * from ${table} where user_id = ?`).bind(userId));
  const results = await env.DB.batch([...queries, env.DB.prepare('select * from users where id = ?').bind(userId)]);
  return results.map((result) => result.results);
}

const READS = new Set(['POST /v1/admin/limits/peek']);
const changes = () =>
  createApp()
    .routes.filter(({ method }) => !['ALL', 'GET'].includes(method))
    .map(({ method, path }) => `${method} ${path}`)
    .filter((route) => !READS.has(route));

describe('with READ_ONLY', () => {
  test('every route that changes something responds with 503 and Retry-After, and nothing is changed', async () => {
    const was = await rows();
    const routes = [...new Set(changes())];
    expect(routes.length).toBeGreaterThan(30);
    for (const route of routes) {
      const [method = '', path = ''] = route.split(' ');
      const { status, headers, body } = await call(method, path.replace(/:\w+/g, 'some'), { token: access });
      expect({ route, status, code: body.code }).toEqual({ route, status: 503, code: 'READ_ONLY' });
      expect(headers.get('Retry-After')).toBe('30');
      expect(headers.get('Content-Type')).toBe('application/problem+json');
    }
    expect(await rows()).toEqual(was);
  });

  test('reads, their guards and the checks for machines go on', async () => {
    const me = await call('GET', '/v1/users/me', { token: access });
    expect([me.status, me.body.email]).toEqual([200, email]);
    expect(me.headers.get('RateLimit')).toMatch(/^"api"/);
    expect((await call('GET', '/v1/sessions', { token: access })).status).toBe(200);
    expect((await call('GET', '/v1/users/me', { token: 'not.a.token' })).status).toBe(401);
    expect((await call('GET', '/health')).status).toBe(200);
    expect((await call('GET', '/ready')).status).toBe(200);
  });

  test('a route that changes nothing is served, whatever its method', async () => {
    const body = { policy: 'api', identity: userId };
    expect((await call('POST', '/v1/admin/limits/peek', { body })).body.code).toBe('AUTHENTICATION_REQUIRED');
    expect((await call('POST', '/v1/admin/limits/peek', { token: access, body })).body.code).toBe('FORBIDDEN');
    await env.DB.prepare(`update users set role = 'admin' where id = ?`).bind(userId).run();
    const was = await rows();
    const { body: signedIn } = await before('POST', '/v1/auth/login', { body: { email, password } });
    const peeked = await call('POST', '/v1/admin/limits/peek', { token: signedIn.access_token, body });
    expect([peeked.status, peeked.body.limits[0].name]).toEqual([200, expect.any(String)]);
    expect((await rows()).at(-1)).toEqual(was.at(-1));
  });

  test('a route says so for itself alone', async () => {
    const app = createApp();
    app
      .post('/own/search', changesNothing(), (c) => c.json({ found: [] }, 200))
      .post('/own/change', (c) => c.body(null, 204));
    const own = callerOf(app, closed);
    expect((await own('POST', '/own/search', { body: {} })).status).toBe(200);
    expect((await own('POST', '/own/change', { body: {} })).body.code).toBe('READ_ONLY');
    expect((await own('PUT', '/own/search', { body: {} })).body.code).toBe('READ_ONLY');
  });

  test('a refresh waits, and is as good as before when changes are accepted again', async () => {
    const body = { refresh_token: refresh };
    expect((await call('POST', '/v1/auth/refresh', { body })).body.code).toBe('READ_ONLY');
    expect((await before('POST', '/v1/auth/refresh', { body })).status).toBe(200);
  });
});
