import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { newcomer } from '../../support/client.ts';
import { degraded, signedIn, startScene, timed, untilRecovered } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

const TABLES = ['users', 'sessions', 'outbox'];

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene();
  user = await scene.newAccount();
  await me();
});
afterAll(() => scene[Symbol.asyncDispose]());
afterEach(async () => {
  for (const table of TABLES) await scene.app.sql(`ALTER TABLE ${table}_away RENAME TO ${table}`);
  await scene.redis.clear();
  await untilRecovered(scene, user.access);
});

const me = () => scene.call('GET', '/v1/users/me', { token: user.access });
const refresh = () => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } });

/** Every query fails from now on. */
async function loseDatabase(): Promise<void> {
  for (const table of TABLES) await scene.app.sql(`ALTER TABLE ${table} RENAME TO ${table}_away`);
}

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

  it('what needs it says that it is away for a while, and nothing else', async () => {
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
    // Nobody was signed out by a logout that did not happen.
    expect(await me()).toMatchObject({ status: 200 });
  });

  it.each([
    ['refusing', { kind: 'refuse' }],
    ['hanging', { kind: 'hang' }],
    ['out of its mind', { kind: 'answer', status: 200, body: '{"result":"OK"}' }],
  ] as const)(
    'and Redis %s as well, nobody is signed out, nobody is let in, and all say when to come back',
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
      expect(ms).toBeLessThan(3_000);
      expect(await call('GET', '/ready')).toMatchObject({ status: 503, body: { status: 'unready' } });
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
