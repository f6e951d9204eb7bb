import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import { PASSWORD, REVOKED, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** What a busy machine may take between two looks. */
const SLACK_MS = 5_000;

describe.each(BACKENDS)('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a denial in Redis', () => {
    let backend: RunningBackend;
    let stage: Stage;

    beforeAll(async () => {
      backend = await start();
      stage = await startStage(backend);
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    /** A user's denials by field, and when each key that holds them ends (ms since the epoch). */
    async function look(userId: string, sessions: readonly Held[]) {
      const { redis, keyOf } = stage;
      const keys = [keyOf.blacklist(userId), ...sessions.map(({ id }) => keyOf.session(id))];
      const nowMs = Date.now();
      const flat = (await redis.engine('HGETALL', keys[0]!)) as string[];
      const rests = (await redis.engineAll(keys.map((key) => ['PTTL', key]))) as number[];
      const fields = new Map<string, number>();
      for (let index = 0; index < flat.length; index += 2) fields.set(flat[index]!, Number(flat[index + 1]));
      return { fields, ends: new Map(keys.map((key, index) => [key, nowMs + rests[index]!])) };
    }

    test('is never shortened by another end, whatever ends and in whichever order', async () => {
      const { isolates, app, redis, keyOf } = stage;
      const [here, there] = isolates;
      const livesMs = [30 * DAY_MS, HOUR_MS, 20 * DAY_MS, 2 * HOUR_MS, DAY_MS, 10 * DAY_MS, 30 * DAY_MS];
      const [person] = await stage.people(1, livesMs.length, { livesMs });
      const [admin] = await stage.people(1, 1, { role: 'admin' });
      const root = await wake(here, admin!.sessions[0]!);
      const sessions = await Promise.all(person!.sessions.map((session) => wake(here, session)));
      const [first, second, third, fourth, fifth, sixth, keeper] = sessions as [
        Held,
        Held,
        Held,
        Held,
        Held,
        Held,
        Held,
      ];
      // An operator who has shortened the settings since: what lasts longer goes on to.
      await redis.engine('PEXPIRE', keyOf.blacklist(person!.id), 90 * DAY_MS);

      const asked = async (call: Promise<{ status: number }>, status: number) => {
        expect((await call).status).toBe(status);
      };
      const steps: [Held | undefined, () => Promise<void>][] = [
        [first, () => asked(here('POST', '/v1/auth/logout', { token: first.access }), 204)],
        [second, () => asked(here('DELETE', `/v1/sessions/${second.id}`, { token: keeper.access }), 204)],
        [third, () => asked(here('POST', '/v1/auth/revoke', { body: { token: third.refresh } }), 200)],
        [
          fourth,
          async () => {
            const next = renewed(fourth, await refresh(here, fourth));
            await asked(refresh(here, next), 200);
            await asked(refresh(here, fourth), 401);
          },
        ],
        [fifth, () => asked(here('POST', '/v1/auth/logout', { token: fifth.access }), 204)],
        [sixth, () => asked(here('POST', '/v1/auth/revoke', { body: { token: sixth.refresh } }), 200)],
        [undefined, () => asked(here('POST', '/v1/auth/revoke', { body: { token: keeper.access } }), 200)],
        [
          undefined,
          () => asked(here('PATCH', `/v1/users/${person!.id}`, { token: root.access, body: { role: 'admin' } }), 200),
        ],
        [
          undefined,
          () => asked(here('POST', '/v1/auth/login', { body: { email: person!.email, password: PASSWORD } }), 200),
        ],
        // Everything once more, in the order of the outbox's own.
        [
          undefined,
          async () => {
            await app.sql('UPDATE outbox SET due_at_ms = 0');
            await app.scheduled();
          },
        ],
      ];

      const ended: Held[] = [];
      let before = await look(person!.id, sessions);
      for (const [session, step] of steps) {
        await step();
        if (session !== undefined) ended.push(session);
        const after = await look(person!.id, sessions);
        for (const [field, value] of before.fields) {
          expect(after.fields.get(field)).toBeGreaterThanOrEqual(value);
        }
        for (const [key, endMs] of before.ends) expect(after.ends.get(key)).toBeGreaterThan(endMs - SLACK_MS);
        // Each is denied until its own end, and its record lies dead as long.
        for (const { id, expiresAtMs } of ended) {
          expect(after.fields.get(`s:${id}`)).toBe(expiresAtMs);
          expect(after.ends.get(keyOf.session(id))).toBeGreaterThan(expiresAtMs - SLACK_MS);
        }
        before = after;
      }
      for (const session of ended) {
        expect(await me(there, session)).toMatchObject(REVOKED);
        expect(await refresh(there, session)).toMatchObject(REVOKED);
      }
    });

    test('cannot be brought about, nor anything else of a session, by a token that was tampered with', async () => {
      const { isolates, app, redis, keyOf } = stage;
      const [people, strangers] = [await stage.people(1, 1), await stage.people(1, 1)];
      const victim = await wake(isolates[0], people[0]!.sessions[0]!);
      const own = await wake(isolates[1], strangers[0]!.sessions[0]!);
      // form.kid.user.random.generation.epoch.end.MAC
      const parts = victim.refresh.split('.');
      const others = own.refresh.split('.');
      const changed = (index: number, text: string) => parts.map((part, at) => (at === index ? text : part)).join('.');
      const plus = (index: number, by: number) =>
        changed(index, (Number.parseInt(parts[index]!, 36) + by).toString(36));
      const mac = parts[7]!;
      const forged = [
        ...[-1, 1, 2, 100].map((by) => plus(4, by)),
        ...[-1, 1].map((by) => plus(5, by)),
        ...[-1, 1, 36 ** 6].map((by) => plus(6, by)),
        changed(7, others[7]!),
        changed(7, `${mac.slice(0, -1)}${mac.endsWith('A') ? 'B' : 'A'}`),
        changed(7, mac.toLowerCase() === mac ? mac.toUpperCase() : mac.toLowerCase()),
        changed(7, 'A'.repeat(43)),
        changed(1, 'other'),
        changed(0, 'grt2'),
        others.map((part, at) => (at === 2 || at === 3 ? parts[at] : part)).join('.'),
        others.map((part, at) => (at === 2 ? parts[at] : part)).join('.'),
        changed(4, `0${parts[4]}`),
        changed(4, parts[4]!.toUpperCase().replace(/^(\d+)$/, '+$1')),
        `${victim.refresh}.`,
        `${victim.refresh}=`,
        ` ${victim.refresh}`,
      ];

      const state = async () => ({
        keys: await redis.engineAll([
          ['HGETALL', keyOf.session(victim.id)],
          ['HGETALL', keyOf.blacklist(victim.userId)],
        ]),
        row: await app.sql('SELECT * FROM sessions WHERE id = ?', victim.id),
      });
      await redis.idle();
      const before = await state();
      redis.reset();
      for (const token of forged) {
        for (const isolate of isolates) {
          const answer = await isolate('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
          expect([token === victim.refresh, answer.status, answer.body.code]).toEqual([false, 401, 'INVALID_TOKEN']);
          await isolate('POST', '/v1/auth/revoke', { body: { token } });
        }
      }
      await redis.idle();
      // No isolate has asked Redis about it.
      const named = redis.requests.filter(({ commands }) => JSON.stringify(commands).includes(victim.userId));
      expect(named).toEqual([]);
      expect(await state()).toEqual(before);

      const next = renewed(victim, await refresh(isolates[1], victim));
      expect(await redis.engine('HGET', keyOf.session(victim.id), 'g')).toBe('3');
      for (const isolate of isolates) expect((await me(isolate, next)).status).toBe(200);
    });
  });
});
