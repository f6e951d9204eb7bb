import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { newcomer } from '../../support/client.ts';
import { degraded, endElsewhere, signedIn, startScene, timed, until, untilRecovered } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene();
  user = await scene.newAccount();
  await me();
});
afterAll(() => scene[Symbol.asyncDispose]());
afterEach(async () => {
  await findDatabase();
  await scene.redis.clear();
  await untilRecovered(scene, user.access);
});

const me = () => scene.call('GET', '/v1/users/me', { token: user.access });
const refresh = () => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } });

const loseDatabase = () => scene.app.database('away');
const findDatabase = () => scene.app.database('here');

const unavailable = { status: 503, body: { code: 'SERVICE_UNAVAILABLE' } };

describe('with the database broken', () => {
  it('Redis alone serves those who are signed in', async () => {
    await loseDatabase();
    const answer = await me();
    expect(answer).toMatchObject({ status: 200, body: { id: user.id } });
    expect(degraded(answer)).toBe('');
    const refreshed = await refresh();
    expect(refreshed).toMatchObject({ status: 200 });
    Object.assign(user, signedIn(refreshed));
    expect(await me()).toMatchObject({ status: 200 });
  });

  it('a session is refreshed again and again by Redis alone, and D1 gets the refreshes afterwards', async () => {
    const generation = async () => {
      const [row] = await scene.app.sql('SELECT generation FROM sessions WHERE id = ?', user.sessionId);
      return Number(row?.['generation']);
    };
    const before = await generation();
    await loseDatabase();
    for (let round = 0; round < 3; round += 1) {
      const answer = await refresh();
      expect(answer).toMatchObject({ status: 200 });
      expect(degraded(answer)).toBe('refresh=redis');
      expect(answer.body.refresh_token).not.toBe(user.refresh);
      Object.assign(user, signedIn(answer));
      expect(await me()).toMatchObject({ status: 200 });
    }
    await findDatabase();
    expect(await generation()).toBe(before);
    Object.assign(user, signedIn(await refresh()));
    const [, random] = user.sessionId.split('.');
    const rotated = Number(await scene.redis.engine('HGET', `app:session:{${user.id}}.${random}`, 'g'));
    expect(rotated).toBeGreaterThanOrEqual(before + 4);
    await until('D1 has all of them', async () => (await generation()) === rotated);
  });

  it('a user who is not in the cache gets a 503 with Retry-After, and is not signed out', async () => {
    await scene.redis.engine('UNLINK', `app:user:{${user.id}}`);
    await loseDatabase();
    const answer = await me();
    expect(answer).toMatchObject(unavailable);
    expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    const refreshed = await refresh();
    expect(refreshed).toMatchObject({ status: 200 });
    Object.assign(user, signedIn(refreshed));
  });

  it('a session that Redis knows to have ended is refused', async () => {
    const { call } = scene;
    const gone = await scene.signIn(user);
    await endElsewhere(scene, gone, { redisKnows: true });
    await loseDatabase();
    const refused = { status: 401, body: { code: 'TOKEN_REVOKED' } };
    expect(await call('GET', '/v1/users/me', { token: gone.access })).toMatchObject(refused);
    expect(await call('POST', '/v1/auth/refresh', { body: { refresh_token: gone.refresh } })).toMatchObject(refused);
  });

  it('a replay that is found out ends the session at once, and D1 gets that end as soon as it is back', async () => {
    const { call, app, redis } = scene;
    const show = ({ refresh: token }: SignedIn) => call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
    const stolen = await scene.signIn(user);
    const second = signedIn(await show(stolen));
    const newest = signedIn(await show(second));
    const row = () => app.sql('SELECT ended_reason FROM sessions WHERE id = ?', stolen.sessionId);
    await loseDatabase();
    // No response says that a session has ended before D1 has recorded that.
    expect(await show(stolen)).toMatchObject(unavailable);
    expect(await call('GET', '/v1/users/me', { token: newest.access })).toMatchObject({ status: 401 });
    expect(await show(newest)).toMatchObject(unavailable);

    await findDatabase();
    expect(await row()).toEqual([{ ended_reason: null }]);
    expect(await show(newest)).toMatchObject({ status: 401, body: { code: 'TOKEN_REUSED' } });
    expect(await row()).toEqual([{ ended_reason: 'reuse' }]);
    expect(await show(stolen)).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    await redis.engine('FLUSHALL');
    for (const token of [stolen, newest]) expect((await show(token)).status).toBe(401);
  });

  it('requests that need it get a 503 with Retry-After, and no other error', async () => {
    const { call } = scene;
    await loseDatabase();
    const { email, password } = user;
    for (const send of [
      () => call('POST', '/v1/auth/login', { body: { email, password } }),
      () => call('POST', '/v1/auth/register', { body: newcomer() }),
      () => call('POST', '/v1/auth/logout', { token: user.access }),
      () => call('GET', '/v1/sessions', { token: user.access }),
      () => call('PATCH', '/v1/users/me', { token: user.access, body: { name: 'Nobody' } }),
    ]) {
      const answer = await send();
      expect(answer).toMatchObject(unavailable);
      expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    }
    // A logout that did not happen has signed no user out.
    expect(await me()).toMatchObject({ status: 200 });
  });

  it.each([
    ['refusing', { kind: 'refuse' }],
    ['hanging', { kind: 'hang' }],
    ['out of its mind', { kind: 'answer', status: 200, body: '{"result":"OK"}' }],
  ] as const)(
    'and Redis %s as well, no user is signed out or let in, and all responses have a Retry-After',
    async (_, fault) => {
      const { call, redis } = scene;
      await loseDatabase();
      redis.mode = fault;
      const { result: answers, ms } = await timed(() =>
        Promise.all([me(), refresh(), call('GET', '/v1/sessions', { token: user.access })]),
      );
      for (const answer of answers) {
        expect(answer).toMatchObject(unavailable);
        expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
      }
      expect(ms).toBeLessThan(30_000);
      expect(await call('GET', '/ready')).toMatchObject({
        status: 503,
        body: {
          status: 'unready',
          dependencies: { database: { detail: expect.stringContaining('The database is unavailable (') as string } },
        },
      });
      expect(await call('GET', '/health')).toMatchObject({ status: 200 });
      expect(await call('GET', '/v1/users/me')).toMatchObject({
        status: 401,
        body: { code: 'AUTHENTICATION_REQUIRED' },
      });
    },
  );

  it('a run of the cron fails quietly, and forgets nothing', async () => {
    const { app } = scene;
    await loseDatabase();
    await app.scheduled();
    expect(app.logs.join('\n')).toContain('scheduled.failed');
  });
});

describe('with a table missing', () => {
  it('requests that need it get a 500 without Retry-After, and the log names the mistake', async () => {
    const { app, call, redis } = scene;
    await redis.engine('UNLINK', `app:user:{${user.id}}`);
    await app.sql('ALTER TABLE users RENAME TO users_away');
    try {
      const answer = await me();
      expect(answer).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
      expect(answer.headers.get('Retry-After')).toBeNull();
      expect(JSON.stringify(answer.body)).not.toContain('users');
      const login = await call('POST', '/v1/auth/login', { body: { email: user.email, password: user.password } });
      expect(login).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
    } finally {
      await app.sql('ALTER TABLE users_away RENAME TO users');
    }
    const lines = app.logs
      .join('\n')
      .split('\n')
      .filter((line) => line.includes('database.mistake'));
    expect(lines.join('\n')).toContain('no such table: users');
    expect(lines.join('\n')).toContain('from \\"users\\" where \\"users\\".\\"email\\" = ?');
    expect(lines.join('\n')).not.toContain(user.email);
    expect(await me()).toMatchObject({ status: 200 });
  });
});
