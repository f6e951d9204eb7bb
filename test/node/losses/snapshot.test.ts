import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { Call } from '../../support/client.ts';
import { REDIS_MISSING, hasRedisServer, startRedis, until } from '../../support/redisServers.ts';
import type { RedisProcess } from '../../support/redisServers.ts';
import { PASSWORD, REVOKED, me, refresh, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const post = (call: Call, name: string, { access: token }: Held, body?: object) =>
  call('POST', `/v1/auth/${name}`, { token, ...(body !== undefined && { body }) });

/** Revocations of `session`, by another session of its user where that takes one. */
const REVOCATIONS: [string, (call: Call, session: Held, keeper: Held, admin: Held) => Promise<{ status: number }>][] = [
  ['a logout', (call, session) => post(call, 'logout', session)],
  ['a logout everywhere', (call, _, keeper) => post(call, 'logout-all', keeper)],
  [
    'a new password',
    (call, _, keeper) =>
      post(call, 'password', keeper, { currentPassword: PASSWORD, newPassword: 'another horse battery' }),
  ],
  [
    'a disabled account',
    (call, { userId }, _, { access: token }) =>
      call('PATCH', `/v1/users/${userId}`, { token, body: { status: 'disabled' } }),
  ],
];

describe.skipIf(!hasRedisServer)(
  `Redis comes back from a snapshot that is older than both deliveries of a revocation${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  () => {
    let server: RedisProcess;
    let stage: Stage;
    let session: Held;
    let keeper: Held;
    let bystander: Held;
    let admin: Held;

    async function prepare(settings: Record<string, string>): Promise<void> {
      server = await startRedis();
      stage = await startStage({ redisUrl: server.url }, { settings });
      const [here, there] = stage.isolates;
      const [person, other] = await stage.people(2, 2);
      const [boss] = await stage.people(1, 1, { role: 'admin' });
      session = await wake(here, person!.sessions[0]!);
      keeper = await wake(here, person!.sessions[1]!);
      bystander = await wake(here, other!.sessions[0]!);
      admin = await wake(here, boss!.sessions[0]!);
      for (const held of [session, keeper, bystander]) expect((await me(there, held)).status).toBe(200);
      await stage.redis.idle();
      await stage.app.scheduled();
      await server.command('SAVE');
    }

    async function revokeAndGoBack(revoke: (typeof REVOCATIONS)[number][1]): Promise<void> {
      const { app, isolates } = stage;
      expect((await revoke(isolates[0], session, keeper, admin)).status).toBeLessThan(300);
      for (let run = 0; run < 3; run += 1) await app.scheduled();
      const pending = await app.sql("SELECT count(*) AS n FROM outbox WHERE state = 'pending'");
      expect(pending).toEqual([{ n: 0 }]);
      await stage.redis.idle();
      await server.kill();
      await server.restart();
      const answers = () =>
        stage.redis.engine('PING').then(
          () => true,
          () => false,
        );
      await until(answers, 'the gateway has reached Redis again');
      const denied = await stage.redis.engine('HGET', stage.keyOf.blacklist(session.userId), `s:${session.id}`);
      expect(denied).toBeNull();
    }

    afterEach(async () => {
      await stage[Symbol.asyncDispose]();
      await server.stop();
    });

    describe('while no breaker has opened', () => {
      beforeEach(() => prepare({}));

      test.each(REVOCATIONS)(
        '%s: refreshing is refused at once, access with the next run of the cron',
        async (_, revoke) => {
          const { app, isolates } = stage;
          await revokeAndGoBack(revoke);
          for (const isolate of isolates) expect(await refresh(isolate, session)).toMatchObject(REVOKED);
          await app.scheduled();
          for (const isolate of isolates) {
            expect((await me(isolate, session)).status).toBe(401);
            expect(await refresh(isolate, session)).toMatchObject(REVOKED);
            expect((await me(isolate, bystander)).status).toBe(200);
          }
          expect((await refresh(isolates[1], bystander)).status).toBe(200);
          const [state] = await app.sql('SELECT lost_seq, lost_sessions_ms FROM redis_state');
          expect(state).toEqual({ lost_seq: null, lost_sessions_ms: null });
        },
      );

      test('a refresh that D1 refuses writes nothing into the ended session', async () => {
        const { app, isolates } = stage;
        await revokeAndGoBack(REVOCATIONS[0]![1]);
        const row = () => app.sql('SELECT * FROM sessions WHERE id = ?', session.id);
        const before = await row();
        for (let attempt = 0; attempt < 3; attempt += 1)
          expect(await refresh(isolates[1], session)).toMatchObject(REVOKED);
        expect(await row()).toEqual(before);
      });

      test('a snapshot from before the log: the end is delivered again from the sessions’ own rows', async () => {
        const { app, redis } = stage;
        await revokeAndGoBack(REVOCATIONS[0]![1]);
        await app.sql('DELETE FROM outbox');
        await app.scheduled();
        const denied = await redis.engine('HGET', stage.keyOf.blacklist(session.userId), `s:${session.id}`);
        expect(denied).not.toBeNull();
      });
    });

    describe('with an open breaker', () => {
      beforeEach(() =>
        prepare({
          BREAKER_MIN_CALLS: '6',
          BREAKER_WINDOW_MS: '2000',
          BREAKER_PROBE_MS: '100',
          BREAKER_PROBE_MAX_MS: '400',
        }),
      );

      test.each(REVOCATIONS)('%s: is delivered again before Redis is relied upon', async (_, revoke) => {
        const { isolates } = stage;
        const relies = async (call: Call) =>
          ((await call('GET', '/health')).body as { redisAvailable: boolean }).redisAvailable;
        expect((await revoke(isolates[0], session, keeper, admin)).status).toBeLessThan(300);
        for (let run = 0; run < 3; run += 1) await stage.app.scheduled();
        await server.kill();
        for (const isolate of isolates) {
          await until(async () => {
            expect((await me(isolate, session)).status).toBe(401);
            expect((await me(isolate, bystander)).status).toBe(200);
            return !(await relies(isolate));
          }, 'the breaker opens');
        }
        await server.restart();
        for (const isolate of isolates) {
          await until(async () => {
            // At no moment is the old Redis believed.
            expect((await me(isolate, session)).status).toBe(401);
            return relies(isolate);
          }, 'Redis is relied upon again');
          expect((await me(isolate, bystander)).status).toBe(200);
        }
      });
    });
  },
);

describe('the database was restored from a backup', () => {
  let stage: Stage;

  beforeEach(async () => {
    stage = await startStage();
  });
  afterEach(() => stage[Symbol.asyncDispose]());

  test('a login after it gives tokens that work, and revocations go on to count', async () => {
    const { app, isolates } = stage;
    const [here, there] = isolates;
    const [person] = await stage.people(1, 1);
    const first = await wake(here, person!.sessions[0]!);
    for (const _ of [1, 2, 3]) {
      const login = await here('POST', '/v1/auth/login', { body: { email: person!.email, password: PASSWORD } });
      const token = (login.body as { access_token: string }).access_token;
      expect((await here('POST', '/v1/auth/logout-all', { token })).status).toBe(204);
    }
    // What the database was before: an older epoch and access version than Redis and the latest tokens have.
    await app.sql('UPDATE users SET epoch = 1, access_version = 1 WHERE id = ?', person!.id);
    await app.sql('DELETE FROM outbox');

    const login = await here('POST', '/v1/auth/login', { body: { email: person!.email, password: PASSWORD } });
    expect(login.status).toBe(200);
    const { access_token, refresh_token } = login.body as { access_token: string; refresh_token: string };
    for (const isolate of isolates) expect((await me(isolate, { access: access_token })).status).toBe(200);
    const next = await refresh(there, { refresh: refresh_token });
    expect(next.status).toBe(200);
    const { access_token: later } = next.body as { access_token: string };
    expect((await me(here, { access: later })).status).toBe(200);
    expect((await me(there, first)).status).toBe(401);
    expect((await here('POST', '/v1/auth/logout-all', { token: later })).status).toBe(204);
    for (const isolate of isolates) {
      expect((await me(isolate, { access: later })).status).toBe(401);
      expect(await refresh(isolate, { refresh: refresh_token })).toMatchObject(REVOKED);
    }
  });
});
