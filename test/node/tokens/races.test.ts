import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import type { Answer } from '../../support/client.ts';
import { PASSWORD, REVOKED, eachOf, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Person, Stage } from '../../support/stage.ts';

/** 2 users × 12 sessions ended one by one, and 4 × 12 for each of three ways to end them all: 168 races on each engine. */
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

    const soon = (withinMs: number) => sleep(Math.random() * withinMs);

    /** A refresh at some moment, in the isolate that does not revoke. */
    async function refreshSoon(session: Held, withinMs: number): Promise<Race> {
      await soon(withinMs);
      const answer = await refresh(stage.isolates[1], session);
      if (answer.status !== 200) expect(answer).toMatchObject(REVOKED);
      return answer.status === 200 ? { tokens: renewed(session, answer), won: true } : { tokens: session, won: false };
    }

    /** How long a revocation of one kind takes at the moment: refreshes come at any time within it. */
    let takesMs = 0;

    async function timed(ending: () => Promise<Answer>, status: number): Promise<Answer> {
      const startMs = performance.now();
      const answer = await ending();
      takesMs = 0.7 * takesMs + 0.3 * (performance.now() - startMs);
      expect(answer.status).toBe(status);
      return answer;
    }

    /** Each session's own end, while it is refreshed. */
    const oneByOne =
      (end: (session: Held, keeper: Held) => Promise<Answer>) => (sessions: readonly Held[], keeper: Held) =>
        eachOf(sessions, 6, async (session) => {
          const race = refreshSoon(session, 1.2 * takesMs);
          await timed(() => end(session, keeper), 204);
          return race;
        });

    /** One end for all of them, while they are refreshed. */
    async function allAtOnce(sessions: readonly Held[], status: number, end: () => Promise<Answer>) {
      const races = sessions.map((session) => refreshSoon(session, Math.max(20, 1.5 * takesMs)));
      const answer = await timed(end, status);
      return { races: await Promise.all(races), answer };
    }

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
        4,
        'logout everywhere',
        async (_, keeper, sessions) => {
          const { races } = await allAtOnce(sessions, 204, () => post('logout-all', keeper));
          return races;
        },
      ],
      [
        4,
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
        4,
        'the end of the account by an admin',
        async ({ id }, _, sessions) => {
          const { races } = await allAtOnce(sessions, 200, () =>
            stage.isolates[0]('PATCH', `/v1/users/${id}`, { token: admin.access, body: { status: 'disabled' } }),
          );
          return races;
        },
      ],
    ])(`%i times ${SESSIONS} with %s: nothing is left alive`, { retry: 0 }, async (users, _, revoke) => {
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
      // They did meet: some were first, and some were not.
      const won = races.filter((race) => race.won).length;
      expect(won).toBeGreaterThan(0);
      expect(won).toBeLessThan(races.length);
    });

    const post = (name: string, { access: token }: Held, body?: object) =>
      stage.isolates[0]('POST', `/v1/auth/${name}`, { token, ...(body !== undefined && { body }) });
  });
});
