import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import type { Call } from '../../support/client.ts';
import { until } from '../../support/redisServers.ts';
import { REVOKED, age, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const HOUR_MS = 3_600_000;
/** The product's grace is 30 s. */
const PAST_GRACE_MS = 31_000;
const REUSED = { status: 401, body: { code: 'TOKEN_REUSED' } };

describe.each(BACKENDS)('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a refresh token that is shown again', () => {
    let backend: RunningBackend;
    let stage: Stage;
    /** Two who hold the same token, in isolates of their own. */
    let here: Call;
    let there: Call;

    beforeAll(async () => {
      backend = await start();
      stage = await startStage(backend);
      [here, there] = stage.isolates;
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    async function session(): Promise<Held> {
      const [person] = await stage.people(1, 1);
      return wake(here, person!.sessions[0]!);
    }

    const confirmed = async ({ id }: Held) => Number(await stage.redis.engine('HGET', stage.keyOf.session(id), 'c'));
    const row = async ({ id }: Held) => (await stage.app.sql('SELECT * FROM sessions WHERE id = ?', id))[0];

    /** Shows an access token, and waits until Redis knows that it has arrived. */
    async function use(call: Call, held: Held, generation: number): Promise<void> {
      expect((await me(call, held)).status).toBe(200);
      await until(async () => (await confirmed(held)) >= generation, 'the use is noted');
    }

    /** Neither the newest token of the family nor any older one is good for anything, anywhere. */
    async function expectFamilyDead(...tokens: Held[]): Promise<void> {
      for (const isolate of [here, there]) {
        for (const held of tokens) {
          expect(await me(isolate, held)).toMatchObject(REVOKED);
          expect(await refresh(isolate, held)).toMatchObject(REVOKED);
        }
      }
      expect(await row(tokens[0]!)).toMatchObject({ ended_reason: 'reuse', ended_at_ms: expect.any(Number) });
    }

    test('a hundred times at once, in two isolates, is one generation with one successor', async () => {
      const { isolates, redis, app, keyOf } = stage;
      const before = await session();
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, index) => refresh(isolates[index % 2 === 0 ? 0 : 1], before)),
      );
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
      expect(answers.filter(({ headers }) => headers.has('Gatehouse-Degraded'))).toEqual([]);
      const [successor, ...others] = new Set(answers.map(({ body }) => body.refresh_token as string));
      expect(others).toEqual([]);
      expect(successor).not.toBe(before.refresh);

      // The session woke with generation 2: this is the third, for all hundred.
      expect(await redis.engine('HMGET', keyOf.session(before.id), 'g', 'c')).toEqual(['3', '2']);
      await until(async () => {
        const [row] = await app.sql('SELECT generation FROM sessions WHERE id = ?', before.id);
        return row?.['generation'] === 3;
      }, 'D1 has it');

      // Of the hundred access tokens one is good, in both isolates.
      const held = answers.map((answer) => renewed(before, answer));
      for (const isolate of isolates) {
        const codes = await Promise.all(held.map(async (one) => String((await me(isolate, one)).body.code ?? 'ok')));
        expect(codes.filter((code) => code === 'ok')).toHaveLength(1);
        expect(codes.filter((code) => code === 'TOKEN_SUPERSEDED')).toHaveLength(99);
      }
      // Whichever answer arrived, the client goes on with it: a superseded token is one to refresh.
      const last = held.at(-1)!;
      const next = renewed(last, await refresh(isolates[1], last));
      expect(await redis.engine('HGET', keyOf.session(before.id), 'g')).toBe('4');
      expect((await me(isolates[0], next)).status).toBe(200);
    });

    test('after an hour without a sign of its successor gives that same successor', async () => {
      const before = await session();
      const lost = renewed(before, await refresh(here, before));
      await age(stage, before, HOUR_MS);
      const retried = renewed(before, await refresh(there, before));
      expect(retried.refresh).toBe(lost.refresh);
      await age(stage, before, HOUR_MS);
      const again = renewed(before, await refresh(here, before));
      expect(again.refresh).toBe(lost.refresh);

      // And the client goes on as if nothing had happened.
      await use(there, again, 3);
      const next = renewed(again, await refresh(there, again));
      expect(next.refresh).not.toBe(again.refresh);
      await use(here, next, 4);
    });

    test('and once more when Redis has been emptied meanwhile', async () => {
      const before = await session();
      const lost = renewed(before, await refresh(here, before));
      await until(async () => (await row(before))?.['generation'] === 3, 'D1 has it');
      await stage.redis.engine('FLUSHALL');
      expect(renewed(before, await refresh(there, before)).refresh).toBe(lost.refresh);
    });

    test('within 30 seconds of its successor’s first use gives that successor, and not later', async () => {
      const before = await session();
      const after = renewed(before, await refresh(here, before));
      await use(here, after, 3);
      await age(stage, before, 20_000);
      expect(renewed(before, await refresh(there, before)).refresh).toBe(after.refresh);
      await age(stage, before, 11_000);
      expect(await refresh(there, before)).toMatchObject(REUSED);
      await expectFamilyDead(after, before);
    });

    test.each([
      ['access', async (call: Call, held: Held) => (await use(call, held, 3), held)],
      ['refresh', async (call: Call, held: Held) => renewed(held, await refresh(call, held))],
    ])('by a thief, after the owner has used its successor’s %s token, ends the session', async (_, goOn) => {
      const stolen = await session();
      const owners = renewed(stolen, await refresh(here, stolen));
      const newest = await goOn(here, owners);
      await age(stage, stolen, PAST_GRACE_MS);
      expect(await refresh(there, stolen)).toMatchObject(REUSED);
      await expectFamilyDead(newest, owners, stolen);
    });

    test.each([
      ['access', async (call: Call, held: Held) => (await use(call, held, 3), held)],
      ['refresh', async (call: Call, held: Held) => renewed(held, await refresh(call, held))],
    ])('by the owner, after a thief has used its successor’s %s token, ends the session', async (_, goOn) => {
      const own = await session();
      const thiefs = renewed(own, await refresh(there, own));
      const newest = await goOn(there, thiefs);
      await age(stage, own, PAST_GRACE_MS);
      expect(await refresh(here, own)).toMatchObject(REUSED);
      await expectFamilyDead(newest, thiefs, own);
    });

    test('two generations late ends the session at once, and says so to the operator without the token', async () => {
      const stolen = await session();
      const second = renewed(stolen, await refresh(here, stolen));
      const third = renewed(second, await refresh(here, second));
      expect(await refresh(there, stolen)).toMatchObject(REUSED);
      await expectFamilyDead(third, second, stolen);
      const logs = stage.app.logs.filter((line) => line.includes('audit.refresh_reuse'));
      expect(logs.some((line) => line.includes(stolen.id))).toBe(true);
      expect(stage.app.logs.join('\n')).not.toContain(stolen.refresh);
      expect(stage.app.logs.join('\n')).not.toContain(third.access);
    });

    test.each([
      ['the thief first', 0],
      ['the owner first', 1],
    ])(
      'by a thief who keeps still, %s: of their two access tokens one is good, at each of 5 refreshes',
      async (_, first) => {
        let shared = await session();
        for (let cycle = 0; cycle < 5; cycle += 1) {
          const answers = [
            await refresh(first === 0 ? there : here, shared),
            await refresh(first === 0 ? here : there, shared),
          ];
          const [earlier, later] = answers.map((answer) => renewed(shared, answer));
          expect(later!.refresh).toBe(earlier!.refresh);
          for (const isolate of [here, there]) {
            expect((await me(isolate, later!)).status).toBe(200);
            expect(await me(isolate, earlier!)).toMatchObject({ status: 401, body: { code: 'TOKEN_SUPERSEDED' } });
          }
          shared = later!;
        }
      },
    );

    test('by a thief who goes on with the newer token: the owner is refused, and the next refresh finds the thief out', async () => {
      const own = await session();
      const owners = renewed(own, await refresh(here, own));
      const thiefs = renewed(own, await refresh(there, own));
      // The thief reads on; the owner gets a 401 and refreshes, which ends the thief's token as well.
      expect((await me(there, thiefs)).status).toBe(200);
      expect((await me(here, owners)).body.code).toBe('TOKEN_SUPERSEDED');
      const next = renewed(owners, await refresh(here, owners));
      expect((await me(here, next)).status).toBe(200);
      expect((await me(there, thiefs)).body.code).toBe('TOKEN_SUPERSEDED');
      await until(async () => (await confirmed(own)) >= 4, 'the use is noted');
      await age(stage, own, PAST_GRACE_MS);
      expect(await refresh(there, thiefs)).toMatchObject(REUSED);
      await expectFamilyDead(next, own);
      for (const held of [thiefs, owners]) expect((await me(here, held)).status).toBe(401);
    });

    test('ends the earlier token also where Redis forgets, before and after', async () => {
      const before = await session();
      const lost = renewed(before, await refresh(here, before));
      await until(async () => (await row(before))?.['generation'] === 3, 'D1 has it');
      await stage.redis.engine('FLUSHALL');
      const retried = renewed(before, await refresh(there, before));
      for (const isolate of [here, there]) expect((await me(isolate, lost)).body.code).toBe('TOKEN_SUPERSEDED');
      // D1 had it before the response.
      const [denied] = await stage.app.sql('SELECT count(*) AS n FROM revoked_tokens WHERE user_id = ?', before.userId);
      expect(denied).toEqual({ n: 1 });
      await stage.redis.engine('FLUSHALL');
      for (const isolate of [here, there]) {
        expect((await me(isolate, lost)).body.code).toBe('TOKEN_SUPERSEDED');
        expect((await me(isolate, retried)).status).toBe(200);
      }
    });

    test('and to an honest client that retries ten times costs nothing: it goes on with the newest', async () => {
      let held = await session();
      for (let cycle = 0; cycle < 3; cycle += 1) {
        const shown = held;
        for (let retry = 0; retry < 10; retry += 1)
          held = renewed(shown, await refresh(retry % 2 === 0 ? here : there, shown));
        await use(here, held, cycle + 3);
        expect((await me(there, held)).status).toBe(200);
      }
    });

    test('ends its own session only', async () => {
      const [person] = await stage.people(1, 2);
      const [victim, other] = await Promise.all(person!.sessions.map((held) => wake(here, held)));
      const second = renewed(victim!, await refresh(here, victim!));
      await refresh(here, second);
      expect(await refresh(there, victim!)).toMatchObject(REUSED);
      for (const isolate of [here, there]) expect((await me(isolate, other!)).status).toBe(200);
      expect((await refresh(there, other!)).status).toBe(200);
    });
  });
});
