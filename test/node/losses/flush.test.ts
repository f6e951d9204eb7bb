import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { EMBEDDED, REDIS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import type { Answer, Call } from '../../support/client.ts';
import { eachOf, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const TRAFFIC_MS = 2_400;
const FLUSHES = 4;
/** Sessions that are ended while it goes on, some right before a flush and some right after. */
const VICTIMS = 40;

describe.each([EMBEDDED, REDIS])('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a Redis that is emptied under traffic', () => {
    let backend: RunningBackend;
    let stage: Stage;

    beforeAll(async () => {
      backend = await start();
      stage = await startStage(backend, { faults: false });
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    test('leaves every session alive, and every revoked token refused', async () => {
      const { isolates, redis } = stage;
      const either = () => isolates[Math.random() < 0.5 ? 0 : 1];
      const people = await stage.people(10, 1 + VICTIMS / 10);
      const held = await eachOf(
        people.map(({ sessions }) => sessions),
        4,
        (sessions) => eachOf(sessions, 2, (session) => wake(either(), session)),
      );
      const clients = held.flatMap((sessions) => sessions.slice(0, 1));
      const victims = held.flatMap((sessions) => sessions.slice(1));

      const flushes: number[] = [];
      const surprises: string[] = [];
      const revoked: Held[] = [];
      let answers = 0;
      const traffic = { over: false };
      const since = () => Math.round(performance.now() - (flushes.at(-1) ?? 0));
      const note = (what: string, { status, body }: Answer) =>
        surprises.push(`${what}, ${since()} ms after flush ${flushes.length}: ${status} ${body?.code ?? ''}`);

      /** A client's day: whatever is asked is answered. */
      async function live(first: Held): Promise<void> {
        let session = first;
        while (!traffic.over) {
          const call = either();
          const token = session.access;
          const read = await Promise.all([me(call, session), call('GET', '/v1/sessions', { token })]);
          for (const answer of read) if (answer.status !== 200) note('signed out', answer);
          const answer = await refresh(either(), session);
          if (answer.status === 200) session = renewed(session, answer);
          else note('not refreshed', answer);
          answers += 3;
          await sleep(5);
        }
      }

      /** Shows tokens that were revoked, again and again, the latest ones most. */
      async function tryRevoked(call: Call): Promise<void> {
        while (!traffic.over) {
          const session = revoked.at(-1 - Math.floor(Math.random() ** 2 * revoked.length));
          if (session !== undefined) {
            for (const answer of [await me(call, session), await refresh(call, session)]) {
              if (answer.status !== 401) note('let in', answer);
              answers += 1;
            }
          } else await sleep(5);
        }
      }

      async function revoke(session: Held): Promise<void> {
        const answer = await isolates[0]('POST', '/v1/auth/logout', { token: session.access });
        if (answer.status === 204) revoked.push(session);
        else note('not signed out', answer);
      }

      async function flush(): Promise<void> {
        for (let round = 0; round < FLUSHES; round += 1) {
          const next = () => victims.splice(0, VICTIMS / FLUSHES / 2);
          await sleep(TRAFFIC_MS / FLUSHES);
          // Before the flush, so that it takes the denial away; and while sessions are being restored.
          await Promise.all(next().map(revoke));
          await redis.engine('FLUSHALL');
          flushes.push(performance.now());
          await Promise.all(next().map(revoke));
        }
        await sleep(300);
        traffic.over = true;
      }

      // What was revoked is tried where that is not remembered.
      await Promise.all([flush(), ...clients.map(live), tryRevoked(isolates[1]), tryRevoked(isolates[1])]);
      expect(surprises).toEqual([]);
      expect(revoked.length).toBe(VICTIMS);
      expect(answers).toBeGreaterThan(200);
    });
  });
});
