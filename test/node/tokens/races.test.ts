import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import type { Answer } from '../../support/client.ts';
import { PASSWORD, REVOKED, eachOf, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Person, Stage } from '../../support/stage.ts';

/**
 * 2 users × 12 sessions ended one by one, and 2 × 12 for each of three ways to end them all: 96 races on each engine. The
 * simulator tries far more orders.
 */
const SESSIONS = 12;

describe.each(BACKENDS)('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a refresh against a revocation, in two isolates', () => {
    let backend: RunningBackend;
    let stage: Stage;
    let admin: Held;

    beforeAll(async () => {
      backend = await start();
      stage = await startStage(backend, { faults: false });
      const [person] = await stage.people(1, 1, { role: 'admin' });
      admin = await wake(stage.isolates[0], person!.sessions[0]!);
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    /** What a session's client has in the end, and whether the race was its refresh's. */
    interface Race {
      tokens: Held;
      won: boolean;
    }

    /** A refresh in the isolate that does not revoke. */
    async function raceOf(session: Held): Promise<Race> {
      const answer = await refresh(stage.isolates[1], session);
      if (answer.status !== 200) expect(answer).toMatchObject(REVOKED);
      return answer.status === 200 ? { tokens: renewed(session, answer), won: true } : { tokens: session, won: false };
    }

    /** How long a revocation of one kind takes at the moment: refreshes come at any time within it. */
    let takesMs = 0;

    /** Ends something while sessions are refreshed: the first of `all` before it, the last after it, the others at any time. */
    async function meet(sessions: readonly Held[], all: readonly Held[], end: () => Promise<Answer>, status: number) {
      const ended = Promise.withResolvers<void>();
      const [first, last] = [all[0], all.at(-1)];
      const races = sessions.map(async (session) => {
        if (session === first) return raceOf(session);
        if (session === last) return ended.promise.then(() => raceOf(session));
        await sleep(Math.random() * Math.max(20, 1.5 * takesMs));
        return raceOf(session);
      });
      if (sessions.includes(first!)) await races[sessions.indexOf(first!)];
      const startMs = performance.now();
      const answer = await end();
      takesMs = 0.7 * takesMs + 0.3 * (performance.now() - startMs);
      ended.resolve();
      expect(answer.status).toBe(status);
      return { races: await Promise.all(races), answer };
    }

    /** Each session's own end, while it is refreshed. */
    const oneByOne =
      (end: (session: Held, keeper: Held) => Promise<Answer>) => async (sessions: readonly Held[], keeper: Held) => {
        const met = await eachOf(sessions, 6, (session) => meet([session], sessions, () => end(session, keeper), 204));
        return met.flatMap(({ races }) => races);
      };

    /** One end for all of them, while they are refreshed. */
    const allAtOnce = (sessions: readonly Held[], status: number, end: () => Promise<Answer>) =>
      meet(sessions, sessions, end, status);

    /** Nothing that any answer gave is of any use, and neither store has a live session. */
    async function expectAllDead(sessions: readonly Held[], races: readonly Race[]): Promise<void> {
      const { isolates, redis, app, keyOf } = stage;
      await eachOf(races, 8, async ({ tokens }) => {
        expect(await me(isolates[1], tokens)).toMatchObject(REVOKED);
        expect(await refresh(isolates[1], tokens)).toMatchObject(REVOKED);
      });
      const found = await redis.engineAll(
        sessions.flatMap(({ id, userId }) => [
          ['HMGET', keyOf.session(id), 'g', 'dead', 'ep'],
          ['HMGET', keyOf.blacklist(userId), `s:${id}`, 'ep'],
        ]),
      );
      const live = sessions.filter((_, index) => {
        const [generation, dead, epoch] = found[2 * index] as (string | null)[];
        const [denied, userEpoch] = found[2 * index + 1] as (string | null)[];
        return generation !== null && dead === null && denied === null && Number(epoch) >= Number(userEpoch);
      });
      expect(live).toEqual([]);
      const alive = await app.sql(
        'SELECT id FROM sessions WHERE ended_at_ms IS NULL AND id IN (SELECT value FROM json_each(?))',
        JSON.stringify(sessions.map(({ id }) => id)),
      );
      expect(alive).toEqual([]);
    }

    test.each<[number, string, (person: Person, keeper: Held, sessions: readonly Held[]) => Promise<Race[]>]>([
      [1, 'logout', (_, keeper, sessions) => oneByOne((session) => post('logout', session))(sessions, keeper)],
      [
        1,
        'the end of another device',
        (_, keeper, sessions) =>
          oneByOne((session, { access }) =>
            stage.isolates[0]('DELETE', `/v1/sessions/${session.id}`, { token: access }),
          )(sessions, keeper),
      ],
      [
        2,
        'logout everywhere',
        async (_, keeper, sessions) => {
          const { races } = await allAtOnce(sessions, 204, () => post('logout-all', keeper));
          return races;
        },
      ],
      [
        2,
        'a change of the password',
        async (_, keeper, sessions) => {
          const body = { currentPassword: PASSWORD, newPassword: 'another horse battery' };
          const { races, answer } = await allAtOnce(sessions, 200, () => post('password', keeper, body));
          // The session that made it goes on, in either isolate.
          const own = renewed(keeper, answer);
          for (const isolate of stage.isolates) expect((await me(isolate, own)).status).toBe(200);
          expect((await refresh(stage.isolates[1], own)).status).toBe(200);
          return races;
        },
      ],
      [
        2,
        'the end of the account by an admin',
        async ({ id }, _, sessions) => {
          const { races } = await allAtOnce(sessions, 200, () =>
            stage.isolates[0]('PATCH', `/v1/users/${id}`, { token: admin.access, body: { status: 'disabled' } }),
          );
          return races;
        },
      ],
    ])(`%i times ${SESSIONS} with %s: nothing is left alive`, async (users, _, revoke) => {
      takesMs = 0;
      const people = await stage.people(users, SESSIONS + 1);
      const outcomes = await eachOf(people, 2, async (person) => {
        const [keeper, ...sessions] = await eachOf(person.sessions, 8, (session) => wake(stage.isolates[1], session));
        const races = await revoke(person, keeper!, sessions);
        await expectAllDead(sessions, races);
        return races;
      });
      const races = outcomes.flat();
      expect(races.length).toBe(users * SESSIONS);
      // Of each user one refresh at least came first, and one did not.
      const won = races.filter((race) => race.won).length;
      expect(won).toBeGreaterThanOrEqual(users);
      expect(won).toBeLessThanOrEqual(races.length - users);
    });

    const post = (name: string, { access: token }: Held, body?: object) =>
      stage.isolates[0]('POST', `/v1/auth/${name}`, { token, ...(body !== undefined && { body }) });
  });
});
