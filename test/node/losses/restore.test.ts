import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

import { EMBEDDED, REDIS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import type { WireCommand } from '../../support/faults.ts';
import { REVOKED, eachOf, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

/** For each engine. */
const TRIES = 150;
/** Every so many of them, the client has an access token as well: it restores another part of what Redis has lost. */
const AWAKE = 10;

describe.each([EMBEDDED, REDIS])('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a session that Redis has lost', () => {
    let backend: RunningBackend;
    let stage: Stage;

    beforeAll(async () => {
      backend = await start();
      stage = await startStage(backend);
    });
    afterEach(() => stage.redis.clear());
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    const revoke = async ({ refresh: token }: Held) =>
      expect((await stage.isolates[0]('POST', '/v1/auth/revoke', { body: { token } })).status).toBe(200);

    const forget = ({ id, userId }: Held) =>
      stage.redis.engine('UNLINK', stage.keyOf.session(id), stage.keyOf.blacklist(userId));

    /** Sessions whose record in Redis is not a dead one. */
    async function alive(sessions: readonly Held[]): Promise<Held[]> {
      const { redis, keyOf } = stage;
      const commands = sessions.map(({ id }) => ['HMGET', keyOf.session(id), 'g', 'dead']);
      const records = (await redis.engineAll(commands)) as [string | null, string | null][];
      return sessions.filter((_, index) => {
        const [generation, dead] = records[index]!;
        return generation !== null || dead === null;
      });
    }

    test(`and that is ended while it is restored stays ended, ${TRIES} times`, async () => {
      const [here, there] = stage.isolates;
      const sessions = (await stage.people(TRIES, 1)).map((person) => person.sessions[0]!);
      let restored = 0;
      const ends = await eachOf([...sessions.entries()], 8, async ([index, first]) => {
        let session = first;
        if (index % AWAKE === 0) {
          session = await wake(here, session);
          await forget(session);
        }
        const [answer] = await Promise.all([
          sleep(Math.random() * 5).then(() => refresh(there, session)),
          session.access === '' ? undefined : me(there, session),
          sleep(Math.random() * 5).then(() => revoke(session)),
        ]);
        if (answer.status === 200) restored += 1;
        else expect(answer).toMatchObject(REVOKED);
        const last = answer.status === 200 ? renewed(session, answer) : session;
        expect(await refresh(there, last)).toMatchObject(REVOKED);
        if (last.access !== '') expect(await me(there, last)).toMatchObject(REVOKED);
        return last;
      });
      expect(await alive(ends)).toEqual([]);
      const count =
        'SELECT count(*) AS n FROM sessions WHERE ended_at_ms IS NULL AND id IN (SELECT value FROM json_each(?))';
      expect(await stage.app.sql(count, JSON.stringify(ends.map(({ id }) => id)))).toEqual([{ n: 0 }]);
      // They did meet: of some the restoring came first, of others the end.
      expect(restored).toBeGreaterThan(TRIES / 50);
      expect(restored).toBeLessThan(TRIES - TRIES / 50);
    });

    test('and whose loss, its end and another loss follow each other within a second, stays ended', async () => {
      const [here, there] = stage.isolates;
      const [person] = await stage.people(1, 1);
      const session = await wake(here, person!.sessions[0]!);
      await forget(session);
      expect((await me(there, session)).status).toBe(200);
      await stage.redis.idle();
      await revoke(session);
      await forget(session);
      expect(await me(there, session)).toMatchObject(REVOKED);
    });

    /** The write that restores something of this user, of which D1 was asked before. */
    const restoring =
      ({ userId }: Held) =>
      ([name, ...rest]: WireCommand) =>
        String(name).startsWith('EVAL') && rest.includes(stage.keyOf.blacklist(userId)) && rest.length > 12;

    test('and that is ended between the question to D1 and the restoring write stays ended', async () => {
      const [person] = await stage.people(1, 1);
      const session = person!.sessions[0]!;
      stage.redis.mode = { kind: 'meanwhile', when: restoring(session), times: 1, act: () => revoke(session) };
      expect(await refresh(stage.isolates[1], session)).toMatchObject(REVOKED);
      expect(stage.redis.mode).toEqual({ kind: 'none' });
      expect(await alive([session])).toEqual([]);
    });
  });
});
