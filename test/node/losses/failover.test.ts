import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startLink } from '../../support/link.ts';
import { REDIS_MISSING, hasRedisServer, startRedis, until } from '../../support/redisServers.ts';
import { PASSWORD, REVOKED, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const NEW_PASSWORD = 'another horse battery';

/**
 * A master and its replica, to which writes do not get through any more from a certain moment on; then the master dies,
 * and the replica is promoted.
 */
async function startPair() {
  const master = await startRedis();
  const wire = await startLink(master.port);
  const replica = await startRedis('--replicaof', '127.0.0.1', String(wire.port));
  const front = await startLink(master.port);
  const offset = async (server: typeof master) =>
    /(?:slave_repl_offset|master_repl_offset):(\d+)/.exec(String(await server.command('INFO', 'replication')))?.[1];
  return {
    redisUrl: `redis://127.0.0.1:${front.port}`,
    async holdBack() {
      await until(async () => (await offset(master)) === (await offset(replica)), 'the replica has everything');
      wire.hold();
    },
    async failOver() {
      await master.kill();
      await replica.command('REPLICAOF', 'NO', 'ONE');
      front.to(replica.port);
    },
    async [Symbol.asyncDispose]() {
      for (const link of [wire, front]) await link[Symbol.asyncDispose]();
      for (const server of [master, replica]) await server.stop();
    },
  };
}

describe.skipIf(!hasRedisServer)(
  `a failover that loses the latest writes${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  () => {
    let pair: Awaited<ReturnType<typeof startPair>>;
    let stage: Stage;

    // One story in four parts; each needs the ones before it.
    let owner: Record<'rotated' | 'twice' | 'lost' | 'out' | 'stolen', Held>;
    let lostAnswer: Held;
    let newcomer: Held;
    let changer: Held;
    let changersOther: Held;
    let promoted: Held;

    beforeAll(async () => {
      pair = await startPair();
      stage = await startStage(pair);
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await pair[Symbol.asyncDispose]();
    });

    test('takes rotations, logins and revocations back', async () => {
      const { isolates, app, redis, keyOf } = stage;
      const [here] = isolates;
      const [one, two, three, admin] = await stage.people(4, 5);
      await app.sql("UPDATE users SET role = 'admin' WHERE id = ?", admin!.id);
      const awake = (sessions: readonly Held[]) => Promise.all(sessions.map((session) => wake(here, session)));
      const [rotated, twice, lost, out, stolen] = await awake(one!.sessions);
      owner = { rotated: rotated!, twice: twice!, lost: lost!, out: out!, stolen: stolen! };
      [changer, changersOther] = (await awake(two!.sessions.slice(0, 2))) as [Held, Held];
      promoted = await wake(here, three!.sessions[0]!);
      const root = await wake(here, admin!.sessions[0]!);
      const stolenNext = renewed(owner.stolen, await refresh(here, owner.stolen));
      for (const isolate of isolates) {
        for (const session of [...Object.values(owner), changer, changersOther, promoted]) {
          expect((await me(isolate, session)).status).toBe(200);
        }
      }

      await redis.idle();
      await pair.holdBack();
      owner.rotated = renewed(owner.rotated, await refresh(here, owner.rotated));
      for (let round = 0; round < 2; round += 1) {
        owner.twice = renewed(owner.twice, await refresh(here, owner.twice));
        expect((await me(here, owner.twice)).status).toBe(200);
      }
      lostAnswer = renewed(owner.lost, await refresh(here, owner.lost));
      expect((await here('POST', '/v1/auth/logout', { token: owner.out.access })).status).toBe(204);
      const newest = renewed(stolenNext, await refresh(here, stolenNext));
      expect(await refresh(here, owner.stolen)).toMatchObject({ status: 401, body: { code: 'TOKEN_REUSED' } });
      owner.stolen = newest;
      const body = { email: one!.email, password: PASSWORD };
      newcomer = renewed({ ...owner.out, id: 'new' }, await here('POST', '/v1/auth/login', { body }));
      changer = renewed(
        changer,
        await here('POST', '/v1/auth/password', {
          token: changer.access,
          body: { currentPassword: PASSWORD, newPassword: NEW_PASSWORD },
        }),
      );
      const change = { token: root.access, body: { role: 'admin' } };
      expect((await here('PATCH', `/v1/users/${three!.id}`, change)).status).toBe(200);
      expect(await redis.engine('HGET', keyOf.blacklist(one!.id), `s:${owner.out.id}`)).not.toBeNull();
      await redis.idle();

      await pair.failOver();
      await until(async () => (await redis.engine('PING').catch(() => undefined)) === 'PONG', 'Redis is back');
      // It is as it was: the rotations and the revocations are gone.
      expect(await redis.engine('HGET', keyOf.session(owner.rotated.id), 'g')).toBe('2');
      expect(await redis.engine('HGET', keyOf.blacklist(one!.id), `s:${owner.out.id}`)).toBeNull();
      expect(await redis.engine('HGET', keyOf.blacklist(two!.id), 'ep')).toBe('1');
    });

    test('refuses no client: one with the newer token goes on, in either isolate', async () => {
      const [here, there] = stage.isolates;
      for (const name of ['rotated', 'twice'] as const) {
        expect((await me(there, owner[name])).status).toBe(200);
        for (const isolate of [there, here]) {
          owner[name] = renewed(owner[name], await refresh(isolate, owner[name]));
          expect((await me(isolate, owner[name])).status).toBe(200);
        }
      }
      newcomer = renewed(newcomer, await refresh(there, newcomer));
      changer = renewed(changer, await refresh(there, changer));
      for (const session of [newcomer, changer]) {
        for (const isolate of [there, here]) expect((await me(isolate, session)).status).toBe(200);
      }
    });

    test('and whose answer was lost gets the same successor again', async () => {
      const [here, there] = stage.isolates;
      expect(renewed(owner.lost, await refresh(there, owner.lost)).refresh).toBe(lostAnswer.refresh);
      owner.lost = renewed(lostAnswer, await refresh(here, lostAnswer));
      expect((await me(there, owner.lost)).status).toBe(200);
    });

    test('a revoked token stays refused in the isolate that revoked it, and everywhere with the next delivery', async () => {
      const { app, isolates } = stage;
      const [here, there] = isolates;
      const dead = [owner.out, owner.stolen, changersOther];
      for (const session of dead) {
        expect(await me(here, session)).toMatchObject(REVOKED);
        expect((await refresh(here, session)).status).toBe(401);
      }
      // The other one cannot know. Whatever it gives away until then is worth nothing afterwards.
      const meanwhile = await refresh(there, owner.out);
      if (meanwhile.status === 200) dead.push(renewed(owner.out, meanwhile));

      // A minute later.
      await app.sql('UPDATE outbox SET due_at_ms = due_at_ms - 61000');
      await app.scheduled();
      for (const session of dead) {
        for (const isolate of isolates) {
          expect(await me(isolate, session)).toMatchObject(REVOKED);
          expect((await refresh(isolate, session)).status).toBe(401);
        }
      }
      for (const isolate of isolates) {
        expect(await me(isolate, promoted)).toMatchObject({ status: 401, body: { code: 'TOKEN_SUPERSEDED' } });
      }
      promoted = renewed(promoted, await refresh(there, promoted));
      expect((await there('GET', '/v1/users', { token: promoted.access })).status).toBe(200);
      // No other session is harmed.
      for (const session of [owner.rotated, owner.twice, owner.lost, newcomer, changer]) {
        for (const isolate of isolates) expect((await me(isolate, session)).status).toBe(200);
        expect((await refresh(there, session)).status).toBe(200);
      }
      expect(await app.sql("SELECT id FROM outbox WHERE state = 'pending'")).toEqual([]);
    });
  },
);
