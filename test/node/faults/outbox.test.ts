import { randomUUID } from 'node:crypto';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { command } from '../../support/faults.ts';
import { denialOf, isAvailable, startScene, until, untilRecovered } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

const HOUR_MS = 3_600_000;

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene({ SESSIONS_PER_USER: '10' });
  user = await scene.newAccount();
  await scene.call('GET', '/v1/users/me', { token: user.access });
});
afterAll(() => scene[Symbol.asyncDispose]());
beforeEach(() => scene.app.sql('DELETE FROM outbox'));
afterEach(async () => {
  await scene.redis.clear();
  await untilRecovered(scene, user.access);
});

const me = ({ access }: SignedIn) => scene.call('GET', '/v1/users/me', { token: access });
const rows = () => scene.app.sql('SELECT id, state, due_at_ms FROM outbox ORDER BY id');

/** Rows as requests leave them that die right after their commit: due, and not delivered. */
async function leave(...messages: object[]): Promise<string[]> {
  const nowMs = Date.now();
  const left = messages.map((message) => ({ id: randomUUID(), message: JSON.stringify(message) }));
  await scene.app.sql(
    `INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
     SELECT value ->> 'id', value ->> 'message', 'pending', ?, ?, ? FROM json_each(?)`,
    nowMs - 1_000,
    nowMs - 6_000,
    nowMs + HOUR_MS,
    JSON.stringify(left),
  );
  return left.map(({ id }) => id);
}

const ending = (sessionId: string) => ({
  kind: 'session-end',
  sessionId,
  reason: 'logout',
  expiresAtMs: Date.now() + HOUR_MS,
});

/** A logout whose isolate died between its commit in D1 and the call to Redis. */
async function halfLogout({ sessionId }: SignedIn): Promise<string | undefined> {
  await scene.app.sql(
    "UPDATE sessions SET ended_at_ms = ?, ended_reason = 'logout' WHERE id = ?",
    Date.now(),
    sessionId,
  );
  return (await leave(ending(sessionId)))[0];
}

/** A session that only its end is known of. */
const ended = (n: number): SignedIn => ({ userId: `u${n}`, sessionId: `u${n}.s`, access: '', refresh: '' });

describe('a scheduled run', () => {
  it('delivers the message of a request that died, and a minute later once more', async () => {
    const { app, redis } = scene;
    const session = await scene.signIn(user);
    expect(await me(session)).toMatchObject({ status: 200 });
    const id = await halfLogout(session);
    expect(await denialOf(scene, session)).toBeNull();

    await app.scheduled();
    expect(await denialOf(scene, session)).not.toBeNull();
    expect(await me(session)).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    expect(await rows()).toMatchObject([{ id, state: 'delivered' }]);

    // A failover loses what Redis had acknowledged.
    await redis.engine('HDEL', `app:auth:blacklist:{${user.id}}`, `s:${session.sessionId}`);
    await app.scheduled();
    expect(await denialOf(scene, session)).not.toBeNull();

    // No third time, and once it is old it is forgotten.
    await redis.engine('HDEL', `app:auth:blacklist:{${user.id}}`, `s:${session.sessionId}`);
    await app.scheduled();
    expect(await denialOf(scene, session)).toBeNull();
    await app.sql('UPDATE outbox SET created_at_ms = 0');
    await app.scheduled();
    expect(await rows()).toEqual([]);
  });

  it('delivers the invalidation of a request that died', async () => {
    const { app, call } = scene;
    await me(user);
    await app.sql("UPDATE users SET name = 'Somebody Else' WHERE id = ?", user.id);
    await leave({ kind: 'invalidate', users: [user.id], namespaces: ['users'] });
    expect((await me(user)).body).toMatchObject({ name: user.name });
    await app.scheduled();
    expect((await me(user)).body).toMatchObject({ name: 'Somebody Else' });

    expect((await call('PATCH', '/v1/users/me', { token: user.access, body: { name: user.name } })).status).toBe(200);
    expect((await me(user)).body).toMatchObject({ name: user.name });
  });

  it('and a change whose invalidation Redis missed is seen once the outbox has delivered it', async () => {
    const { app, call, redis } = scene;
    await me(user);
    redis.mode = { kind: 'drop-before', when: command('SET', ':nonce') };
    expect(await call('PATCH', '/v1/users/me', { token: user.access, body: { name: 'New Name' } })).toMatchObject({
      status: 200,
      body: { name: 'New Name' },
    });
    expect((await rows()).map(({ state }) => state)).toEqual(['pending']);
    redis.mode = { kind: 'none' };
    await app.sql('UPDATE outbox SET due_at_ms = 0');
    await app.scheduled();
    expect((await me(user)).body).toMatchObject({ name: 'New Name' });
    await call('PATCH', '/v1/users/me', { token: user.access, body: { name: user.name } });
  });

  it('gives back messages that it could not deliver, and the next run delivers them at once', async () => {
    const { app, redis } = scene;
    await halfLogout(ended(1));
    redis.mode = { kind: 'drop-before', when: (sent) => sent.includes('u1.s') };
    await app.scheduled();
    expect(await rows()).toMatchObject([{ state: 'pending' }]);
    redis.mode = { kind: 'none' };
    await app.scheduled();
    expect(await denialOf(scene, ended(1))).not.toBeNull();
    expect(await rows()).toMatchObject([{ state: 'delivered' }]);
  });

  it('delivers side by side with another one: each message at most twice in all', async () => {
    const { app, redis } = scene;
    const sessions = Array.from({ length: 120 }, (_, index) => ended(100 + index));
    await leave(...sessions.map(({ sessionId }) => ending(sessionId)));
    redis.reset();
    await Promise.all([app.scheduled(), app.scheduled()]);
    const sent = redis.requests.flatMap(({ commands }) =>
      commands
        .filter((sent) => sent.includes('logout'))
        .map((sent) => sent.find((part) => /^u\d+\.s$/.test(String(part)))),
    );
    expect(new Set(sent).size).toBe(120);
    expect((await rows()).every(({ state }) => state === 'delivered')).toBe(true);
    for (const session of sessions) expect(await denialOf(scene, session)).not.toBeNull();
    // Once by the run that found it, and once more by the other one, after its heartbeat. A script that the server did not
    // know is sent again with its text.
    expect(sent.length).toBeLessThanOrEqual(2 * 120 + 50);
  });

  it('delivers a fresh revocation before 5,500 that were tried in vain and 5,500 second deliveries', async () => {
    const { app, redis } = scene;
    const fill = (state: string, dueAtMs: number) =>
      app.sql(
        `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5500)
         INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
         SELECT ? || i, json_object('kind', 'session-end', 'sessionId', 'older' || i || '.s', 'reason', 'logout',
           'expiresAtMs', ?), ?, ?, ?, ? FROM n`,
        `${state}-`,
        Date.now() + HOUR_MS,
        state,
        dueAtMs,
        Date.now(),
        Date.now() + HOUR_MS,
      );
    await fill('delivered', 0);
    await fill('pending', 1);
    await halfLogout(ended(5));
    await app.sql("UPDATE outbox SET due_at_ms = 0 WHERE message LIKE '%u5.s%'");
    redis.reset();
    await app.scheduled();
    const sent = redis.requests.flatMap(({ commands }) =>
      commands.flatMap((sent) => sent.filter((part) => /^(older\d+|u5)\.s$/.test(String(part)))),
    );
    // In the first lot of 1,000, whose four pipelines arrive in any order.
    expect(sent.indexOf('u5.s')).toBeGreaterThanOrEqual(0);
    expect(sent.indexOf('u5.s')).toBeLessThan(1_000);
    expect(new Set(sent).size).toBe(5_501);
    expect(sent.length).toBeGreaterThanOrEqual(11_000);
  });

  it('is not held up by a message that Redis refuses', async () => {
    const { app, redis, call } = scene;
    await redis.engine('SET', 'app:auth:blacklist:{poison}', 'not a hash', 'EX', '60');
    const [poison, good] = await leave(ending('poison.s'), ending('u2.s'));
    await app.scheduled();
    expect(await denialOf(scene, ended(2))).not.toBeNull();
    const states = new Map((await rows()).map(({ id, state }) => [id, state]));
    expect(states.get(good)).toBe('delivered');
    expect(states.get(poison)).toBe('pending');
    expect(await isAvailable(call)).toBe(true);
  });

  it('leaves a message that it cannot read to a version that can', async () => {
    const { app } = scene;
    const [id] = await leave({ kind: 'of-the-future', text: 'x' });
    for (let run = 0; run < 3; run += 1) {
      await app.scheduled();
      await app.sql('UPDATE outbox SET due_at_ms = 0');
    }
    expect(await rows()).toMatchObject([{ id, state: 'pending' }]);
  });

  it('beside a probe leaves the probe its messages: they are delivered before Redis is relied upon', async () => {
    const { app, call, redis } = scene;
    const session = await scene.signIn(user);
    await me(session);
    redis.mode = { kind: 'refuse' };
    await until('the breaker opens', async () => {
      await me(user);
      return !(await isAvailable(call));
    });
    await halfLogout(session);
    await redis.clear();
    await Promise.all([app.scheduled(), app.scheduled()]);
    await until('Redis is relied upon', () => isAvailable(call));
    expect(await denialOf(scene, session)).not.toBeNull();
    expect(await me(session)).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
  });

  it('still deletes expired rows while Redis is away', async () => {
    const { app, redis } = scene;
    await app.sql(
      `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       VALUES ('old.s', 'old', '', '', 0, 0, 1000, 1)`,
    );
    await halfLogout(ended(3));
    redis.mode = { kind: 'refuse' };
    await app.scheduled();
    expect(await app.sql("SELECT id FROM sessions WHERE id = 'old.s'")).toEqual([]);
    expect(await rows()).toMatchObject([{ state: 'pending' }]);
  });
});

it('a login that ends very many sessions ends them all', async () => {
  const { app } = scene;
  const nowMs = Date.now();
  await app.sql(
    `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
     SELECT ? || '.old' || value, ?, 'old phone', '', ?, ?, ?, 1 FROM json_each(?)`,
    user.id,
    user.id,
    nowMs - 1_000,
    nowMs - 1_000,
    nowMs + HOUR_MS,
    JSON.stringify(Array.from({ length: 240 }, (_, index) => index)),
  );
  const session = await scene.signIn(user);
  const alive = await app.sql('SELECT id FROM sessions WHERE user_id = ? AND ended_at_ms IS NULL', user.id);
  expect(alive.length).toBe(10);
  expect(alive.map(({ id }) => id)).toContain(session.sessionId);
  const evicted = await app.sql("SELECT id FROM sessions WHERE user_id = ? AND ended_reason = 'evicted'", user.id);
  for (const { id } of evicted) {
    expect(await denialOf(scene, { ...user, sessionId: String(id) })).not.toBeNull();
  }
});
