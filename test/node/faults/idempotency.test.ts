import { createHash, randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { newcomer } from '../../support/client.ts';
import type { Answer } from '../../support/client.ts';
import { newKey, replayed, startKeyedScene } from './idempotency.scene.ts';
import type { KeyedScene } from './idempotency.scene.ts';
import { signedIn, until } from './scene.ts';
import type { Account, SignedIn } from './scene.ts';

let scene: KeyedScene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startKeyedScene();
  user = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());
afterEach(async () => {
  await scene.app.database('here');
  await scene.redis.clear();
  // The breaker closes again.
  await until('Redis is relied on', async () => (await scene.call('GET', '/health')).body.redis !== 'down');
});

const flush = () => scene.redis.engine('FLUSHALL');
const send = (path: string, key: string, body: object, token = user.access) =>
  scene.call('POST', path, { token, body, headers: { 'Idempotency-Key': key } });
const order = (key: string, body: object, token?: string) => send('/own/orders', key, body, token);
const statuses = (answers: readonly Answer[]) => [...new Set(answers.map(({ status }) => status))];
const IN_USE = { status: 409, body: { code: 'IDEMPOTENCY_KEY_IN_USE' } };
const times = <T>(count: number, make: () => Promise<T>) => Promise.all(Array.from({ length: count }, make));

/** A request whose handler has begun, and waits for `release`. */
async function begun<T>(note: string, start: () => Promise<T>): Promise<{ first: Promise<T>; release: () => void }> {
  scene.truth.values.set(note, '');
  const release = scene.truth.hold(note);
  const first = start();
  await scene.truth.read(note);
  return { first, release };
}

describe('a route of one’s own', () => {
  it('is executed once of 50 parallel requests; the others get 409 and then the first response', async () => {
    const key = newKey();
    const note = randomUUID();
    const { first, release } = await begun(note, () => order(key, { note, before: note }));
    const parallel = await times(49, () => order(key, { note, before: note }));
    for (const answer of parallel) {
      expect(answer).toMatchObject(IN_USE);
      expect(answer.headers.get('Retry-After')).toBe('1');
    }
    release();
    const made = await first;
    expect(made.status).toBe(201);
    expect(replayed(made)).toBe(false);
    await until('it is stored', async () => (await order(key, { note, before: note })).status === 201);
    const again = await order(key, { note, before: note });
    expect(again).toMatchObject({ status: 201, body: made.body });
    expect(replayed(again)).toBe(true);
    expect(again.headers.get('Location')).toBe(made.headers.get('Location'));
    expect(again.headers.get('Content-Type')).toBe(made.headers.get('Content-Type'));
    expect(again.headers.has('X-Not-Kept')).toBe(false);
    expect(again.headers.get('X-Request-Id')).not.toBe(made.headers.get('X-Request-Id'));
    expect(await scene.count(note)).toBe(1);
    expect(scene.truth.reads.get(note)).toBe(1);
  });

  it('is executed once of 50 parallel requests without Redis', async () => {
    scene.redis.mode = { kind: 'refuse' };
    const key = newKey();
    const note = randomUUID();
    const answers = await times(50, () => order(key, { note }));
    expect(await scene.count(note)).toBe(1);
    const ids = new Set(answers.filter(({ status }) => status === 201).map(({ body }) => body.id));
    expect(ids.size).toBe(1);
    expect(statuses(answers).filter((status) => status !== 201 && status !== 409)).toEqual([]);
    await until('it is stored', async () => (await order(key, { note })).status === 201);
    expect([...ids]).toEqual([(await order(key, { note })).body.id]);
  });

  it('is executed once when Redis loses everything before the commit, and a second request runs beside the first', async () => {
    const key = newKey();
    const note = randomUUID();
    const { first, release } = await begun(note, () => order(key, { note, before: note }));
    await flush();
    const second = order(key, { note, before: note });
    await scene.truth.read(note, 2);
    release();
    const answers = await Promise.all([first, second]);
    expect(await scene.count(note)).toBe(1);
    const made = answers.filter((answer) => answer.status === 201);
    expect(made.length).toBeGreaterThanOrEqual(1);
    for (const answer of answers) if (answer.status !== 201) expect(answer).toMatchObject(IN_USE);
    await until('it is stored', async () => (await order(key, { note, before: note })).status === 201);
    expect((await order(key, { note, before: note })).body).toEqual(made[0]?.body);
  });

  it('is executed once when Redis loses everything between commit and response', async () => {
    const key = newKey();
    const note = randomUUID();
    const { first, release } = await begun(note, () => order(key, { note, after: note }));
    await flush();
    expect(await order(key, { note, after: note })).toMatchObject(IN_USE);
    release();
    const { status, body } = await first;
    expect(status).toBe(201);
    await until('it is stored', async () => (await order(key, { note, after: note })).status === 201);
    await flush();
    expect(await order(key, { note, after: note })).toMatchObject({ status: 201, body });
    expect(await scene.count(note)).toBe(1);
  });

  it('is executed once when the response of the database is lost after the commit', async () => {
    const note = randomUUID();
    const [key, other] = [newKey(), newKey()];
    await scene.app.database('lossy=idempotency_keys');
    expect((await order(key, { note })).status).toBe(503);
    expect((await send('/own/referred', other, { note })).status).toBe(503);
    await scene.app.database('here');
    expect(await scene.count(note)).toBe(2);
    // What the response was is not known to anything; the route that can make it again does.
    expect(await order(key, { note })).toMatchObject(IN_USE);
    const made = await send('/own/referred', other, { note });
    expect(made).toMatchObject({ status: 201, body: { note } });
    expect(replayed(made)).toBe(true);
    expect(await scene.count(note)).toBe(2);
    await scene.app.sql('UPDATE idempotency_keys SET created_at_ms = created_at_ms - 60000 WHERE response IS NULL');
    expect(await order(key, { note })).toMatchObject({ status: 409, body: { code: 'IDEMPOTENCY_RESPONSE_LOST' } });
    expect(await scene.count(note)).toBe(2);
  });

  it('is executed once when its isolate is killed between commit and response', async () => {
    const key = newKey();
    const note = randomUUID();
    const { first, release } = await begun(note, () =>
      send('/own/referred', key, { note, after: note }).catch(() => undefined),
    );
    await scene.app.kill();
    release();
    await first;
    const again = await send('/own/referred', key, { note, after: note });
    expect(again).toMatchObject({ status: 201, body: { note } });
    expect(replayed(again)).toBe(true);
    expect(await scene.count(note)).toBe(1);
  });

  it('runs again after it has failed, or was killed, before its change', async () => {
    const key = newKey();
    const note = randomUUID();
    expect((await order(key, { note, before: note })).status).toBe(500);
    scene.truth.values.set(note, '');
    await until('the key is free', async () => (await order(key, { note, before: note })).status === 201);
    expect(await scene.count(note)).toBe(1);
  });

  it('is not executed while the database is away', async () => {
    const note = randomUUID();
    const key = newKey();
    await scene.app.database('away');
    expect((await order(key, { note })).status).toBe(503);
    await scene.app.database('here');
    await until('the key is free', async () => (await order(key, { note })).status === 201);
    expect(await scene.count(note)).toBe(1);
  });

  it('refuses the key with another body or query; callers, routes and paths have keys of their own', async () => {
    const key = newKey();
    const note = randomUUID();
    const other = await scene.newAccount();
    expect((await order(key, { note })).status).toBe(201);
    const reused = { status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } };
    expect(await order(key, { note, pad: 1 })).toMatchObject(reused);
    expect(await send('/own/orders?page=2', key, { note })).toMatchObject(reused);
    await flush();
    expect(await order(key, { note, pad: 1 })).toMatchObject(reused);
    expect(await scene.count(note)).toBe(1);
    for (const made of [
      await order(key, { note }, other.access),
      await send('/own/referred', key, { note }),
      await send('/own/orders/a', key, { note }),
      await send('/own/orders/b', key, { note }),
    ]) {
      expect(made.status).toBe(201);
      expect(replayed(made)).toBe(false);
    }
    expect(await scene.count(note)).toBe(5);
  });

  it('refuses another body while the first request runs', async () => {
    const key = newKey();
    const note = randomUUID();
    const { first, release } = await begun(note, () => order(key, { note, before: note }));
    expect(await order(key, { note })).toMatchObject({ status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
    release();
    expect((await first).status).toBe(201);
  });

  it('says so of a response that was too long, or set a cookie; the route may make it again', async () => {
    const lost = { status: 409, body: { code: 'IDEMPOTENCY_RESPONSE_LOST' } };
    for (const wish of [{ pad: 70_000 }, { cookie: true }]) {
      const key = newKey();
      const body = { note: randomUUID(), ...wish };
      expect((await order(key, body)).status).toBe(201);
      await until('it has ended', async () => (await order(key, body)).body.code !== IN_USE.body.code);
      expect(await order(key, body)).toMatchObject(lost);
      expect(await scene.count(body.note)).toBe(1);
    }
    const key = newKey();
    const body = { note: randomUUID(), pad: 2_000 };
    const { body: made } = await send('/own/referred', key, body);
    expect(await send('/own/referred', key, body)).toMatchObject({ status: 201, body: { id: made.id } });
    expect(await scene.count(body.note)).toBe(1);
  });

  it('repeats refusals, and not those that ask to come again', async () => {
    const key = newKey();
    const note = randomUUID();
    expect((await order(key, { note, status: 404 })).status).toBe(404);
    await until('it is stored', async () => (await order(key, { note, status: 404 })).status === 404);
    expect(replayed(await order(key, { note, status: 404 }))).toBe(true);
    expect(await scene.count(note)).toBe(1);
  });

  it('with an effect elsewhere runs once, also after Redis was flushed', async () => {
    const key = newKey();
    const body = { before: randomUUID() };
    scene.truth.values.set(body.before, '');
    const { status, body: made } = await send('/own/outside', key, body);
    expect(status).toBe(200);
    await until('it is stored', async () => (await send('/own/outside', key, body)).status === 200);
    await flush();
    expect(await send('/own/outside', key, body)).toMatchObject({ status: 200, body: made });
    scene.redis.mode = { kind: 'refuse' };
    const without = newKey();
    const { body: alone } = await send('/own/outside', without, body);
    expect((await send('/own/outside', without, body)).body).toEqual(alone);
    expect(scene.truth.reads.get(body.before)).toBe(2);
  });

  it('refuses a key that is missing where it is needed, or no quoted string', async () => {
    const call = (headers: Record<string, string>) => scene.call('POST', '/own/outside', { body: {}, headers });
    expect(await call({})).toMatchObject({ status: 400, body: { code: 'IDEMPOTENCY_KEY_REQUIRED' } });
    for (const header of [
      randomUUID(),
      '""',
      '"open',
      'bare',
      '"a", "b"',
      '"a" "b"',
      ':YQ==:',
      '"\\a"',
      '"ä"',
      `"${'x'.repeat(256)}"`,
      '"a";',
      '1',
      '?1',
    ]) {
      const answer = await call({ 'Idempotency-Key': Buffer.from(header).toString('latin1') });
      expect({ header, status: answer.status, code: answer.body.code }).toEqual({
        header,
        status: 400,
        code: 'IDEMPOTENCY_KEY_INVALID',
      });
    }
    for (const header of ['"a"', ' "with \\" and \\\\" ', '"a"; x=1;y="z"', `"${'x'.repeat(255)}"`]) {
      const { status } = await call({ 'Idempotency-Key': header });
      expect({ header, status }).toEqual({ header, status: 200 });
    }
  });

  it('needs no trip to Redis of its own', async () => {
    const body = { note: randomUUID() };
    const requestsOf = async (send: () => Promise<unknown>) => {
      await scene.redis.idle();
      scene.redis.reset();
      await send();
      await scene.redis.idle();
      return scene.redis.requests;
    };
    /** The fewest of some: the isolate's upkeep, such as its metrics, travels beside one now and then. */
    const fewest = async (send: () => Promise<unknown>) => {
      const rounds = [await requestsOf(send), await requestsOf(send), await requestsOf(send)];
      return rounds.toSorted((a, b) => a.length - b.length)[0] ?? [];
    };
    await order(newKey(), body);
    const without = await fewest(() => scene.call('POST', '/own/orders', { token: user.access, body }));
    const keyed = await fewest(() => order(newKey(), body));
    expect(keyed[0]?.commands.map(([name]) => name)).toEqual(['HMGET', 'EVALSHA']);
    // The claim's end travels with what is sent after the response in any case.
    expect(keyed.length).toBeLessThanOrEqual(without.length + 1);
  });
});

describe('the app’s own writes', () => {
  const register = (account: object, key: string) =>
    scene.call('POST', '/v1/auth/register', { body: account, headers: { 'Idempotency-Key': key } });

  /** Two responses with tokens of one session, both good. */
  async function expectSame(first: Answer, again: Answer): Promise<void> {
    expect(again.status).toBe(first.status);
    expect(replayed(again)).toBe(true);
    expect(signedIn(again)).toMatchObject({ refresh: signedIn(first).refresh, sessionId: signedIn(first).sessionId });
    expect((await scene.call('GET', '/v1/users/me', { token: signedIn(again).access })).status).toBe(200);
    const { status } = await scene.call('POST', '/v1/auth/refresh', {
      body: { refresh_token: signedIn(again).refresh },
    });
    expect(status).toBe(200);
  }

  const lossOf: [string, () => Promise<unknown>][] = [
    ['with Redis', async () => undefined],
    ['after Redis was flushed', flush],
    ['with Redis away', async () => void (scene.redis.mode = { kind: 'refuse' })],
  ];

  it.each(lossOf)('a registration %s', async (_, lose) => {
    const account = newcomer();
    const key = newKey();
    const first = await register(account, key);
    expect(first.status).toBe(201);
    await lose();
    const again = await register(account, key);
    expect(again.body.user).toEqual(first.body.user);
    await expectSame(first, again);
    const other = await register({ ...account, password: 'another horse battery' }, key);
    expect(other).toMatchObject({ status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } });
  });

  it('a registration whose commit got no reply', async () => {
    const account = newcomer();
    const key = newKey();
    await scene.app.database('lossy=idempotency_keys');
    expect((await register(account, key)).status).toBe(503);
    await scene.app.database('here');
    const again = await register(account, key);
    expect(again.status).toBe(201);
    expect((await scene.call('GET', '/v1/users/me', { token: again.body.access_token })).body.email).toBe(
      account.email,
    );
  });

  it.each(lossOf)('20 parallel logins are one session %s', async (_, lose) => {
    const { id, email, password } = await scene.newAccount();
    await lose();
    const key = newKey();
    const login = () =>
      scene.call('POST', '/v1/auth/login', { body: { email, password }, headers: { 'Idempotency-Key': key } });
    const answers = await times(20, login);
    expect(statuses(answers).filter((status) => status !== 200 && status !== 409)).toEqual([]);
    const sessions = new Set(
      answers.filter(({ status }) => status === 200).map((answer) => signedIn(answer).sessionId),
    );
    expect(sessions.size).toBe(1);
    expect(sessions).toContain(signedIn(await login()).sessionId);
    expect(await scene.app.sql('SELECT id FROM sessions WHERE user_id = ?', id)).toHaveLength(2);
  });

  it('gets no tokens of a session that has ended, whatever Redis has forgotten since', async () => {
    const NEXT = 'another horse battery';
    type Session = Account & SignedIn;
    /** Each ends `ended`, the session of the request that is repeated; `other` is another session of its user. */
    const endings: Record<string, (ended: Session, other: Session) => Promise<unknown>> = {
      'signed out': ({ access }) => scene.call('POST', '/v1/auth/logout', { token: access }),
      'refresh token revoked': ({ refresh }) => scene.call('POST', '/v1/auth/revoke', { body: { token: refresh } }),
      'signed out everywhere': (_, { access }) => scene.call('POST', '/v1/auth/logout-all', { token: access }),
      'password changed elsewhere': (_, { access, password }) =>
        scene.call('POST', '/v1/auth/password', {
          token: access,
          body: { currentPassword: password, newPassword: NEXT },
        }),
      'password changed in it': ({ access, password }) =>
        scene.call('POST', '/v1/auth/password', {
          token: access,
          body: { currentPassword: password, newPassword: NEXT },
        }),
      'account disabled': ({ email }) =>
        scene.app.sql(`UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE email = ?`, email),
      'account deleted': (_, { access }) => scene.call('DELETE', '/v1/users/me', { token: access }),
      expired: ({ sessionId }) => scene.app.sql('UPDATE sessions SET expires_at_ms = 1 WHERE id = ?', sessionId),
      unused: ({ sessionId }) => scene.app.sql('UPDATE sessions SET last_seen_at_ms = 1 WHERE id = ?', sessionId),
    };
    const repeats: { what: string; token: string; repeat: () => Promise<Answer> }[] = [];
    for (const [ending, end] of Object.entries(endings)) {
      for (const first of ['register', 'login'] as const) {
        const account = newcomer();
        const { email, password } = account;
        const login = (headers = {}) => scene.call('POST', '/v1/auth/login', { body: { email, password }, headers });
        const key = newKey();
        const repeat = first === 'register' ? () => register(account, key) : () => login({ 'Idempotency-Key': key });
        if (first === 'login') await register(account, newKey());
        const answers = [await repeat(), await login()] as const;
        const [ended, other] = answers.map((answer) => Object.assign({}, account, signedIn(answer))) as [
          Session,
          Session,
        ];
        await end(ended, other);
        repeats.push({ what: `${first}, ${ending}`, token: other.access, repeat });
      }
    }
    // Access tokens that were issued before have expired, and Redis has lost all that was delivered to it.
    await scene.redis.idle();
    await scene.app.sql('UPDATE sessions SET ended_at_ms = ended_at_ms - 1200000 WHERE ended_at_ms IS NOT NULL');
    await flush();
    await scene.app.kill();
    for (const { what, token, repeat } of repeats) {
      // Redis knows the user again, and no denials.
      await scene.call('GET', '/v1/users/me', { token });
      const { status, body } = await repeat();
      expect({ what, status, code: body.code }).toEqual({ what, status: 401, code: 'TOKEN_REVOKED' });
    }
    const kept = await scene.app.sql("SELECT user_id, response FROM idempotency_keys WHERE reference = 'null'");
    expect(kept.length).toBeGreaterThanOrEqual(2);
    for (const row of kept) expect(row).toEqual({ user_id: null, response: null });
  });

  describe('a password change', () => {
    const NEW = 'another horse battery';
    const change = ({ access, password }: Account & SignedIn, headers: Record<string, string> = {}, next = NEW) =>
      scene.call('POST', '/v1/auth/password', {
        token: access,
        body: { currentPassword: password, newPassword: next },
        headers,
      });

    it.each(lossOf)('with a key, %s', async (_, lose) => {
      const account = await scene.newAccount();
      const headers = { 'Idempotency-Key': newKey() };
      const first = await change(account, headers);
      expect(first.status).toBe(200);
      await lose();
      await expectSame(first, await change(account, headers));
    });

    it.each(lossOf)('without a key, %s', async (_, lose) => {
      const account = await scene.newAccount();
      const first = await change(account);
      await lose();
      const again = await change(account);
      expect(again.status).toBe(200);
      expect(signedIn(again).refresh).toBe(signedIn(first).refresh);
      expect((await scene.call('GET', '/v1/users/me', { token: signedIn(again).access })).status).toBe(200);
      const rows = await scene.app.sql(
        "SELECT id FROM events WHERE user_id = ? AND kind = 'password-changed'",
        account.id,
      );
      expect(rows).toHaveLength(1);
    });

    it.each([{}, { 'Idempotency-Key': newKey() }])('whose commit got no reply, headers %o', async (headers) => {
      const account = await scene.newAccount();
      await scene.app.database(`lossy=${'Idempotency-Key' in headers ? 'idempotency_keys' : 'events'}`);
      expect((await change(account, headers)).status).toBe(503);
      await scene.app.database('here');
      const again = await change(account, headers);
      expect(again.status).toBe(200);
      expect((await scene.call('GET', '/v1/users/me', { token: signedIn(again).access })).status).toBe(200);
    });

    it('a token from before it is good for nothing else', async () => {
      const account = await scene.newAccount();
      const other = await scene.call('POST', '/v1/auth/login', {
        body: { email: account.email, password: account.password },
      });
      await change(account);
      const revoked = { status: 401, body: { code: 'TOKEN_REVOKED' } };
      // Another next password, another session, other routes.
      expect(await change(account, {}, 'a third horse battery')).toMatchObject(revoked);
      expect(await change(account, { 'Idempotency-Key': newKey() }, 'a third horse battery')).toMatchObject(revoked);
      expect(await change({ ...account, access: signedIn(other).access })).toMatchObject(revoked);
      const { access: token, refresh, email } = account;
      expect(await scene.call('GET', '/v1/users/me', { token })).toMatchObject(revoked);
      const rename = { token, body: { name: 'Thief' }, headers: { 'Idempotency-Key': newKey() } };
      expect(await scene.call('PATCH', '/v1/users/me', rename)).toMatchObject(revoked);
      expect(await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).toMatchObject(revoked);
      expect((await scene.call('POST', '/v1/auth/login', { body: { email, password: NEW } })).status).toBe(200);
    });

    it('is not repeated once its session, or the token itself, was ended', async () => {
      const account = await scene.newAccount();
      const headers = { 'Idempotency-Key': newKey() };
      const first = signedIn(await change(account, headers));
      const revoked = { status: 401, body: { code: 'TOKEN_REVOKED' } };
      const second = await scene.newAccount();
      expect((await change(second)).status).toBe(200);
      await scene.call('POST', '/v1/auth/revoke', { body: { token: second.access } });
      expect(await change(second)).toMatchObject(revoked);
      expect((await scene.call('POST', '/v1/auth/logout', { token: first.access })).status).toBe(204);
      expect(await change(account, headers)).toMatchObject(revoked);
      expect(await change(account)).toMatchObject(revoked);
    });
  });

  it.each([
    ['recovery', 'gotr1', { newPassword: 'another horse battery' }],
    ['email/confirm', 'gotc1', {}],
    ['email/undo', 'gotu1', {}],
  ])('the token of a mail: %s', async (what, prefix, more) => {
    const { id, email } = await scene.newAccount();
    const purpose = { gotr1: 'recovery', gotc1: 'email-change', gotu1: 'email-undo' }[prefix];
    const token = `${prefix}.${randomUUID().replaceAll('-', '').padEnd(43, '0')}`;
    const other = newcomer().email;
    await scene.app.sql(
      `INSERT INTO one_time_tokens (hash, purpose, user_id, email, former_email, created_at_ms, expires_at_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
      createHash('sha256').update(token).digest('base64url'),
      purpose,
      id,
      what === 'recovery' ? email : other,
      email,
      Date.now(),
      Date.now() + 600_000,
    );
    const path = what === 'recovery' ? '/v1/auth/recovery/confirm' : `/v1/auth/${what}`;
    const headers = { 'Idempotency-Key': newKey() };
    const confirm = (sent: Record<string, string>) =>
      scene.call('POST', path, { body: { token, ...more }, headers: sent });
    await scene.app.database('lossy=idempotency_keys');
    expect((await confirm(headers)).status).toBe(503);
    await scene.app.database('here');
    await flush();
    const again = await confirm(headers);
    expect(again.status).toBe(204);
    expect(replayed(again)).toBe(true);
    expect(await confirm({ 'Idempotency-Key': newKey() })).toMatchObject({ status: 400 });
    const [row] = await scene.app.sql('SELECT email FROM users WHERE id = ?', id);
    expect(row?.['email']).toBe(what === 'recovery' ? email : other);
  });

  describe('of an administrator', () => {
    let token: string;
    beforeAll(async () => {
      const { id, email, password } = await scene.newAccount();
      await scene.app.sql(`UPDATE users SET role = 'admin' WHERE id = ?`, id);
      token = signedIn(await scene.call('POST', '/v1/auth/login', { body: { email, password } })).access;
    });
    const act = (method: string, path: string, key: string, body?: object) =>
      scene.call(method, `/v1/admin${path}`, {
        token,
        headers: { 'Idempotency-Key': key },
        ...(body !== undefined && { body }),
      });

    it('the end of someone’s sessions spares those that began since', async () => {
      const { id, email, password, access } = await scene.newAccount();
      const key = newKey();
      await scene.app.database('lossy=idempotency_keys');
      expect((await act('DELETE', `/users/${id}/sessions`, key)).status).toBe(503);
      await scene.app.database('here');
      const later = await scene.call('POST', '/v1/auth/login', { body: { email, password } });
      expect(later.status).toBe(200);
      await flush();
      const again = await act('DELETE', `/users/${id}/sessions`, key);
      expect(again.status).toBe(204);
      expect(replayed(again)).toBe(true);
      expect((await scene.call('GET', '/v1/users/me', { token: signedIn(later).access })).status).toBe(200);
      expect((await scene.call('GET', '/v1/users/me', { token: access })).status).toBe(401);
    });

    it('the end of everyone’s sessions likewise, with the same count', async () => {
      await scene.app.sql(
        `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms)
         VALUES ('~1', 'last@example.com', 'Last', '', 1, 1)`,
      );
      const begin = (id: string) =>
        scene.app.sql(
          `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
           VALUES (?, '~1', '', '', 1, ?, ?, 1)`,
          id,
          Date.now(),
          Date.now() + 3_600_000,
        );
      await begin('~1.a');
      const key = newKey();
      await scene.app.database('lossy=idempotency_keys');
      expect((await act('POST', '/sessions/end', key, { after: '~' })).status).toBe(503);
      await scene.app.database('here');
      await begin('~1.b');
      expect(await act('POST', '/sessions/end', key, { after: '~' })).toMatchObject({
        status: 200,
        body: { users: 1, next: null },
      });
      const rows = await scene.app.sql(`SELECT id FROM sessions WHERE user_id = '~1' AND ended_at_ms IS NULL`);
      expect(rows).toEqual([{ id: '~1.b' }]);
    });

    it('a late repeat of an override leaves the next one in force', async () => {
      const override = (key: string, maxRequests: number) =>
        act('POST', '/limits/override', key, { policy: 'verification', windows: [{ maxRequests, windowMs: 60_000 }] });
      const key = newKey();
      await scene.app.database('lossy=idempotency_keys');
      expect((await override(key, 20_000)).status).toBe(503);
      await scene.app.database('here');
      expect((await override(newKey(), 30_000)).status).toBe(200);
      await flush();
      const again = await override(key, 20_000);
      expect(again).toMatchObject({ status: 200, body: { pending: false } });
      expect(replayed(again)).toBe(true);
      const { body } = await scene.call('GET', '/v1/admin/limits', { token });
      const { limits } = body as { limits: { policy: string; windows: object[] }[] };
      expect(limits.find(({ policy }) => policy === 'verification')?.windows).toEqual([
        { maxRequests: 30_000, windowMs: 60_000 },
      ]);
      expect((await act('POST', '/limits/restore', newKey(), { policy: 'verification' })).status).toBe(200);
    });
  });

  it.each([
    ['POST', '/v1/auth/logout'],
    ['POST', '/v1/auth/logout-all'],
    ['DELETE', '/v1/users/me'],
    ['DELETE', '/v1/sessions/own'],
  ])('%s %s: what ended the token is repeated, and nothing else', async (method, path) => {
    const { access: token, sessionId } = await scene.newAccount();
    const at = path.replace('own', sessionId);
    const headers = { 'Idempotency-Key': newKey() };
    expect((await scene.call(method, at, { token, headers })).status).toBe(204);
    for (const [, lose] of lossOf) {
      await lose();
      const again = await scene.call(method, at, { token, headers });
      expect(again.status).toBe(204);
      expect(replayed(again)).toBe(true);
    }
    await scene.redis.clear();
    const revoked = { status: 401, body: { code: 'TOKEN_REVOKED' } };
    expect(await scene.call(method, at, { token })).toMatchObject(revoked);
    expect(await scene.call(method, at, { token, headers: { 'Idempotency-Key': newKey() } })).toMatchObject(revoked);
  });

  it('a rename is answered as it was, also after another one', async () => {
    const { access: token } = await scene.newAccount();
    const headers = { 'Idempotency-Key': newKey() };
    const rename = (name: string, more = {}) =>
      scene.call('PATCH', '/v1/users/me', { token, body: { name }, headers: more });
    const first = await rename('Grace', headers);
    await rename('Ada');
    await until('it is stored', async () => (await rename('Grace', headers)).body.name === 'Grace');
    expect((await rename('Grace', headers)).body).toEqual(first.body);
    expect((await scene.call('GET', '/v1/users/me', { token })).body.name).toBe('Ada');
  });

  it('leaves no token, password or address in Redis or D1, and nothing of a user who was deleted', async () => {
    const account = newcomer();
    const key = newKey();
    const first = await register(account, key);
    const { access: token, refresh, userId } = signedIn(first);
    const headers = { 'Idempotency-Key': newKey() };
    await scene.call('PATCH', '/v1/users/me', { token, body: { name: 'Grace Hopper' }, headers });
    await scene.redis.idle();
    const rows = await scene.app.sql('SELECT * FROM idempotency_keys WHERE user_id = ?', userId);
    expect(rows).toHaveLength(2);
    expect(rows.filter(({ response }) => response !== null)).toHaveLength(1);
    const keys = (await scene.redis.engine('KEYS', 'app:idempotency:*')) as string[];
    const values = await scene.redis.engineAll(keys.map((name) => ['GET', name]));
    const stored = JSON.stringify([rows, keys, values]);
    for (const secret of [token, refresh, account.password, account.email, 'Grace Hopper', key.slice(1, -1)]) {
      expect(stored).not.toContain(secret);
    }
    expect((await scene.call('DELETE', '/v1/users/me', { token })).status).toBe(204);
    expect(await scene.app.sql('SELECT id FROM idempotency_keys WHERE user_id = ?', userId)).toEqual([]);
  });
});

it('the cron forgets rows that have expired, a bounded number in a run; an expired key is as good as new', async () => {
  const key = newKey();
  const note = randomUUID();
  expect((await order(key, { note })).status).toBe(201);
  await scene.redis.idle();
  await scene.app.sql('UPDATE idempotency_keys SET expires_at_ms = 1');
  await flush();
  const later = await order(key, { note });
  expect(replayed(later)).toBe(false);
  expect(await scene.count(note)).toBe(2);
  await scene.app.sql(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 21000)
     INSERT INTO idempotency_keys (id, fingerprint, created_at_ms, expires_at_ms) SELECT 'old' || i, '', 1, 1 FROM n`,
  );
  await scene.app.scheduled();
  const left = async () =>
    Number((await scene.app.sql('SELECT count(*) AS n FROM idempotency_keys WHERE expires_at_ms = 1'))[0]?.['n']);
  expect(await left()).toBeGreaterThan(0);
  expect(await left()).toBeLessThanOrEqual(1_100);
  await scene.app.scheduled();
  expect(await left()).toBe(0);
  expect(replayed(await order(key, { note }))).toBe(true);
});
