import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import type { RunningBackend } from '../../support/backends.ts';
import { PASSWORD, REVOKED, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Person, Stage } from '../../support/stage.ts';

const NAME = 'Grace Brewster Murray Hopper';

describe.each(BACKENDS)('on $name', ({ missing, start }) => {
  describe.skipIf(missing)('a deleted account', () => {
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

    /** Every key of Redis with its value. */
    async function everything(): Promise<string> {
      const { redis } = stage;
      const keys = (await redis.engine('KEYS', '*')) as string[];
      const types = (await redis.engineAll(keys.map((key) => ['TYPE', key]))) as string[];
      const values = await redis.engineAll(
        keys.map((key, index) => (types[index] === 'hash' ? ['HGETALL', key] : ['GET', key])),
      );
      expect(types.filter((type) => type !== 'hash' && type !== 'string')).toEqual([]);
      return keys.map((key, index) => `${key} ${JSON.stringify(values[index])}`).join('\n');
    }

    /** Every row of D1. */
    async function everyRow(): Promise<string> {
      const tables = await stage.app.sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_cf%' ESCAPE '\\'",
      );
      const rows = await Promise.all(tables.map(({ name }) => stage.app.sql(`SELECT * FROM "${String(name)}"`)));
      return JSON.stringify(rows);
    }

    /** An account that has left traces wherever it can. */
    async function traced(): Promise<{ person: Person; root: Held; sessions: Held[] }> {
      const { isolates, app, redis } = stage;
      const [here, there] = isolates;
      const [person] = await stage.people(1, 4);
      const [admin] = await stage.people(1, 1, { role: 'admin' });
      const root = await wake(here, admin!.sessions[0]!);
      await app.sql('UPDATE users SET name = ? WHERE id = ?', NAME, person!.id);
      const [first, second, third, fourth] = person!.sessions as [Held, Held, Held, Held];

      // A session that ended alone, two that ended with others, and the one that goes on.
      const single = await wake(here, first);
      await wake(there, second);
      await wake(there, third);
      const keeper = await wake(here, fourth);
      expect((await here('POST', '/v1/auth/logout', { token: single.access })).status).toBe(204);
      const body = { currentPassword: PASSWORD, newPassword: 'another horse battery' };
      const changed = await here('POST', '/v1/auth/password', { token: keeper.access, body });
      const current = renewed(keeper, changed);
      // Lists, searches by name and by address, and the account itself, in both isolates.
      for (const call of isolates) {
        expect((await me(call, current)).body).toMatchObject({ name: NAME, email: person!.email });
        for (const query of ['?limit=100', `?q=${encodeURIComponent(person!.email)}`, '?q=hopper', '?page=1&limit=5']) {
          expect((await call('GET', `/v1/users${query}`, { token: root.access })).status).toBe(200);
        }
        expect((await call('GET', `/v1/users/${person!.id}`, { token: root.access })).status).toBe(200);
      }
      await here('POST', '/v1/auth/recovery', { body: { email: person!.email } });
      // A one-time token, as a mail would have brought it.
      await app.sql(
        `INSERT INTO one_time_tokens (hash, purpose, user_id, email, created_at_ms, expires_at_ms)
         VALUES (?, 'recovery', ?, ?, ?, ?)`,
        `hash of ${person!.id}`,
        person!.id,
        person!.email,
        Date.now(),
        Date.now() + 600_000,
      );
      await redis.idle();
      return { person: person!, root, sessions: [single, current] };
    }

    test('leaves no e-mail address and no name in any key or value of Redis, nor in D1', async () => {
      const { isolates, redis } = stage;
      const [here, there] = isolates;
      const { person, root, sessions } = await traced();
      const before = await everything();
      expect(before).toContain(person.email);
      expect(before).toContain(NAME);
      // Sessions that ended with others have records still: that is what a deletion must find.
      expect(before.split('\n').filter((line) => line.includes(person.email)).length).toBeGreaterThan(2);

      expect((await here('DELETE', '/v1/users/me', { token: sessions[1]!.access })).status).toBe(204);
      await redis.idle();
      for (const look of [everything, everyRow]) {
        const found = await look();
        expect(found).not.toContain(person.email);
        expect(found).not.toContain(NAME);
      }

      // Nothing brings it back.
      for (const call of isolates) {
        for (const session of sessions) {
          expect(await refresh(call, session)).toMatchObject(REVOKED);
          expect(await me(call, session)).toMatchObject(REVOKED);
        }
        const list = await call('GET', '/v1/users?limit=100', { token: root.access });
        expect(JSON.stringify(list.body)).not.toContain(person.email);
        expect((await call('GET', '/v1/users?q=hopper', { token: root.access })).body).toMatchObject({ total: 0 });
        expect((await call('GET', `/v1/users/${person.id}`, { token: root.access })).status).toBe(404);
      }
      await there('POST', '/v1/auth/recovery', { body: { email: person.email } });
      await redis.idle();
      expect(await everything()).not.toContain(person.email);
    });

    test('is deleted for good while it logs in at the same moment', async () => {
      const { isolates, redis, app } = stage;
      const [here, there] = isolates;
      const [person] = await stage.people(1, 1);
      const session = await wake(here, person!.sessions[0]!);
      const login = () => there('POST', '/v1/auth/login', { body: { email: person!.email, password: PASSWORD } });
      const [deleted, ...logins] = await Promise.all([
        here('DELETE', '/v1/users/me', { token: session.access }),
        login(),
        login(),
        login(),
      ]);
      // Overtaken three times in a row it says so, and is asked again.
      if (deleted.status === 503) {
        const again = logins.find(({ status }) => status === 200)!.body as { access_token: string };
        expect((await here('DELETE', '/v1/users/me', { token: again.access_token })).status).toBe(204);
      } else expect(deleted.status).toBe(204);
      await redis.idle();
      expect(await app.sql('SELECT id FROM users WHERE id = ?', person!.id)).toEqual([]);
      expect(await everything()).not.toContain(person!.email);
      for (const { status, body } of logins) {
        if (status !== 200) continue;
        const { access_token: token } = body as { access_token: string };
        expect(await there('GET', '/v1/users/me', { token })).toMatchObject({ status: 401 });
      }
    });
  });
});
