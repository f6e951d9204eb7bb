import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';
import { drizzle } from 'drizzle-orm/d1';
import { beforeEach, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import type { Statement } from '../../../src/db/client';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

const bound = bindings();
const isolate = isolateFor(bound);
const call = callerOf(createApp({ isolate }), bound);

const password = 'correct horse battery';
let counter = 0;
let email = '';
let access = '';
let userId = '';

beforeEach(async () => {
  counter += 1;
  email = `eventful${counter}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', { body: { email, password, name: 'Eventful' } });
  access = body.access_token;
  userId = body.user.id;
});

const login = (given = password) => call('POST', '/v1/auth/login', { body: { email, password: given } });
const history = async (token = access) => (await call('GET', '/v1/users/me/events', { token })).body;
const kinds = async (token = access) => (await history(token)).items.map((event: { kind: string }) => event.kind);

describe('an account’s events', () => {
  test('say what happened to it, newest first, with device and address', async () => {
    await login('wrong horse battery');
    const phone = (await login()).body;
    await call('POST', '/v1/auth/logout', { token: phone.access_token });
    const answer = await call('POST', '/v1/auth/password', {
      token: access,
      body: { currentPassword: password, newPassword: 'another horse battery' },
      headers: { 'User-Agent': 'Phone\u00e9 1.0' },
    });
    const fresh = answer.body.access_token;
    expect(await kinds(fresh)).toEqual(['password-changed', 'logout', 'login', 'login-failed', 'registered']);
    const { items, total } = await history(fresh);
    expect(total).toBe(5);
    expect(items[0]).toEqual({
      id: expect.any(String),
      kind: 'password-changed',
      sessionId: expect.stringContaining(`${userId}.`),
      address: '203.0.113.9',
      device: 'Phone 1.0',
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    });
    expect(items[3].sessionId).toBeNull();
  });

  test('are one’s own, and for those who are signed in', async () => {
    const body = { email: `other${counter}@example.com`, password, name: 'Other' };
    const other = (await call('POST', '/v1/auth/register', { body })).body.access_token;
    expect(await kinds(other)).toEqual(['registered']);
    expect(await call('GET', '/v1/users/me/events')).toMatchObject({ status: 401 });
  });

  test('have a refresh token that was used again', async () => {
    const start = (await login()).body;
    const exchange = (token: string) => call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
    const second = (await exchange(start.refresh_token)).body;
    const third = (await exchange(second.refresh_token)).body;
    await call('GET', '/v1/users/me', { token: third.access_token });
    expect(await exchange(start.refresh_token)).toMatchObject({ status: 401, body: { code: 'TOKEN_REUSED' } });
    expect(await kinds()).toEqual(['refresh-reuse', 'login', 'registered']);
  });

  test('have what an administrator did, if it changed anything', async () => {
    await env.DB.prepare(`update users set role = 'admin' where id = ?`).bind(userId).run();
    const admin = (await login()).body.access_token;
    const target = (
      await call('POST', '/v1/auth/register', { body: { email: `t${counter}@example.com`, password, name: 'T' } })
    ).body.user.id as string;
    const patch = (body: unknown) => call('PATCH', `/v1/users/${target}`, { token: admin, body });
    const logged = vi.spyOn(console, 'info').mockImplementation(() => undefined);
    for (const role of ['admin', 'admin', 'user']) await patch({ role });
    await patch({ status: 'disabled', name: 'Renamed' });
    await patch({ status: 'disabled' });
    await patch({ status: 'active' });
    const lines = logged.mock.calls.map(([line]) => JSON.parse(String(line)) as Record<string, unknown>);
    logged.mockRestore();
    const { results } = await env.DB.prepare('select kind from events where user_id = ? order by rowid')
      .bind(target)
      .all();
    const expected = ['role-changed', 'role-changed', 'disabled', 'enabled'];
    expect(results.map(({ kind }) => kind)).toEqual(['registered', ...expected]);
    const audit = lines.filter(({ event }) => String(event).startsWith('audit.'));
    expect(audit).toEqual(
      expected.map((kind) => ({
        level: 'info',
        event: `audit.${kind.replaceAll('-', '_')}`,
        userId: target,
        by: userId,
        requestId: expect.any(String),
      })),
    );
  });

  test('are the last 50, of which failed logins at most 10: a stranger cannot push the rest out', async () => {
    const db = drizzle(env.DB);
    const note = (kind: 'login-failed' | 'logout') =>
      inRequest(({ services }) => {
        const entry = services.event.prepare({ kind, userId });
        return db.batch(entry.statements(db) as [Statement, ...Statement[]]);
      });
    for (let round = 0; round < 14; round += 1) await note('login-failed');
    expect(await kinds()).toEqual([...Array.from({ length: 10 }, () => 'login-failed'), 'registered']);
    for (let round = 0; round < 45; round += 1) await note('logout');
    const all = await kinds();
    expect(all).toHaveLength(50);
    expect(all.filter((kind: string) => kind === 'login-failed')).toHaveLength(5);
    const { results } = await env.DB.prepare('select id from events where user_id = ?').bind(userId).all();
    expect(results).toHaveLength(50);
  });

  test.each([
    ['login-limited', 5],
    ['password-failed', 10],
    ['recovery-requested', 10],
    ['deletion-requested', 10],
  ] as const)('of the kind %s are the last %d', async (kind, kept) => {
    const db = drizzle(env.DB);
    for (let round = 0; round < kept + 2; round += 1) {
      await inRequest(({ services }) => {
        const [first, ...rest] = services.event.prepare({ kind, userId }).statements(db);
        return db.batch([first!, ...rest]);
      });
    }
    expect((await kinds()).filter((one: string) => one === kind)).toHaveLength(kept);
  });

  test('are not pushed out by a stranger who asks to recover the password', async () => {
    const db = drizzle(env.DB);
    const record = (kind: 'recovery-requested' | 'logout') =>
      inRequest(({ services }) => {
        const [first, ...rest] = services.event.prepare({ kind, userId }).statements(db);
        return db.batch([first!, ...rest]);
      });
    for (let round = 0; round < 10; round += 1) await record('recovery-requested');
    for (let round = 0; round < 39; round += 1) await record('logout');
    for (let round = 0; round < 12; round += 1) await record('recovery-requested');
    const all = await kinds();
    expect(all.filter((kind: string) => kind === 'recovery-requested')).toHaveLength(10);
    expect(all.slice(10)).toEqual([...Array.from({ length: 39 }, () => 'logout'), 'registered']);
  });

  test('go with the account', async () => {
    expect(await call('DELETE', '/v1/users/me', { token: access })).toMatchObject({ status: 204 });
    const { results } = await env.DB.prepare('select id from events where user_id = ?').bind(userId).all();
    expect(results).toEqual([]);
  });

  test('are in the log without anything personal', async () => {
    const lines: string[] = [];
    const spies = (['info', 'warn', 'error', 'debug'] as const).map((level) =>
      vi.spyOn(console, level).mockImplementation((line) => void lines.push(String(line))),
    );
    await login('wrong horse battery');
    await call('POST', '/v1/auth/login', { body: { email: 'nobody@example.com', password } });
    const { body } = await login();
    await call('POST', '/v1/auth/revoke', { body: { token: body.access_token } });
    await call('POST', '/v1/auth/logout-all', { token: access });
    for (const spy of spies) spy.mockRestore();
    const logged = lines.map((line) => (JSON.parse(line) as { event: string }).event);
    expect(logged).toEqual([
      'audit.login_failed',
      'request.refused',
      'audit.login_failed',
      'request.refused',
      'audit.login',
      'audit.token_revoked',
      'audit.logout_all',
    ]);
    const text = lines.join('\n');
    for (const secret of [email, 'nobody@', password, 'wrong horse', body.access_token, body.refresh_token]) {
      expect(text).not.toContain(secret);
    }
    // Addresses are masked.
    expect(text).not.toMatch(/203\.0\.113\.(?!0\/24)/);
  });
});

test('a failed login asks the database the same before its answer, whether there is such an account', async () => {
  const before: number[] = [];
  const after: number[] = [];
  for (const tried of [email, `nobody.${email}`]) {
    let queries = 0;
    const counted = bindings({ DB: tappedD1((query) => ((queries += 1), query())) });
    const context = createExecutionContext();
    const request = new Request('http://gatehouse.test/v1/auth/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'CF-Connecting-IP': '203.0.113.78' },
      body: JSON.stringify({ email: tried, password: 'wrong horse battery' }),
    });
    const answer = await createApp({ isolate }).fetch(request, counted, context);
    expect(answer.status).toBe(401);
    before.push(queries);
    await waitOnExecutionContext(context);
    after.push(queries);
  }
  expect(before).toEqual([1, 1]);
  // The event of the one that exists comes later.
  expect(after).toEqual([2, 1]);
});

describe('a change that overtakes a login', () => {
  /** D1 with something that happens right before the batch that begins the session. */
  function overtaken(byWhat: string): D1Database {
    let batches = 0;
    return tappedD1(async (query, kind) => {
      if (kind === 'batch') batches += 1;
      if (kind === 'batch' && batches === 2) await env.DB.prepare(byWhat).bind(userId).run();
      return query();
    });
  }
  const loginWhile = (byWhat: string) =>
    inRequest(({ services }) => services.auth.login({ email, password }, { device: 'Phone', address: '' }), {
      isolate,
      db: overtaken(byWhat),
    });
  const sessionsOf = async () =>
    (await env.DB.prepare(`select epoch from sessions where user_id = ? and device = 'Phone'`).bind(userId).all())
      .results;

  test('a logout everywhere: the login counts after it, with tokens that are good', async () => {
    const signedIn = await loginWhile('update users set epoch = epoch + 1 where id = ?');
    expect(await call('GET', '/v1/users/me', { token: signedIn.access_token })).toMatchObject({ status: 200 });
    expect(await sessionsOf()).toEqual([{ epoch: 2 }]);
  });

  test('a disabling: no session, and the answer says so', async () => {
    const disable = `update users set epoch = epoch + 1, status = 'disabled' where id = ?`;
    await expect(loginWhile(disable)).rejects.toMatchObject({ code: 'ACCOUNT_DISABLED' });
    expect(await sessionsOf()).toEqual([]);
  });

  test('a new password: the old one does not count any more', async () => {
    const other = `$scrypt$ln=15,r=8,p=3$${'A'.repeat(22)}$${'A'.repeat(43)}`;
    const change = `update users set epoch = epoch + 1, password_hash = '${other}' where id = ?`;
    await expect(loginWhile(change)).rejects.toMatchObject({ code: 'INVALID_CREDENTIALS' });
    expect(await sessionsOf()).toEqual([]);
  });
});

test('of two password changes at once one is made, and the other ends no session', async () => {
  const other = (await login()).body.access_token;
  const change = (token: string, newPassword: string) =>
    call('POST', '/v1/auth/password', { token, body: { currentPassword: password, newPassword } });
  const answers = await Promise.all([change(access, 'first horse battery'), change(other, 'second horse battery')]);
  const winner = answers.find(({ status }) => status === 200);
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  const { results } = await env.DB.prepare('select id from sessions where user_id = ? and ended_at_ms is null')
    .bind(userId)
    .all();
  expect(results).toHaveLength(1);
  const fresh = winner?.body.access_token as string;
  expect(fresh.split('.')[1] && JSON.parse(atob(fresh.split('.')[1] ?? '')).sid).toBe(results[0]?.['id']);
  expect((await kinds(fresh)).filter((kind: string) => kind === 'password-changed')).toHaveLength(1);
});
