import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { RedisUnavailable } from '../../../src/redis/errors';
import { LockService } from '../../../src/services/lock.service';
import { UserService } from '../../../src/services/user.service';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

// Keys of its own: another file that registers a user ends the lists that are cached here.
const bound = bindings({ KEY_PREFIX: 'warming-routes' });
const isolate = isolateFor(bound);
const call = callerOf(createApp({ isolate }), bound);
const password = 'a horse that staples batteries';

let user = '';
let admin = '';

beforeAll(async () => {
  const register = async (email: string) =>
    (await call('POST', '/v1/auth/register', { body: { email, password, name: 'Somebody' } })).body;
  user = (await register('warm-user@example.com')).access_token;
  await register('warm-admin@example.com');
  await env.DB.prepare(`update users set role = 'admin' where email = 'warm-admin@example.com'`).run();
  const { body } = await call('POST', '/v1/auth/login', { body: { email: 'warm-admin@example.com', password } });
  admin = body.access_token;
});

const forget = (name: string) =>
  inRequest(({ batch }) => batch.send('UNLINK', isolate.keys.warming(name)), { isolate });
beforeEach(async () => {
  await forget('user-lists');
  await forget('active-users');
});

const path = '/v1/admin/warming';

test.each(['GET', 'POST'])('%s is for administrators', async (method) => {
  const url = method === 'GET' ? path : `${path}/user-lists`;
  expect((await call(method, url)).body.code).toBe('AUTHENTICATION_REQUIRED');
  expect((await call(method, url, { token: user })).body.code).toBe('FORBIDDEN');
});

test('runs a job, says how far it is, and leaves warm entries', async () => {
  const idle = { state: 'idle' };
  expect((await call('GET', path, { token: admin })).body).toEqual({
    jobs: [
      { name: 'user-lists', everySeconds: 60, ...idle },
      { name: 'active-users', everySeconds: null, ...idle },
    ],
  });
  const ran = await call('POST', `${path}/user-lists`, { token: admin });
  const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  const done = { name: 'user-lists', everySeconds: 60, state: 'done', done: 3, failed: 0, total: 3 };
  expect(ran).toMatchObject({ status: 200, body: { ...done, startedAt: time, updatedAt: time } });
  expect((await call('GET', path, { token: admin })).body.jobs[0]).toEqual(ran.body);

  // Without a database: what is answered now is cached.
  const down = {} as D1Database;
  const list = await inRequest(() => UserService.getUsers({ page: 1, limit: 20 }), {
    isolate: isolateFor(bound),
    db: down,
  });
  expect(list.items.length).toBeGreaterThan(1);
});

test('active users: those with a session in use, none that was deleted or has been away', async () => {
  // Other files have left sessions in this database.
  await env.DB.prepare(
    `update sessions set last_seen_at_ms = 0 where user_id not in (select id from users where email like 'warm-%')`,
  ).run();
  const ids = await inRequest(() => UserService.activeIds(Date.now() - 60_000, '', 100), { isolate });
  const account = { email: 'warm-away@example.com', password, name: 'Away' };
  const away = (await call('POST', '/v1/auth/register', { body: account })).body.user.id as string;
  const all = await inRequest(() => UserService.activeIds(Date.now() - 60_000, '', 100), { isolate });
  expect(all.filter((id) => !ids.includes(id))).toEqual([away]);
  expect(all).toEqual([...all].sort());
  expect(await inRequest(() => UserService.activeIds(Date.now() - 60_000, all[0]!, 1), { isolate })).toEqual([all[1]]);

  await env.DB.prepare('update sessions set last_seen_at_ms = 0 where user_id = ?').bind(away).run();
  expect(await inRequest(() => UserService.activeIds(Date.now() - 60_000, '', 100), { isolate })).toEqual(ids);

  // A user who was deleted before their entry is loaded is no failure.
  await env.DB.prepare('update sessions set last_seen_at_ms = ? where user_id = ?').bind(Date.now(), away).run();
  await env.DB.prepare('delete from users where id = ?').bind(away).run();
  const { status, body } = await call('POST', `${path}/active-users?concurrency=20`, { token: admin });
  expect(status).toBe(200);
  expect(body).toMatchObject({ state: 'done', done: all.length, failed: 0, total: null });
});

describe('refusals', () => {
  test.each([
    ['an unknown job', 'nothing', 404, 'NOT_FOUND'],
    ['an unknown parameter', 'user-lists?force=true', 422, 'VALIDATION_FAILED'],
    ['too much at a time', 'user-lists?concurrency=21', 422, 'VALIDATION_FAILED'],
    ['no boolean', 'user-lists?restart=yes', 422, 'VALIDATION_FAILED'],
  ])('%s', async (_what, tail, status, code) => {
    const answer = await call('POST', `${path}/${tail}`, { token: admin });
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });

  test('a job that another request runs: 409, and when to come again', async () => {
    const answer = await inRequest(
      async () => {
        await using lock = await LockService.acquire('warming:user-lists', { leaseMs: 20_000 });
        expect(lock.acquired).toBe(true);
        return await call('POST', `${path}/user-lists`, { token: admin });
      },
      { isolate },
    );
    expect([answer.status, answer.body.code]).toEqual([409, 'CONFLICT']);
    expect(answer.headers.get('Retry-After')).toBe('5');
    expect((await call('POST', `${path}/user-lists`, { token: admin })).status).toBe(200);
  });

  test('Redis away: 503, and when to come again', async () => {
    const client = { execute: () => Promise.reject(new RedisUnavailable('refused')) };
    const degraded = callerOf(createApp({ isolate: isolateFor(bound, { client }) }), bound);
    for (const [method, url] of [
      ['GET', path],
      ['POST', `${path}/user-lists`],
    ] as const) {
      const answer = await degraded(method, url, { token: admin });
      expect([answer.status, answer.body.code]).toEqual([503, 'SERVICE_UNAVAILABLE']);
      expect(answer.headers.get('Retry-After')).toBe('5');
    }
  });
});

test('a run is stopped: at once when no isolate is at it, else after the items that it has begun', async () => {
  const held = { state: 'running', cursor: '1', done: 1, failed: 0, total: 3, startedAtMs: 1, updatedAtMs: 1 };
  const begun = () =>
    inRequest(
      ({ batch }) =>
        batch.send('HSET', isolate.keys.warming('user-lists'), 'fence', '1', 'value', JSON.stringify(held)),
      { isolate },
    );
  await begun();
  const stop = () => call('DELETE', `${path}/user-lists`, { token: admin });
  expect(await stop()).toMatchObject({ status: 200, body: { state: 'stopped', done: 1 } });
  // A stopped run is over: the next one begins anew.
  expect(await call('POST', `${path}/user-lists`, { token: admin })).toMatchObject({
    body: { state: 'done', done: 3 },
  });

  await begun();
  await inRequest(
    async () => {
      await using lock = await LockService.acquire('warming:user-lists', { leaseMs: 20_000 });
      expect(lock.acquired).toBe(true);
      expect(await stop()).toMatchObject({ status: 202, body: { state: 'running' } });
    },
    { isolate },
  );
  const slice = await call('POST', `${path}/user-lists?concurrency=1`, { token: admin });
  expect(slice).toMatchObject({ status: 200 });
  const { body } = await call('GET', path, { token: admin });
  expect(['stopped', 'done']).toContain(body.jobs[0].state);
});
