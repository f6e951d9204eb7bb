import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer, Call } from '../../support/client.ts';
import { login } from '../../support/flow.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { signedIn } from '../faults/scene.ts';
import type { SignedIn } from '../faults/scene.ts';
import { costOf, expectAlike, expectRefused, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

let mailbox: Mailbox;
let scene: AttackScene;
beforeAll(async () => {
  mailbox = await startMailbox();
  const settings = {
    LIMIT_API: '20/15m',
    LIMIT_ADMIN: '20/15m',
    LIMIT_ACCOUNT: '12/15m',
    LIMIT_LOGIN: '5/15m',
    LIMIT_LOGIN_ADDRESS: '50/15m',
    LIMIT_VERIFICATION: '3/1h',
    LIMIT_REGISTER: '3/1m',
    LIMIT_REGISTER_DAY: '8/1d',
    LIMIT_MAILBOX: '5/1d',
    LIMIT_RECOVERY: '10/15m',
    LIMIT_RECOVERY_ACCOUNT: '5/1h',
    UNVERIFIED_TTL_SECONDS: '604800',
    SESSIONS_PER_USER: '10',
  };
  scene = await startAttack(settings, mailbox);
});
afterAll(async () => {
  await scene[Symbol.asyncDispose]();
  await mailbox[Symbol.asyncDispose]();
});

let host = 0;
/** A client in a network of its own. */
const stranger = () => clientOf(scene.app.url, `10.${(host += 1) >> 8}.${host & 255}.1`);
const guess = (email: string, call = stranger()) => login(call, { email, password: `wrong guess ${randomUUID()}` });

/** How often each code came. */
function tally(answers: readonly Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { body } of answers) {
    const code = (body as { code?: string }).code ?? 'ok';
    counts[code] = (counts[code] ?? 0) + 1;
  }
  return counts;
}

/** So many at a time that the Worker keeps up. */
async function inParallel<T>(count: number, work: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (next < count) {
        const index = next;
        next += 1;
        results[index] = await work(index);
      }
    }),
  );
  return results;
}

describe('a thief with a stolen access token', () => {
  /** Routes that their owner needs, with a response that shows that no limit refused. */
  const NEEDED: readonly [name: string, method: string, path: (owner: SignedIn) => string, body?: unknown][] = [
    ['the list of devices', 'GET', () => '/v1/sessions'],
    ['the history', 'GET', () => '/v1/users/me/events'],
    ['ending a device', 'DELETE', ({ userId }) => `/v1/sessions/${userId}.none`],
    ['the password', 'POST', () => '/v1/auth/password', { currentPassword: 'no', newPassword: 'whole new horse' }],
    ['logout-all', 'POST', () => '/v1/auth/logout-all'],
    ['logout', 'POST', () => '/v1/auth/logout'],
    ['the export', 'GET', () => '/v1/users/me/export'],
    // Last: the account is gone then.
    ['the deletion', 'DELETE', () => '/v1/users/me'],
  ];

  /** Every route that a token opens and that does not end it. */
  async function spendEverything(token: string): Promise<void> {
    const routes: [string, string, unknown?][] = [
      ['GET', '/v1/users/me'],
      ['PATCH', '/v1/users/me', { name: 'Thief' }],
      ['GET', '/v1/users'],
      ['POST', '/v1/auth/verification'],
      ['GET', '/v1/sessions'],
      ['GET', '/v1/users/me/events'],
      ['DELETE', '/v1/sessions/none'],
      ['POST', '/v1/auth/password', { currentPassword: 'guess', newPassword: 'whole new horse' }],
    ];
    const thief = stranger();
    for (const [method, path, body] of routes) {
      let last: Answer | undefined;
      for (let request = 0; request < 25 && last?.status !== 429; request += 1) {
        last = await thief(method, path, { token, ...(body !== undefined && { body }) });
      }
      expect([method, path, last?.status]).toEqual([method, path, 429]);
    }
  }

  test('leaves its owner, after a new login, everything that is needed to shut the thief out', async () => {
    const owner = await scene.newAccount();
    await spendEverything(owner.access);
    for (const [name, method, path, body] of NEEDED) {
      const again = await scene.signIn(owner);
      const options = { token: again.access, ...(body !== undefined && { body }) };
      const { status } = await scene.call(method, path(again), options);
      expect([200, 204, 403, 404], `${name}: ${status}`).toContain(status);
    }
  });

  test('cannot use up the limit of signing out without ending the session', async () => {
    const owner = await scene.newAccount();
    await spendEverything(owner.access);
    expect((await scene.call('POST', '/v1/auth/logout', { token: owner.access })).status).toBe(204);
    expectRefused(await scene.me(owner.access), 'TOKEN_REVOKED');
  });

  test('guesses the current password twenty times at most: then the session ends', async () => {
    const owner = await scene.newAccount();
    await scene.app.sql('UPDATE sessions SET password_failures = 17 WHERE id = ?', owner.sessionId);
    const body = { currentPassword: 'wrong guess', newPassword: 'whole new horse' };
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => stranger()('POST', '/v1/auth/password', { token: owner.access, body })),
    );
    expect(tally(answers)).toEqual({ PASSWORD_INCORRECT: 3, TOKEN_REVOKED: 2 });
    expectRefused(await scene.me(owner.access), 'TOKEN_REVOKED');
    const again = await scene.signIn(owner);
    const { body: history } = await scene.call('GET', '/v1/users/me/events', { token: again.access });
    const kinds = (history as { items: { kind: string }[] }).items.map(({ kind }) => kind);
    expect(kinds).toContain('session-revoked');
    await expect
      .poll(async () => {
        const [row] = await scene.app.sql(
          "SELECT count(*) AS n FROM events WHERE user_id = ? AND kind = 'password-failed'",
          owner.id,
        );
        return row?.['n'];
      })
      .toBe(3);
  });

  test('and a right password sets the count back', async () => {
    const owner = await scene.newAccount();
    await scene.app.sql('UPDATE sessions SET password_failures = 19 WHERE id = ?', owner.sessionId);
    const body = { currentPassword: owner.password, newPassword: 'whole new horse' };
    expect((await scene.call('POST', '/v1/auth/password', { token: owner.access, body })).status).toBe(200);
    const [row] = await scene.app.sql('SELECT password_failures FROM sessions WHERE id = ?', owner.sessionId);
    expect(row).toEqual({ password_failures: 0 });
  });
});

describe('wrong passwords from everywhere', () => {
  const failures = async (account: string) =>
    (await scene.app.sql('SELECT failed, last_at_ms FROM login_failures WHERE account = ?', account))[0];
  /** As if an account's last failure were an hour ago. */
  const anHourLater = (account: string) =>
    scene.app.sql('UPDATE login_failures SET last_at_ms = last_at_ms - 3600000 WHERE account = ?', account);

  test('400 guesses from 400 networks: 50 are checked, then strangers wait', async () => {
    const owner = await scene.newAccount();
    const answers = await inParallel(400, () => guess(owner.email));
    expect(tally(answers)).toEqual({ INVALID_CREDENTIALS: 50, RATE_LIMITED: 350 });
    for (const answer of answers.filter(({ status }) => status === 429)) {
      expectRefused(answer, 'RATE_LIMITED');
      expect(answer.body['violated-policies']).toEqual(['login-account']);
      const seconds = Number(answer.headers.get('Retry-After'));
      expect(seconds).toBeGreaterThan(0);
      expect(seconds).toBeLessThanOrEqual(30);
    }
  });

  test('however long they wait, a hundred in a row are checked, and the right password is refused then', async () => {
    const owner = await scene.newAccount();
    const account = `u:${owner.id}`;
    let checked = 0;
    for (let round = 0; round < 110; round += 1) {
      const answer = await guess(owner.email);
      checked += answer.status === 401 ? 1 : 0;
      await anHourLater(account);
    }
    expect(checked).toBe(100);
    expectRefused(await login(stranger(), owner), 'RATE_LIMITED');
    expect(await failures(account)).toMatchObject({ failed: 100 });

    // The owner, who registered from this network, is not a stranger; and the right password begins a new count.
    const home = clientOf(scene.app.url, await addressOf(owner));
    const again = signedIn(await login(home, owner));
    expect(await failures(account)).toBeUndefined();
    expect((await guess(owner.email)).status).toBe(401);
    const listed = async (): Promise<string[]> => {
      const { body } = await home('GET', '/v1/users/me/events', { token: again.access });
      return (body as { items: { kind: string }[] }).items.map(({ kind }) => kind);
    };
    // Events of wrong passwords are written well after the response.
    await expect.poll(async () => (await listed()).filter((kind) => kind === 'login-limited').length).toBe(2);
    const kinds = await listed();
    expect(kinds.filter((kind) => kind === 'login-failed').length).toBeLessThanOrEqual(10);
  });

  test.each([
    [49, 0],
    [50, 30],
    [57, 30],
    [58, 60],
    [66, 120],
    [74, 240],
    [82, 480],
    [90, 960],
    [98, 1_920],
    [100, 3_600],
  ])('after %d failures a stranger waits %d seconds', async (failed, seconds) => {
    const owner = await scene.newAccount();
    await scene.app.sql('INSERT INTO login_failures VALUES (?, ?, ?)', `u:${owner.id}`, failed, Date.now());
    const answer = await guess(owner.email);
    if (seconds === 0) expect(answer.status).toBe(401);
    else {
      expectRefused(answer, 'RATE_LIMITED');
      const given = Number(answer.headers.get('Retry-After'));
      expect(given).toBeLessThanOrEqual(seconds);
      expect(given).toBeGreaterThan(seconds / 2);
    }
  });

  test('of no account are forgotten 30 days after the last one, those of an account stay', async () => {
    const { id } = await scene.newAccount();
    const days = (count: number) => Date.now() - count * 86_400_000;
    const rows: [string, number][] = [
      ['e:old', days(30) - 60_000],
      ['e:recent', days(30) + 600_000],
      [`u:${id}`, days(400)],
    ];
    for (const [account, atMs] of rows) {
      await scene.app.sql('INSERT INTO login_failures VALUES (?, 7, ?)', account, atMs);
    }
    await scene.app.scheduled();
    const left = await Promise.all(rows.map(async ([account]) => (await failures(account))?.['failed']));
    expect(left).toEqual([undefined, 7, 7]);
  });

  test('twenty addresses are known: one more makes a stranger of that which was used least recently', async () => {
    const owner = await scene.newAccount();
    const from = (index: number) => clientOf(scene.app.url, `192.0.2.${index}`);
    const known = async () =>
      Number((await scene.app.sql('SELECT count(*) AS n FROM known_origins WHERE user_id = ?', owner.id))[0]?.['n']);
    // The registration's address is the twentieth.
    for (let index = 1; index <= 19; index += 1) signedIn(await login(from(index), owner));
    expect(await known()).toBe(20);
    signedIn(await login(from(1), owner));
    for (const index of [20, 21]) signedIn(await login(from(index), owner));
    expect(await known()).toBe(20);
    await scene.app.sql('INSERT INTO login_failures VALUES (?, 100, ?)', `u:${owner.id}`, Date.now());
    expectRefused(await login(from(2), owner), 'RATE_LIMITED');
    expect((await login(from(1), owner)).status).toBe(200);
  });

  /** Where an account was registered: newcomers come from addresses of their own. */
  async function addressOf({ id }: Pick<Victim, 'id'>): Promise<string> {
    const [row] = await scene.app.sql('SELECT address FROM sessions WHERE user_id = ? ORDER BY created_at_ms', id);
    return String(row?.['address']);
  }

  const closed = async () => {
    const owner = await scene.newAccount();
    await scene.app.sql('INSERT INTO login_failures VALUES (?, 100, ?)', `u:${owner.id}`, Date.now());
    expectRefused(await login(stranger(), owner), 'RATE_LIMITED');
    return owner;
  };

  test('do not keep the owner out who resets the password by mail', async () => {
    const owner = await closed();
    const away = stranger();
    const asked = await away('POST', '/v1/auth/recovery', { body: { email: owner.email } });
    expect(asked.status).toBe(202);
    await mailbox.tokenFor(owner.email); // the one that verifies the address
    const token = await mailbox.tokenFor(owner.email);
    const body = { token, newPassword: 'whole new horse' };
    await scene.app.sql('UPDATE known_origins SET failed = 100 WHERE user_id = ?', owner.id);
    expect((await away('POST', '/v1/auth/recovery/confirm', { body })).status).toBe(204);
    // Known addresses begin anew as well.
    const origins = await scene.app.sql('SELECT failed FROM known_origins WHERE user_id = ?', owner.id);
    expect(origins).toEqual([{ failed: 0 }]);
    expect((await login(away, { ...owner, password: 'whole new horse' })).status).toBe(200);
  });

  test('nor a household: an IPv6 client is known by its network', async () => {
    const owner = newcomer();
    const phone = clientOf(scene.app.url, '2001:db8:77:1::a');
    const { userId } = signedIn(await phone('POST', '/v1/auth/register', { body: owner }));
    await scene.app.sql('INSERT INTO login_failures VALUES (?, 100, ?)', `u:${userId}`, Date.now());
    expect((await login(clientOf(scene.app.url, '2001:0DB8:0077:0001:ffff::b'), owner)).status).toBe(200);
    await scene.app.sql('INSERT INTO login_failures VALUES (?, 100, ?)', `u:${userId}`, Date.now());
    expectRefused(await login(clientOf(scene.app.url, '2001:db8:77:2::a'), owner), 'RATE_LIMITED');
  });

  test('an address that never signed in with success does not become known', async () => {
    const owner = await closed();
    const call = stranger();
    await scene.app.sql('UPDATE login_failures SET failed = 10 WHERE account = ?', `u:${owner.id}`);
    expect((await guess(owner.email, call)).status).toBe(401);
    await scene.app.sql('UPDATE login_failures SET failed = 100 WHERE account = ?', `u:${owner.id}`);
    expectRefused(await login(call, owner), 'RATE_LIMITED');
  });

  test('of others do not count for a known address, which has a count of its own', async () => {
    const owner = await scene.newAccount();
    const home = clientOf(scene.app.url, await addressOf(owner));
    expect((await guess(owner.email, home)).status).toBe(401);
    expect(await failures(`u:${owner.id}`)).toBeUndefined();
    await scene.app.sql('UPDATE known_origins SET failed = 99 WHERE user_id = ?', owner.id);
    expect((await guess(owner.email, home)).status).toBe(401);
    expect(await failures(`u:${owner.id}`)).toBeUndefined();
    // The hundredth: from now on it is a stranger's.
    expect((await guess(owner.email, home)).status).toBe(401);
    expect(await failures(`u:${owner.id}`)).toMatchObject({ failed: 1 });
  });

  test('are counted for accounts that do not exist as for those that do', async () => {
    const owner = await scene.newAccount();
    const none = `nobody.${randomUUID().slice(0, 8)}@example.com`;
    const faces = async (email: string) =>
      (await inParallel(60, () => guess(email))).map(({ status, body }) => [status, (body as { code: string }).code]);
    const sorted = (list: unknown[]) => list.map((item) => JSON.stringify(item)).toSorted();
    expect(sorted(await faces(none))).toEqual(sorted(await faces(owner.email)));
    const rows = await scene.app.sql("SELECT account FROM login_failures WHERE account LIKE 'e:%'");
    expect(rows.length).toBeGreaterThan(0);
    // No address stands in a key, here or in Redis, and none can be read out of it.
    const stored = JSON.stringify([
      rows,
      await scene.app.sql('SELECT * FROM known_origins'),
      await scene.redis.engine('KEYS', '*'),
    ]);
    expect(stored).not.toMatch(/nobody|@example|10\.0\.\d+\.1/);
  });

  test('stay counted with Redis away, and after a restart', async () => {
    const owner = await scene.newAccount();
    scene.redis.mode = { kind: 'refuse' };
    try {
      const before = tally(await inParallel(40, () => guess(owner.email)));
      expect(before).toEqual({ INVALID_CREDENTIALS: 40 });
      await scene.app.kill();
      const after = tally(await inParallel(40, () => guess(owner.email)));
      expect(after).toEqual({ INVALID_CREDENTIALS: 10, RATE_LIMITED: 30 });
    } finally {
      await scene.redis.clear();
    }
  });

  test('a deleted account leaves no count behind', async () => {
    const owner = await closed();
    const home = clientOf(scene.app.url, await addressOf(owner));
    const { access } = signedIn(await login(home, owner));
    await guess(owner.email);
    expect((await home('DELETE', '/v1/users/me', { token: access })).status).toBe(204);
    expect(await failures(`u:${owner.id}`)).toBeUndefined();
    expect(await scene.app.sql('SELECT * FROM known_origins WHERE user_id = ?', owner.id)).toEqual([]);
  });

  test('twelve right passwords in a row, from one address, are none', async () => {
    const owner = await scene.newAccount();
    const call = stranger();
    const statuses: number[] = [];
    for (let round = 0; round < 12; round += 1) statuses.push((await login(call, owner)).status);
    expect(statuses).toEqual(Array.from({ length: 12 }, () => 200));
    // Wrong ones are still refused after the fifth.
    const wrong: number[] = [];
    for (let round = 0; round < 6; round += 1) wrong.push((await guess(owner.email, call)).status);
    expect(wrong).toEqual([401, 401, 401, 401, 401, 429]);
  });
});

describe('registrations', () => {
  const register = (call: Call, email: string) => call('POST', '/v1/auth/register', { body: { ...newcomer(), email } });

  test.each<[string, (mark: string, index: number) => string]>([
    ['plus-addresses', (mark, index) => `victim${mark}+${index}@example.com`],
    ['several plus signs', (mark, index) => `victim${mark}+${index}+x+y@example.com`],
    [
      'dots',
      (mark, index) => `v${'.'.repeat(index % 2)}i${index % 3 === 0 ? '.' : ''}ctim${mark}+${index}@example.com`,
    ],
    ['letter case', (mark, index) => `Victim${mark.toUpperCase()}+${index}@EXAMPLE.com`],
    [
      'two names of a provider',
      (mark, index) => `victim${mark}+${index}@${index % 2 === 0 ? 'gmail' : 'googlemail'}.com`,
    ],
  ])('40 of one mailbox by %s, from 40 networks: five mails', async (_, addressOf) => {
    const mark = randomUUID().slice(0, 8);
    const emails = Array.from({ length: 40 }, (__, index) => addressOf(mark, index));
    const answers = await inParallel(40, (index) => register(stranger(), emails[index]!));
    const { ok, RATE_LIMITED: refused = 0, ...others } = tally(answers);
    expect(others).toEqual({});
    expect([ok, refused]).toEqual([5, 35]);
    const known = new Set(emails.map((email) => email.toLowerCase()));
    await expect.poll(() => mailbox.mails.filter(({ to }) => known.has(to)).length).toBe(5);
  });

  test('of another mailbox, and failed ones, are not counted', async () => {
    const mark = randomUUID().slice(0, 8);
    const taken = `taken${mark}@example.com`;
    expect((await register(stranger(), taken)).status).toBe(201);
    for (let round = 0; round < 8; round += 1) expect((await register(stranger(), taken)).status).toBe(409);
    expect((await register(stranger(), `taken${mark}+1@example.com`)).status).toBe(201);
    expect((await register(stranger(), `taken${mark}@example.org`)).status).toBe(201);
  });

  test('from one address: three a minute, eight a day', async () => {
    const call = stranger();
    const burst = await inParallel(5, () => call('POST', '/v1/auth/register', { body: newcomer() }));
    expect(tally(burst)).toEqual({ ok: 3, RATE_LIMITED: 2 });
    for (let round = 0; round < 3; round += 1) {
      // As if a minute had passed.
      await forgetCounter('register');
      await inParallel(3, () => call('POST', '/v1/auth/register', { body: newcomer() }));
    }
    await forgetCounter('register');
    const last = await call('POST', '/v1/auth/register', { body: newcomer() });
    expectRefused(last, 'RATE_LIMITED');
    expect(last.body['violated-policies']).toEqual(['register-day']);
  });

  /** Forgets every counter of a limit, in Redis and, with a new isolate, in the Worker's memory. */
  async function forgetCounter(limit: string): Promise<void> {
    const keys = (await scene.redis.engine('KEYS', `app:ratelimit:${limit}:*`)) as string[];
    if (keys.length > 0) await scene.redis.engine('DEL', ...keys);
    await scene.app.kill();
  }

  test('that were never verified are deleted after a week, and no others', async () => {
    const [old, young, verified, admin] = [
      await scene.newAccount(),
      await scene.newAccount(),
      await scene.newAccount(),
      await scene.newAccount(),
    ];
    const weeks = 8 * 86_400_000;
    const age = (id: string) =>
      scene.app.sql('UPDATE users SET created_at_ms = created_at_ms - ? WHERE id = ?', weeks, id);
    for (const { id } of [old, verified, admin]) await age(id);
    await scene.app.sql('UPDATE users SET email_verified_at_ms = 1 WHERE id = ?', verified.id);
    // Two, so that the last one's protection is not what keeps it.
    await scene.app.sql("UPDATE users SET role = 'admin' WHERE id IN (?, ?)", admin.id, young.id);
    await scene.app.scheduled();
    const left = await scene.app.sql(
      'SELECT id FROM users WHERE id IN (?, ?, ?, ?)',
      old.id,
      young.id,
      verified.id,
      admin.id,
    );
    expect(new Set(left.map(({ id }) => id))).toEqual(new Set([young.id, verified.id, admin.id]));
    expectRefused(await scene.me(old.access), 'TOKEN_REVOKED');
    expect((await scene.me(young.access)).status).toBe(200);
    // The address is free again.
    expect((await register(stranger(), old.email)).status).toBe(201);
  });

  test('a flood of them is deleted twenty a run', async () => {
    const nowMs = Date.now();
    await scene.app.sql(
      `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms)
       SELECT value, value || '@flood.example.com', 'Nobody', 'h', ?, ? FROM json_each(?)`,
      nowMs - 30 * 86_400_000,
      nowMs,
      JSON.stringify(Array.from({ length: 45 }, () => randomUUID())),
    );
    const left = async () =>
      (await scene.app.sql("SELECT count(*) AS n FROM users WHERE email LIKE '%@flood.example.com'"))[0]?.['n'];
    const counts: unknown[] = [];
    for (let run = 0; run < 3; run += 1) {
      await scene.app.scheduled();
      counts.push(await left());
    }
    expect(counts).toEqual([25, 5, 0]);
  });
});

describe('a bare access token', () => {
  const agoMs = (sessionId: string, ms: number) =>
    scene.app.sql('UPDATE sessions SET created_at_ms = created_at_ms - ? WHERE id = ?', ms, sessionId);
  const refreshed = async ({ refresh }: SignedIn) =>
    signedIn(await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } }));
  const deletion = (token: string) => scene.call('DELETE', '/v1/users/me', { token });
  const prove = (token: string, password: string) =>
    scene.call('POST', '/v1/auth/reauthenticate', { token, body: { password } });
  const authTime = (token: string) =>
    (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { auth_time?: number }).auth_time;

  function expectStale(answer: Answer): void {
    expectRefused(answer, 'REAUTHENTICATION_REQUIRED');
    const challenge = answer.headers.get('WWW-Authenticate');
    expect(challenge).toContain('error="insufficient_user_authentication"');
    expect(challenge).toContain('max_age="600"');
  }

  /** A session whose user signed in an hour ago, with the tokens that it has now. */
  async function oldSession() {
    const owner = await scene.newAccount();
    await agoMs(owner.sessionId, 3_600_000);
    return { owner, held: await refreshed(owner) };
  }

  test('deletes no account, exports nothing, and asks for no other address, an hour after the login', async () => {
    const { owner, held } = await oldSession();
    for (let refreshes = 0; refreshes < 3; refreshes += 1) expectStale(await deletion(held.access));
    expectStale(await deletion((await refreshed(held)).access));
    expectStale(await scene.call('GET', '/v1/users/me/export', { token: held.access }));
    const body = { email: newcomer().email };
    expectStale(await scene.call('POST', '/v1/users/me/email', { token: held.access, body }));
    expect((await scene.app.sql('SELECT 1 FROM users WHERE id = ?', owner.id)).length).toBe(1);
  });

  test.each([
    [590, 204],
    [620, 401],
  ])('%i seconds after the login: %i', async (seconds, status) => {
    const owner = await scene.newAccount();
    await agoMs(owner.sessionId, seconds * 1_000);
    expect((await deletion((await refreshed(owner)).access)).status).toBe(status);
  });

  test('with the password once more it does, and the token from before does not', async () => {
    const { owner, held } = await oldSession();
    expectRefused(await prove(held.access, 'wrong horse battery'), 'PASSWORD_INCORRECT');
    expectStale(await deletion(held.access));
    const proved = await prove(held.access, owner.password);
    expect(Object.keys(proved.body as object).toSorted()).toEqual(['access_token', 'expires_in', 'token_type']);
    expectStale(await deletion(held.access));
    const fresh = (proved.body as { access_token: string }).access_token;
    expect(authTime(fresh)).toBeGreaterThan(Date.now() / 1_000 - 60);
    // The session remembers it: what a refresh brings is fresh, too.
    expect(authTime((await refreshed(held)).access)).toBe(authTime(fresh));
    expect((await deletion(fresh)).status).toBe(204);
  });

  test('guesses five passwords in a quarter of an hour; in another session its owner is not in their way', async () => {
    const { owner, held } = await oldSession();
    const guesses = [];
    for (let round = 0; round < 7; round += 1) guesses.push(await prove(held.access, `wrong guess ${round}`));
    expect(tally(guesses)).toEqual({ PASSWORD_INCORRECT: 5, RATE_LIMITED: 2 });
    const again = await scene.signIn(owner);
    for (let round = 0; round < 7; round += 1) expect((await prove(again.access, owner.password)).status).toBe(200);
  });

  test('of a session that has ended, or of another password, proves nothing', async () => {
    const { owner, held } = await oldSession();
    const other = await scene.signIn(owner);
    const body = { currentPassword: owner.password, newPassword: 'whole new horse' };
    expect((await scene.call('POST', '/v1/auth/password', { token: other.access, body })).status).toBe(200);
    for (const password of [owner.password, 'whole new horse']) {
      expectRefused(await prove(held.access, password), 'TOKEN_REVOKED');
    }
  });

  test('needs the same while Redis is away', async () => {
    const { owner, held } = await oldSession();
    scene.redis.mode = { kind: 'refuse' };
    try {
      expectStale(await deletion(held.access));
      const proved = await prove(held.access, owner.password);
      expect(proved.status).toBe(200);
      expect((await deletion((proved.body as { access_token: string }).access_token)).status).toBe(204);
    } finally {
      await scene.redis.clear();
    }
  });

  test('that was issued while the database was away says nothing of the password, and is not fresh', async () => {
    const owner = await scene.newAccount();
    await scene.app.database('away');
    const answer = await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: owner.refresh } });
    await scene.app.database('here');
    const held = signedIn(answer);
    expect(authTime(held.access)).toBeUndefined();
    expectStale(await deletion(held.access));
  });
});

describe('another e-mail address', () => {
  const ask = (token: string, email: string) => scene.call('POST', '/v1/users/me/email', { token, body: { email } });
  const confirm = (token: string) => stranger()('POST', '/v1/auth/email/confirm', { body: { token } });
  const undo = (token: string) => stranger()('POST', '/v1/auth/email/undo', { body: { token } });
  const addressOf = async (id: string) =>
    (await scene.app.sql('SELECT email FROM users WHERE id = ?', id))[0]?.['email'];
  const kindsOf = async (id: string) =>
    (await scene.app.sql('SELECT kind FROM events WHERE user_id = ? ORDER BY rowid', id)).map(({ kind }) => kind);
  const mailsTo = (email: string) => mailbox.mails.filter(({ to }) => to === email);

  /** An account whose own mailbox is empty, and the address that it is to have. */
  async function mover() {
    const owner = await scene.newAccount();
    await mailbox.tokenFor(owner.email);
    return { owner, next: newcomer().email };
  }

  /** Changes the address. @returns the token that undoes it */
  async function changed(owner: Victim, next: string, access = owner.access, former = owner.email): Promise<string> {
    expect((await ask(access, next)).status).toBe(202);
    expect((await confirm(await mailbox.tokenFor(next))).status).toBe(204);
    return mailbox.tokenFor(former);
  }

  test('is confirmed where it is read, announced at the old one, and sessions go on', async () => {
    const { owner, next } = await mover();
    expect((await ask(owner.access, next)).status).toBe(202);
    const token = await mailbox.tokenFor(next);
    expect(await addressOf(owner.id)).toBe(owner.email);
    expect((await confirm(token)).status).toBe(204);
    expect(await addressOf(owner.id)).toBe(next);
    await mailbox.tokenFor(owner.email);
    expect((await login(stranger(), owner)).status).toBe(401);
    expect((await login(stranger(), { ...owner, email: next })).status).toBe(200);
    // The access token is out of date; the session is not.
    expectRefused(await scene.me(owner.access), 'TOKEN_SUPERSEDED');
    const held = signedIn(await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: owner.refresh } }));
    expect((await scene.me(held.access)).body).toMatchObject({ email: next, emailVerified: true });
    expect(await kindsOf(owner.id)).toEqual(expect.arrayContaining(['email-change-requested', 'email-changed']));
    const record = await scene.redis.engine('HGET', `app:session:{${owner.id}}.${owner.sessionId.split('.')[1]}`, 'd');
    expect(record).toContain(next);
  });

  test('undone by the old one: every session and the password end, and a mail recovers the account', async () => {
    const { owner, next } = await mover();
    const token = await changed(owner, next);
    const thief = signedIn(await login(stranger(), { ...owner, email: next }));
    const epoch = async () => (await scene.app.sql('SELECT epoch FROM users WHERE id = ?', owner.id))[0]?.['epoch'];
    const before = Number(await epoch());
    expect((await undo(token)).status).toBe(204);
    expect(await addressOf(owner.id)).toBe(owner.email);
    // Twice over: the sessions are marked as ended, and the epoch outdates their tokens.
    expect(await epoch()).toBeGreaterThan(before);
    const ended = await scene.app.sql('SELECT DISTINCT ended_reason FROM sessions WHERE user_id = ?', owner.id);
    expect(ended).toEqual([{ ended_reason: 'email' }]);
    expectRefused(await scene.me(thief.access), 'TOKEN_REVOKED');
    for (const refresh of [thief.refresh, owner.refresh]) {
      expectRefused(
        await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } }),
        'TOKEN_REVOKED',
      );
    }
    for (const email of [owner.email, next]) expect((await login(stranger(), { ...owner, email })).status).toBe(401);
    const body = { token: await mailbox.tokenFor(owner.email), newPassword: 'whole new horse' };
    expect((await stranger()('POST', '/v1/auth/recovery/confirm', { body })).status).toBe(204);
    expect((await login(stranger(), { ...owner, password: 'whole new horse' })).status).toBe(200);
    expect(await kindsOf(owner.id)).toContain('email-change-undone');
    expectRefused(await undo(token), 'ONE_TIME_TOKEN_INVALID');
  });

  test('whether the new address has an account shows in no response, no cost and no history', async () => {
    const other = await scene.newAccount();
    const moved = await mover();
    await changed(moved.owner, moved.next);
    const unknown = newcomer().email;
    await expectAlike(async () => {
      const seen: unknown[] = [];
      for (const email of [unknown, other.email, moved.owner.email]) {
        const asking = await scene.newAccount();
        const { face, pipelines } = await costOf(scene, () => ask(asking.access, email));
        await expect.poll(() => kindsOf(asking.id)).toContain('email-change-requested');
        seen.push({ face, pipelines, kinds: await kindsOf(asking.id) });
      }
      return seen;
    });
    expect(mailsTo(moved.owner.email)).toEqual([]);
  });

  test('is not given by a token that was used, is of another kind, or was overtaken', async () => {
    const { owner, next } = await mover();
    await ask(owner.access, next);
    const token = await mailbox.tokenFor(next);
    for (const shown of [
      token.replace('gotc1', 'gotu1'),
      token.replace('gotc1', 'gotv1'),
      `gotc1.${'A'.repeat(43)}`,
      'x',
    ]) {
      expectRefused(await confirm(shown), 'ONE_TIME_TOKEN_INVALID');
      expectRefused(await undo(shown), 'ONE_TIME_TOKEN_INVALID');
    }
    const answers = await Promise.all(Array.from({ length: 6 }, () => confirm(token)));
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1);
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    expect(await mailbox.tokenFor(owner.email)).toMatch(/^gotu1/);
  });

  test.each<[string, (owner: Victim) => Promise<unknown>]>([
    [
      'another password',
      (owner) =>
        scene.call('POST', '/v1/auth/password', {
          token: owner.access,
          body: { currentPassword: owner.password, newPassword: 'whole new horse' },
        }),
    ],
    ['a logout everywhere', (owner) => scene.call('POST', '/v1/auth/logout-all', { token: owner.access })],
    ['another change', (owner) => changed(owner, newcomer().email)],
    ['a disabled account', ({ id }) => scene.app.sql("UPDATE users SET status = 'disabled' WHERE id = ?", id)],
    ['a deletion', (owner) => scene.call('DELETE', '/v1/users/me', { token: owner.access })],
    ['a registration with it', () => Promise.resolve()],
  ])('is not given after %s', async (what, happens) => {
    const { owner, next } = await mover();
    await ask(owner.access, next);
    const token = await mailbox.tokenFor(next);
    await happens(owner);
    if (what === 'a registration with it') {
      const body = { ...newcomer(), email: next };
      expect((await stranger()('POST', '/v1/auth/register', { body })).status).toBe(201);
    }
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    expect(await addressOf(owner.id)).not.toBe(next);
  });

  test('leaves the old one to its account for a week: no other account can register it or change to it', async () => {
    const { owner, next } = await mover();
    const token = await changed(owner, next);
    const grab = () => stranger()('POST', '/v1/auth/register', { body: { ...newcomer(), email: owner.email } });
    const grabs = await Promise.all([grab(), grab(), grab()]);
    expect(tally(grabs)).toEqual({ EMAIL_TAKEN: 3 });
    const thief = await scene.newAccount();
    await ask(thief.access, owner.email);
    await expect.poll(() => kindsOf(thief.id)).toContain('email-change-requested');
    expect(mailsTo(owner.email)).toEqual([]);
    expect((await undo(token)).status).toBe(204);
    const kept = await mover();
    const late = await changed(kept.owner, kept.next);
    await scene.app.sql('UPDATE one_time_tokens SET expires_at_ms = 1 WHERE user_id = ?', kept.owner.id);
    expectRefused(await undo(late), 'ONE_TIME_TOKEN_INVALID');
    const body = { ...newcomer(), email: kept.owner.email };
    expect((await stranger()('POST', '/v1/auth/register', { body })).status).toBe(201);
  });

  test('is not given once it has become the former one of another account', async () => {
    const { owner, next } = await mover();
    await ask(owner.access, next);
    const token = await mailbox.tokenFor(next);
    const body = { ...newcomer(), email: next };
    const other = signedIn(await stranger()('POST', '/v1/auth/register', { body }));
    await mailbox.tokenFor(next); // the one that verifies the address
    const [later, undoing] = [newcomer().email, next];
    expect((await ask(other.access, later)).status).toBe(202);
    expect((await confirm(await mailbox.tokenFor(later))).status).toBe(204);
    expect(await mailbox.tokenFor(undoing)).toMatch(/^gotu1/);
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    expect(await addressOf(owner.id)).toBe(owner.email);
  });

  test('changed twice by a thief, and undone by the thief: the owner’s undo of the first change stands above all', async () => {
    const { owner, next } = await mover();
    const owners = await changed(owner, next);
    const thief = signedIn(await login(stranger(), { ...owner, email: next }));
    const third = newcomer().email;
    const thiefs = await changed(owner, third, thief.access, next);
    expect((await undo(thiefs)).status).toBe(204);
    expect(await addressOf(owner.id)).toBe(next);
    const thiefsRecovery = await mailbox.tokenFor(next);
    expect((await undo(owners)).status).toBe(204);
    expect(await addressOf(owner.id)).toBe(owner.email);
    const body = { token: thiefsRecovery, newPassword: 'thief thief thief' };
    expectRefused(await stranger()('POST', '/v1/auth/recovery/confirm', { body }), 'ONE_TIME_TOKEN_INVALID');
  });

  test('undone by the owner, no later undo brings the thief’s address back', async () => {
    const { owner, next } = await mover();
    const owners = await changed(owner, next);
    // By an isolate whose clock is ahead of that of the one which makes the thief's change.
    await scene.app.sql('UPDATE one_time_tokens SET created_at_ms = created_at_ms + 60000 WHERE user_id = ?', owner.id);
    const thief = signedIn(await login(stranger(), { ...owner, email: next }));
    const thiefs = await changed(owner, newcomer().email, thief.access, next);
    expect((await undo(owners)).status).toBe(204);
    expectRefused(await undo(thiefs), 'ONE_TIME_TOKEN_INVALID');
    expect(await addressOf(owner.id)).toBe(owner.email);
  });

  test('is asked for with a fresh sign-in alone, three times an hour, and five times a mailbox', async () => {
    const owner = await scene.newAccount();
    await scene.app.sql('UPDATE sessions SET created_at_ms = 1 WHERE id = ?', owner.sessionId);
    const held = signedIn(await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: owner.refresh } }));
    for (let time = 0; time < 5; time += 1) {
      expectRefused(await ask(held.access, newcomer().email), 'REAUTHENTICATION_REQUIRED');
    }
    const mark = randomUUID().slice(0, 8);
    const answers: Answer[] = [];
    for (let account = 0; account < 3; account += 1) {
      const fresh = await scene.newAccount();
      for (let time = 0; time < 4; time += 1)
        answers.push(await ask(fresh.access, `v.ictim${mark}+${account}${time}@example.com`));
    }
    // Three, then two of the second account's: the mailbox has had five.
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202, 429, 202, 202, 429, 429, 429, 429, 429, 429]);
  });

  test('goes to one of two accounts that confirm it at once', async () => {
    const [one, two] = [await mover(), await mover()];
    await Promise.all([ask(one.owner.access, one.next), ask(two.owner.access, one.next)]);
    const tokens = [await mailbox.tokenFor(one.next), await mailbox.tokenFor(one.next)];
    const answers = await Promise.all(tokens.map(confirm));
    expect(tally(answers)).toEqual({ ok: 1, ONE_TIME_TOKEN_INVALID: 1 });
    const rows = await scene.app.sql('SELECT id FROM users WHERE email = ?', one.next);
    expect(rows).toHaveLength(1);
  });

  test('is found by a search, and the old one is not', async () => {
    const { owner, next } = await mover();
    await changed(owner, next);
    const [row] = await scene.app.sql('SELECT search FROM users WHERE id = ?', owner.id);
    expect(row?.['search']).toContain(next);
    expect(row?.['search']).not.toContain(owner.email);
    expect(row?.['search']).toContain(owner.name.toLowerCase());
  });

  test('and no log line, and no key, says any of them', async () => {
    const text = scene.app.logs.join('\n');
    expect(text).toContain('"audit.email_changed"');
    expect(text).not.toMatch(/@example\.com|got[rvcud]1\.|horse battery|whole new horse/);
    expect(JSON.stringify(await scene.redis.engine('KEYS', '*'))).not.toMatch(/@|example/);
  });
});

describe('deletion without the app', () => {
  const ask = (email: string, call = stranger()) => call('POST', '/v1/auth/deletion', { body: { email } });
  const confirm = (token: unknown) => stranger()('POST', '/v1/auth/deletion/confirm', { body: { token } });
  const rowsOf = async (id: string) => {
    const tables = ['one_time_tokens', 'events', 'known_origins', 'idempotency_keys'];
    const counted = tables.map((table) => `(SELECT count(*) FROM ${table} WHERE user_id = ?1)`);
    const [row] = await scene.app.sql(
      `SELECT (SELECT count(*) FROM users WHERE id = ?1) AS users, ${counted.join(' + ')} AS more`,
      id,
    );
    return row;
  };
  const isThere = async (id: string) => (await rowsOf(id))?.['users'] === 1;

  /** An account, and the token that deletes it. */
  async function asked() {
    const owner = await scene.newAccount();
    const verification = await mailbox.tokenFor(owner.email);
    expect((await ask(owner.email)).status).toBe(202);
    return { owner, verification, token: await mailbox.tokenFor(owner.email) };
  }

  test('deletes the account once: of six who show the token, one does, and nothing is left', async () => {
    const { owner, token } = await asked();
    expect(token).toMatch(/^gotd1\./);
    const shown = (await scene.call('GET', '/v1/users/me/events', { token: owner.access })).body as {
      items: { kind: string }[];
    };
    expect(shown.items.map(({ kind }) => kind)).toContain('deletion-requested');
    const answers = await Promise.all(Array.from({ length: 6 }, () => confirm(token)));
    expect(tally(answers)).toEqual({ ok: 1, ONE_TIME_TOKEN_INVALID: 5 });
    expect(await rowsOf(owner.id)).toEqual({ users: 0, more: 0 });
    expectRefused(await scene.me(owner.access), 'TOKEN_REVOKED');
    expectRefused(await login(stranger(), owner), 'INVALID_CREDENTIALS');
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    const line = scene.app.logs.find((text) => text.includes('"audit.deleted"') && text.includes(owner.id));
    expect(line).toBeDefined();
  });

  test('whether an address has an account shows in no response; only active accounts get a mail', async () => {
    await expectAlike(async () => {
      const owner = await scene.newAccount();
      const disabled = await scene.newAccount();
      const unknown = newcomer().email;
      for (const { email } of [owner, disabled]) await mailbox.tokenFor(email);
      await scene.app.sql("UPDATE users SET status = 'disabled' WHERE id = ?", disabled.id);
      const seen: unknown[] = [];
      for (const email of [owner.email, unknown, disabled.email]) {
        const { face, answer, pipelines } = await costOf(scene, () => ask(email));
        expect([answer.status, answer.body, pipelines.length > 0]).toEqual([202, { status: 'accepted' }, true]);
        if (email === owner.email) await mailbox.tokenFor(email);
        seen.push({ face, pipelines });
      }
      expect([mailbox.attemptsTo(unknown), mailbox.attemptsTo(disabled.email)]).toEqual([0, 1]);
      return seen;
    });
  });

  test('is not given by a token of another kind, and its own opens nothing else', async () => {
    const { owner, verification, token } = await asked();
    await stranger()('POST', '/v1/auth/recovery', { body: { email: owner.email } });
    const recovery = await mailbox.tokenFor(owner.email);
    const random = token.slice(6);
    const kinds = ['gotr1', 'gotv1', 'gotc1', 'gotu1'];
    const shown = [
      ...[verification, recovery].flatMap((other) => [other, `gotd1.${other.slice(6)}`]),
      ...kinds.map((kind) => `${kind}.${random}`),
      random,
      `${token} `,
      `${token}\n`,
      token.toUpperCase(),
      `gotd1.${'A'.repeat(43)}`,
      'x',
    ];
    for (const text of shown) expectRefused(await confirm(text), 'ONE_TIME_TOKEN_INVALID');
    for (const form of [token, ...kinds.map((kind) => `${kind}.${random}`)]) {
      const newPassword = 'whole new horse';
      const attempts = [
        stranger()('POST', '/v1/auth/recovery/confirm', { body: { token: form, newPassword } }),
        ...['verification/confirm', 'email/confirm', 'email/undo'].map((path) =>
          stranger()('POST', `/v1/auth/${path}`, { body: { token: form } }),
        ),
      ];
      for (const answer of await Promise.all(attempts)) expectRefused(answer, 'ONE_TIME_TOKEN_INVALID');
    }
    // A program that opens links in mails deletes nothing.
    const path = `/v1/auth/deletion/confirm?token=${token}`;
    expectRefused(await stranger()('GET', path), 'METHOD_NOT_ALLOWED');
    expectRefused(await stranger()('POST', path, { body: {} }), 'VALIDATION_FAILED');
    expect((await scene.me(owner.access)).status).toBe(200);
    expect((await confirm(token)).status).toBe(204);
    expect(await isThere(owner.id)).toBe(false);
  });

  test.each<[string, (owner: Victim) => Promise<unknown>]>([
    [
      'another password',
      ({ access, password }) =>
        scene.call('POST', '/v1/auth/password', {
          token: access,
          body: { currentPassword: password, newPassword: 'whole new horse' },
        }),
    ],
    ['a logout everywhere', ({ access }) => scene.call('POST', '/v1/auth/logout-all', { token: access })],
    [
      'a reset of the password',
      async ({ email }) => {
        await stranger()('POST', '/v1/auth/recovery', { body: { email } });
        const body = { token: await mailbox.tokenFor(email), newPassword: 'whole new horse' };
        expect((await stranger()('POST', '/v1/auth/recovery/confirm', { body })).status).toBe(204);
      },
    ],
    [
      'a change of the address, and its undo',
      async ({ access, email }) => {
        const next = newcomer().email;
        await scene.call('POST', '/v1/users/me/email', { token: access, body: { email: next } });
        const change = { token: await mailbox.tokenFor(next) };
        expect((await stranger()('POST', '/v1/auth/email/confirm', { body: change })).status).toBe(204);
        const undo = { token: await mailbox.tokenFor(email) };
        expect((await stranger()('POST', '/v1/auth/email/undo', { body: undo })).status).toBe(204);
      },
    ],
    ['a disabled account', ({ id }) => scene.app.sql("UPDATE users SET status = 'disabled' WHERE id = ?", id)],
    ['an hour', ({ id }) => scene.app.sql('UPDATE one_time_tokens SET expires_at_ms = 1 WHERE user_id = ?', id)],
    [
      'three more mails',
      async ({ id }) => {
        await scene.app.sql(
          `INSERT INTO one_time_tokens (hash, purpose, user_id, email, created_at_ms, expires_at_ms)
         SELECT 'h' || value || users.id, 'deletion', users.id, email, 8e15, 9e15 FROM users, json_each('[1,2]') WHERE users.id = ?`,
          id,
        );
        const [user] = await scene.app.sql('SELECT email FROM users WHERE id = ?', id);
        await ask(String(user?.['email']));
        await mailbox.tokenFor(String(user?.['email']));
      },
    ],
  ])('is not given after %s', async (_, happens) => {
    const { owner, token } = await asked();
    await happens(owner);
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    expect(await isThere(owner.id)).toBe(true);
  });

  test('is not given to an account that was disabled meanwhile and is enabled again', async () => {
    const { owner, token } = await asked();
    const admin = await scene.newAccount();
    await scene.app.sql("UPDATE users SET role = 'admin' WHERE id = ?", admin.id);
    const { access } = signedIn(await login(stranger(), admin));
    for (const status of ['disabled', 'active']) {
      const changed = await scene.call('PATCH', `/v1/users/${owner.id}`, { token: access, body: { status } });
      expect(changed.status).toBe(200);
    }
    expectRefused(await confirm(token), 'ONE_TIME_TOKEN_INVALID');
    expect(await isThere(owner.id)).toBe(true);
  });

  test('five mails an hour to an account, ten requests a quarter of an hour from an address; recovery has its own', async () => {
    const { owner } = await asked();
    const { email: lower } = owner;
    const spellings = [lower.toUpperCase(), ` ${lower}`, lower, `${lower}\t`, lower];
    const statuses: number[] = [];
    for (const email of spellings) statuses.push((await ask(email)).status);
    expect(statuses).toEqual([202, 202, 202, 202, 429]);
    expect((await stranger()('POST', '/v1/auth/recovery', { body: { email: owner.email } })).status).toBe(202);
    const one = stranger();
    const asking = Array.from({ length: 12 }, () => ask(newcomer().email, one));
    expect(tally(await Promise.all(asking))).toEqual({ ok: 10, RATE_LIMITED: 2 });
  });

  test('leaves an administrator, and the token is good when there is another', async () => {
    const { owner, token } = await asked();
    await scene.app.sql("UPDATE users SET role = CASE WHEN id = ? THEN 'admin' ELSE 'user' END", owner.id);
    expectRefused(await confirm(token), 'LAST_ADMINISTRATOR');
    expect(await isThere(owner.id)).toBe(true);
    const other = await scene.newAccount();
    await scene.app.sql("UPDATE users SET role = 'admin' WHERE id = ?", other.id);
    expect((await confirm(token)).status).toBe(204);
    expect(await isThere(owner.id)).toBe(false);
  });

  test('no mail holds a text of the person who asked for it, and no log line a token or an address', async () => {
    const body = { ...newcomer(), name: 'https://evil.example', device: '<b>evil.example</b>' };
    expect((await stranger()('POST', '/v1/auth/register', { body })).status).toBe(201);
    await mailbox.tokenFor(body.email);
    await ask(body.email);
    await expect.poll(() => mailbox.mails.find(({ to }) => to === body.email)?.subject).toContain('Delete your');
    expect(JSON.stringify(mailbox.mails)).not.toContain('evil.example');
    expect(scene.app.logs.join('\n')).not.toMatch(/@example\.com|got[rvcud]1\./);
  });
});

describe('data of strangers, and of sessions that have ended', () => {
  const addressOf = async (sessionId: string) =>
    (await scene.app.sql('SELECT address, ended_reason FROM sessions WHERE id = ?', sessionId))[0];
  const shown = ['203.0.113.77', '2001:db8:12:34::56'] as const;
  const networks = ['203.0.113.0/24', '2001:db8:12::/48'] as const;

  test('no text of a stranger comes before the owner, in the history or the export', async () => {
    const owner = await scene.newAccount();
    const headers = { 'User-Agent': 'You have won: evil.example' };
    const { email } = owner;
    const wrong = { email, password: 'not the password', device: 'Call 555-0100' };
    expectRefused(await stranger()('POST', '/v1/auth/login', { headers, body: wrong }), 'INVALID_CREDENTIALS');
    for (const path of ['recovery', 'deletion']) {
      expect((await stranger()('POST', `/v1/auth/${path}`, { headers, body: { email } })).status).toBe(202);
    }
    await scene.app.sql(`UPDATE login_failures SET failed = 49, last_at_ms = 1 WHERE account = ?`, `u:${owner.id}`);
    await stranger()('POST', '/v1/auth/login', { headers, body: wrong });
    const seen = async () =>
      JSON.stringify([
        (await scene.call('GET', '/v1/users/me/events', { token: owner.access })).body,
        (await scene.call('GET', '/v1/users/me/export', { token: owner.access })).body,
        await scene.app.sql('SELECT * FROM events WHERE user_id = ?', owner.id),
      ]);
    for (const kind of ['login-failed', 'login-limited', 'recovery-requested', 'deletion-requested']) {
      await expect.poll(seen).toContain(`"${kind}"`);
    }
    expect(await seen()).not.toMatch(/evil\.example|555-0100/);
  });

  test.each<[string, (owner: Victim, live: readonly SignedIn[]) => Promise<unknown>]>([
    [
      'logout',
      (_, live) => Promise.all(live.map(({ access: token }) => scene.call('POST', '/v1/auth/logout', { token }))),
    ],
    [
      'revoked',
      ({ access: token }, live) =>
        Promise.all(live.map(({ sessionId }) => scene.call('DELETE', `/v1/sessions/${sessionId}`, { token }))),
    ],
    ['logout-all', ({ access: token }) => scene.call('POST', '/v1/auth/logout-all', { token })],
    [
      'password',
      ({ access: token, password }) =>
        scene.call('POST', '/v1/auth/password', {
          token,
          body: { currentPassword: password, newPassword: 'whole new horse' },
        }),
    ],
    [
      'evicted',
      async (owner) => {
        for (let times = 0; times < 11; times += 1) await login(stranger(), owner);
      },
    ],
    [
      'administrator',
      async ({ id }) => {
        const admin = await scene.newAccount();
        await scene.app.sql("UPDATE users SET role = 'admin' WHERE id = ?", admin.id);
        const { access: token } = signedIn(await login(stranger(), admin));
        expect((await scene.call('POST', '/v1/admin/sessions/end', { token, body: {} })).status).toBe(200);
        expect(await scene.app.sql('SELECT id FROM sessions WHERE user_id = ? AND ended_at_ms IS NULL', id)).toEqual(
          [],
        );
      },
    ],
  ])('the address of a session that has ended (%s) is kept as its network', async (reason, end) => {
    const owner = await scene.newAccount();
    const live: SignedIn[] = [];
    for (const address of shown) live.push(signedIn(await login(clientOf(scene.app.url, address), owner)));
    for (const [index, { sessionId }] of live.entries()) {
      expect(await addressOf(sessionId)).toEqual({ address: shown[index], ended_reason: null });
    }
    await end(owner, live);
    for (const [index, { sessionId }] of live.entries()) {
      expect(await addressOf(sessionId)).toEqual({ address: networks[index], ended_reason: reason });
    }
  });
});

describe('a session that is not used for a week', () => {
  const IDLE_MS = 7 * 86_400_000;
  const refresh = (token: string) => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
  const recordOf = ({ userId, sessionId }: SignedIn) => `app:session:{${userId}}.${sessionId.split('.')[1]}`;
  const restMs = async (session: SignedIn) => Number(await scene.redis.engine('PTTL', recordOf(session)));
  /** As if it had been used so long ago: D1 says so, and the record in Redis has expired. */
  const unusedFor = async (session: SignedIn, ms: number) => {
    await scene.app.sql('UPDATE sessions SET last_seen_at_ms = ? WHERE id = ?', Date.now() - ms, session.sessionId);
    await scene.redis.engine('DEL', recordOf(session));
  };

  test('its record in Redis lives for a week from each refresh on', async () => {
    const owner = await scene.newAccount();
    expect(await restMs(owner)).toBeLessThanOrEqual(IDLE_MS);
    expect(await restMs(owner)).toBeGreaterThan(IDLE_MS - 60_000);
    await scene.redis.engine('PEXPIRE', recordOf(owner), 100_000);
    signedIn(await refresh(owner.refresh));
    expect(await restMs(owner)).toBeGreaterThan(IDLE_MS - 60_000);
    expect(await restMs(owner)).toBeLessThanOrEqual(IDLE_MS);
  });

  test('has ended, and a minute earlier it has not', async () => {
    const owner = await scene.newAccount();
    await unusedFor(owner, IDLE_MS - 60_000);
    const used = signedIn(await refresh(owner.refresh));
    // That was a use.
    await scene.redis.engine('DEL', recordOf(owner));
    const again = signedIn(await refresh(used.refresh));
    await unusedFor(again, IDLE_MS);
    expectRefused(await refresh(again.refresh), 'TOKEN_REVOKED');
    expectRefused(await refresh(again.refresh), 'TOKEN_REVOKED');
    const other = signedIn(await login(stranger(), owner));
    const listed = (await scene.call('GET', '/v1/sessions', { token: other.access })).body as {
      items: { id: string }[];
    };
    expect(listed.items.map(({ id }) => id)).toEqual([other.sessionId]);
  });

  test('has ended while Redis is away as well', async () => {
    const [idle, live] = [await scene.newAccount(), await scene.newAccount()];
    await unusedFor(idle, IDLE_MS);
    await unusedFor(live, IDLE_MS - 60_000);
    scene.redis.mode = { kind: 'refuse' };
    try {
      expectRefused(await refresh(idle.refresh), 'TOKEN_REVOKED');
      expect((await refresh(live.refresh)).status).toBe(200);
    } finally {
      await scene.redis.clear();
    }
  });
});
