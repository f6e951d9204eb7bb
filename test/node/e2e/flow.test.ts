import { describe, expect, inject, test, vi } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import { THREE_SESSIONS, expectTokens, login, wholeFlow, wholeFlowWithoutRotation } from '../../support/flow.ts';
import { REDIS_MISSING, freePort, hasRedisServer, startRedis } from '../../support/redisServers.ts';
import type { RedisProcess } from '../../support/redisServers.ts';
import { spansIn } from '../../support/spans.ts';

const TOKEN = 'e2e-token';

/** A redis-server that ends with its test. */
async function redisServer(): Promise<AsyncDisposable & { redis: RedisProcess; redisUrl: string }> {
  const redis = await startRedis();
  return { redis, redisUrl: redis.url, [Symbol.asyncDispose]: () => redis.stop() };
}

const makeAdmin = (app: RunningApp, userId: string) =>
  app.sql(`update users set role = 'admin', access_version = access_version + 1 where id = ?`, userId);

describe.each<[string, () => Promise<Awaited<ReturnType<typeof redisServer>> | undefined>]>([
  ['the embedded engine', async () => undefined],
  ['redis-server', redisServer],
])('on %s', (name, start) => {
  const real = name === 'redis-server';

  test.skipIf(real && !hasRedisServer)(
    `a client's whole life${real && !hasRedisServer ? `: ${REDIS_MISSING}` : ''}`,
    async () => {
      await using redis = await start();
      await using gateway = await startGateway({ token: TOKEN, port: 0, ...(redis && { redisUrl: redis.redisUrl }) });
      const server = { url: gateway.url, token: TOKEN };
      await using app = await startApp({
        bundle: inject('workerBundle'),
        redis: server,
        settings: { ...UNLIMITED, ...THREE_SESSIONS },
      });
      await wholeFlow(app);
      expect(app.logs.join('\n')).not.toMatch(/@example\.com|horse battery|grt1\.|eyJ/);
    },
  );

  test.skipIf(real && !hasRedisServer)('reads come from the cache, changes reach every reader', async () => {
    await using redis = await start();
    await using gateway = await startGateway({ token: TOKEN, port: 0, ...(redis && { redisUrl: redis.redisUrl }) });
    const server = { url: gateway.url, token: TOKEN };
    await using app = await startApp({ bundle: inject('workerBundle'), redis: server, settings: UNLIMITED });
    const call = clientOf(app.url);
    const person = newcomer();
    const { body } = await call('POST', '/v1/auth/register', { body: person });
    const { id } = body.user;
    await makeAdmin(app, id);
    const admin = expectTokens(await login(call, person), 200).access;

    const me = () => call('GET', '/v1/users/me', { token: admin });
    const list = () => call('GET', '/v1/users?limit=5', { token: admin });
    expect((await me()).body.name).toBe(person.name);
    expect((await list()).body).toMatchObject({ page: 1, limit: 5, total: 1, items: [{ name: person.name }] });

    // Behind the app's back: a response with the old name did not come from D1.
    await app.sql('update users set name = ? where id = ?', 'Behind', id);
    expect((await me()).body.name).toBe(person.name);
    expect((await list()).body.items[0].name).toBe(person.name);

    const patched = await call('PATCH', `/v1/users/${id}`, { token: admin, body: { name: 'Official' } });
    expect(patched.body.name).toBe('Official');
    expect((await me()).body.name).toBe('Official');
    expect((await list()).body.items[0].name).toBe('Official');
    expect((await call('GET', '/v1/users?q=offic', { token: admin })).body.total).toBe(1);
    expect((await call('GET', '/v1/users?q=%25', { token: admin })).body.total).toBe(0);
    // D1 takes no long LIKE pattern.
    expect((await call('GET', `/v1/users?q=${'x'.repeat(90)}`, { token: admin })).body.total).toBe(0);
  });

  test.skipIf(real && !hasRedisServer)('limits: the sixth login is refused, with the time to wait', async () => {
    await using redis = await start();
    await using gateway = await startGateway({ token: TOKEN, port: 0, ...(redis && { redisUrl: redis.redisUrl }) });
    await using app = await startApp({ bundle: inject('workerBundle'), redis: { url: gateway.url, token: TOKEN } });
    const call = clientOf(app.url);
    const person = newcomer();
    expect((await call('POST', '/v1/auth/register', { body: person })).status).toBe(201);

    for (let attempt = 1; attempt <= 5; attempt += 1) {
      expect((await login(call, { ...person, password: 'a wrong guess' })).status).toBe(401);
    }
    const sixth = await login(call, person);
    expect(sixth.status).toBe(429);
    expect(sixth.body).toMatchObject({ code: 'RATE_LIMITED', 'violated-policies': ['login'] });
    const wait = Number(sixth.headers.get('Retry-After'));
    expect(wait).toBeGreaterThan(0);
    expect(wait).toBeLessThanOrEqual(1_800);
    // Neither another phone at that address nor the account at another address is locked out.
    const neighbour = newcomer();
    await call('POST', '/v1/auth/register', { body: neighbour });
    expect((await login(call, neighbour)).status).toBe(200);
    expect((await login(clientOf(app.url, '198.51.100.1'), person)).status).toBe(200);
    // A header that any client can set is no identity.
    const spoofed = await call('POST', '/v1/auth/login', {
      body: { email: person.email, password: person.password },
      headers: { 'X-Forwarded-For': '192.0.2.55' },
    });
    expect(spoofed.status).toBe(429);
    // The third registration of this minute is the last.
    expect((await call('POST', '/v1/auth/register', { body: newcomer() })).status).toBe(201);
    expect((await call('POST', '/v1/auth/register', { body: newcomer() })).status).toBe(429);
  });
});

test('a user has so many sessions: the one that would expire first leaves', async () => {
  await using gateway = await startGateway({ token: TOKEN, port: 0 });
  const server = { url: gateway.url, token: TOKEN };
  await using app = await startApp({
    bundle: inject('workerBundle'),
    redis: server,
    settings: { ...UNLIMITED, ...THREE_SESSIONS },
  });
  const call = clientOf(app.url);
  const person = newcomer();
  const first = expectTokens(await call('POST', '/v1/auth/register', { body: person }), 201);
  for (let i = 0; i < 3; i += 1) await login(call, person, `Device ${i}`);
  expect((await call('GET', '/v1/users/me', { token: first.access })).body.code).toBe('TOKEN_REVOKED');
  const rows = await app.sql(`select ended_reason from sessions where ended_at_ms is not null`);
  expect(rows).toEqual([{ ended_reason: 'evicted' }]);
});

test('a role changes: the access token is out of date, a refresh brings the new role', async () => {
  await using gateway = await startGateway({ token: TOKEN, port: 0 });
  await using app = await startApp({
    bundle: inject('workerBundle'),
    redis: { url: gateway.url, token: TOKEN },
    settings: UNLIMITED,
  });
  const call = clientOf(app.url);
  const [boss, other] = [newcomer(), newcomer()];
  const { body: bossBody } = await call('POST', '/v1/auth/register', { body: boss });
  await makeAdmin(app, bossBody.user.id);
  const admin = expectTokens(await login(call, boss), 200).access;
  const { body } = await call('POST', '/v1/auth/register', { body: other });

  expect((await call('PATCH', `/v1/users/${body.user.id}`, { token: admin, body: { role: 'admin' } })).status).toBe(
    200,
  );
  expect((await call('GET', '/v1/users/me', { token: body.access_token })).body.code).toBe('TOKEN_SUPERSEDED');
  const next = expectTokens(
    await call('POST', '/v1/auth/refresh', { body: { refresh_token: body.refresh_token } }),
    200,
  );
  expect((await call('GET', '/v1/users', { token: next.access })).status).toBe(200);

  expect(
    (await call('PATCH', `/v1/users/${body.user.id}`, { token: admin, body: { status: 'disabled' } })).status,
  ).toBe(200);
  expect((await call('GET', '/v1/users/me', { token: next.access })).body.code).toBe('TOKEN_REVOKED');
  expect((await call('POST', '/v1/auth/refresh', { body: { refresh_token: next.refresh } })).body.code).toBe(
    'TOKEN_REVOKED',
  );
  expect((await login(call, other)).body.code).toBe('ACCOUNT_DISABLED');
});

test('without Redis from the start, everything works', async () => {
  const nowhere = { url: `http://127.0.0.1:${await freePort()}`, token: TOKEN };
  await using app = await startApp({
    bundle: inject('workerBundle'),
    redis: nowhere,
    settings: { ...UNLIMITED, ...THREE_SESSIONS },
  });
  await wholeFlowWithoutRotation(app);
});

test.skipIf(!hasRedisServer)('with Redis killed half way, everything goes on', async () => {
  await using server = await redisServer();
  const { redis, redisUrl } = server;
  await using gateway = await startGateway({ token: TOKEN, port: 0, redisUrl });
  await using app = await startApp({
    bundle: inject('workerBundle'),
    redis: { url: gateway.url, token: TOKEN },
    settings: { ...UNLIMITED, ...THREE_SESSIONS },
  });
  const call = clientOf(app.url);
  const person = newcomer();
  const before = expectTokens(await call('POST', '/v1/auth/register', { body: person }), 201);
  const gone = expectTokens(await login(call, person, 'gone'), 200);
  expect((await call('POST', '/v1/auth/logout', { token: gone.access })).status).toBe(204);

  await redis.kill();
  expect((await call('GET', '/v1/users/me', { token: before.access })).status).toBe(200);
  expect((await call('GET', '/v1/users/me', { token: gone.access })).body.code).toBe('TOKEN_REVOKED');
  expectTokens(await call('POST', '/v1/auth/refresh', { body: { refresh_token: before.refresh } }), 200);
  await wholeFlowWithoutRotation(app);
});

describe('spans of a traced request', () => {
  test('stand around the guard, Redis, D1, loaders and password hashes, and hold nothing personal', async () => {
    await using gateway = await startGateway({ token: TOKEN, port: 0 });
    const redis = { url: gateway.url, token: TOKEN };
    await using app = await startApp({ bundle: inject('workerBundle'), redis, settings: UNLIMITED, traced: true });
    const call = clientOf(app.url);
    const person = newcomer();
    await call('POST', '/v1/auth/register', { body: person });
    const token = expectTokens(await login(call, person), 200).access;
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const { status, headers } = await call('GET', '/v1/users/me', { token, headers: { traceparent } });
    expect(status).toBe(200);
    expect((await call('GET', '/v1/users/me', { headers: { traceparent: '00-no-trace' } })).status).toBe(401);
    await app.scheduled();

    const tracesOf = (root: string, code = 200) =>
      spansIn(app.logs).filter(
        ([first]) => first?.name === root && first.attributes['http.response.status_code'] === code,
      );
    await vi.waitUntil(
      () => spansIn(app.logs).some((spans) => spans.some(({ name }) => name === 'scheduled metrics')),
      {
        timeout: 60_000,
      },
    );

    const [read] = tracesOf('GET /v1/users/me');
    expect(read?.[0]?.attributes).toEqual({
      'http.route': '/v1/users/me',
      'http.response.status_code': 200,
      'gatehouse.request_id': headers.get('X-Request-Id'),
      'gatehouse.caller.trace_id': '4bf92f3577b34da6a3ce929d0e0e4736',
      'gatehouse.caller.span_id': '00f067aa0ba902b7',
    });
    expect(read).toContainEqual({
      name: 'guard',
      in: 'GET /v1/users/me',
      attributes: { 'gatehouse.checks': 'rateLimiter(), authenticate(), reads()' },
    });
    expect(read).toContainEqual({
      name: 'redis PIPELINE',
      in: 'guard',
      attributes: {
        'db.system.name': 'redis',
        'db.operation.name': 'PIPELINE',
        'db.operation.batch.size': expect.any(Number),
      },
    });
    expect(read).toContainEqual({
      name: 'cache.load',
      in: 'GET /v1/users/me',
      attributes: { 'gatehouse.namespace': 'user', 'gatehouse.entries': 1 },
    });
    expect(read).toContainEqual({
      name: 'database query',
      in: 'cache.load',
      attributes: { 'db.system.name': 'sqlite', 'db.operation.name': 'query' },
    });
    expect(tracesOf('POST /v1/auth/login')[0]).toContainEqual({
      name: 'password.hash',
      in: 'POST /v1/auth/login',
      attributes: {},
    });
    // A refusal is an outcome, and no fault.
    const [refused] = tracesOf('GET /v1/users/me', 401);
    expect(refused?.find(({ name }) => name === 'guard')).toEqual({
      name: 'guard',
      in: 'GET /v1/users/me',
      attributes: {
        'gatehouse.checks': 'rateLimiter(), authenticate(), reads()',
        'error.type': 'AUTHENTICATION_REQUIRED',
      },
    });
    expect(refused?.[0]?.attributes).not.toHaveProperty('gatehouse.caller.trace_id');
    // The invocation's address and headers, and statements without their values, are in the runtime's own spans.
    const own = spansIn(app.logs).flatMap((spans) => spans.filter(({ name }) => !/^(?:fetch|d1_\w+)$/.test(name)));
    expect(JSON.stringify(own)).not.toMatch(/@example\.com|horse battery|grt1\.|eyJ|Renamed/);
  });
});
