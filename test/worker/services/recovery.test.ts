import { createHmac } from 'node:crypto';

import { env } from 'cloudflare:workers';
import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { createPasswordService } from '../../../src/services/password.service';
import type { Derive } from '../../../src/services/password.service';
import { newcomer } from '../../support/client';
import type { Answer } from '../../support/client';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

type Sent = EmailMessageBuilder & { to: string; text: string };

const mailbox: Sent[] = [];
const START = Date.now();
let clock = START;
const now = () => clock;
const MINUTE = 60_000;

const bound = bindings({
  MAILER: 'cloudflare',
  MAIL_FROM: 'hello@example.net',
  APP_NAME: 'Tea & Co',
  RECOVERY_URL: 'https://app.example/reset#token={token}',
  EMAIL: { send: async (mail: Sent) => void mailbox.push(mail) },
});
const isolate = isolateFor(bound, { now });
const app = createApp({ isolate, now });
const call = callerOf(app, bound);

beforeEach(() => {
  mailbox.length = 0;
  clock = START;
});
afterEach(() => vi.restoreAllMocks());

const sql = async (query: string, ...values: unknown[]) =>
  (
    await env.DB.prepare(query)
      .bind(...values)
      .all()
  ).results;
const tokenIn = (mail: Sent | undefined) => /got[rvcud]1\.[\w-]{43}/.exec(mail?.text ?? '')?.[0] ?? 'none';
/** The token of the newest mail. */
const lastToken = () => tokenIn(mailbox.at(-1));

async function register() {
  const person = newcomer();
  const answer = await call('POST', '/v1/auth/register', { body: person });
  expect(answer.status).toBe(201);
  return {
    ...person,
    id: answer.body.user.id as string,
    access: answer.body.access_token as string,
    welcome: lastToken(),
  };
}

const recover = (email: string) => call('POST', '/v1/auth/recovery', { body: { email } });
const reset = (token: string, newPassword = 'a whole new password') =>
  call('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword } });
const verify = (token: string) => call('POST', '/v1/auth/verification/confirm', { body: { token } });
const login = (email: string, password: string) => call('POST', '/v1/auth/login', { body: { email, password } });

const invalid = { status: 400, body: { code: 'ONE_TIME_TOKEN_INVALID' } };
const live = (userId: string) => sql('select * from one_time_tokens where user_id = ? order by rowid', userId);

describe('recovery', () => {
  test('a mailed token sets a password, once', async () => {
    const person = await register();
    const asked = await recover(person.email.toUpperCase());
    expect(asked).toMatchObject({ status: 202, body: { status: 'accepted' } });
    expect(mailbox).toHaveLength(2);
    const token = lastToken();
    expect(mailbox[1]).toEqual({
      from: { email: 'hello@example.net', name: 'Tea & Co' },
      to: person.email,
      subject: 'Reset your Tea & Co password',
      text: expect.stringContaining(`https://app.example/reset#token=${token}\n`),
      html: expect.stringContaining(`<a href="https://app.example/reset#token=${token}">`),
    });
    expect(mailbox[1]!.html).toContain('Tea &amp; Co account');
    expect(JSON.stringify(mailbox[1])).not.toContain(person.name);

    expect((await reset(token)).status).toBe(204);
    expect((await login(person.email, person.password)).body.code).toBe('INVALID_CREDENTIALS');
    const back = await login(person.email, 'a whole new password');
    expect(back).toMatchObject({ status: 200, body: { user: { emailVerified: true } } });
    expect(await reset(token)).toMatchObject(invalid);
    expect((await login(person.email, 'a whole new password')).status).toBe(200);
  });

  test('ends every session, whose access tokens are refused at once, and invalidates the cached user', async () => {
    const person = await register();
    const me = (token: string) => call('GET', '/v1/users/me', { token });
    expect((await me(person.access)).body.emailVerified).toBe(false);
    await recover(person.email);
    expect((await reset(lastToken())).status).toBe(204);
    expect((await me(person.access)).body.code).toBe('TOKEN_REVOKED');
    const { body } = await login(person.email, 'a whole new password');
    expect((await me(body.access_token)).body.emailVerified).toBe(true);
    const ended = await sql('select ended_reason from sessions where user_id = ? and ended_at_ms > 0', person.id);
    expect(ended).toEqual([{ ended_reason: 'password' }]);
  });

  test('a known and an unknown address get the same answer, after the same work', async () => {
    const person = await register();
    const seen: { answer: Response; before: number; after: number }[] = [];
    for (const email of [person.email, 'nobody@example.com']) {
      let queries = 0;
      const counted = bindings({ ...bound, DB: countingD1(() => (queries += 1)) });
      const context = createExecutionContext();
      const request = new Request('http://gatehouse.test/v1/auth/recovery', {
        method: 'POST',
        headers: {
          'Content-Type': 'application/json',
          'CF-Connecting-IP': '203.0.113.77',
          'X-Request-Id': 'the-same-for-both',
        },
        body: JSON.stringify({ email }),
      });
      const answer = await app.fetch(request, counted, context);
      const before = queries;
      await waitOnExecutionContext(context);
      seen.push({ answer, before, after: queries });
    }
    const [known, unknown] = seen as [(typeof seen)[0], (typeof seen)[0]];
    expect(known.before).toBe(1);
    expect(unknown.before).toBe(1);
    // What differs came later.
    expect(known.after).toBeGreaterThan(unknown.after);
    expect(known.answer.status).toBe(202);
    expect(unknown.answer.status).toBe(202);
    expect(await known.answer.text()).toBe(await unknown.answer.text());
    const headers = ({ answer }: (typeof seen)[0]) =>
      [...answer.headers].filter(([name]) => !['date', 'ratelimit'].includes(name));
    expect(headers(known)).toEqual(headers(unknown));
    expect(headers(known).map(([name]) => name)).toContain('ratelimit-policy');
    expect(mailbox.map(({ to }) => to)).toEqual([person.email, person.email]);
  });

  test('the database knows a hash, never the token', async () => {
    const person = await register();
    await recover(person.email);
    const rows = await live(person.id);
    expect(rows).toMatchObject([{ purpose: 'verification' }, { purpose: 'recovery', email: person.email }]);
    expect(JSON.stringify(rows)).not.toContain(lastToken().slice(6));
    expect(await reset(String(rows[1]!['hash']))).toMatchObject(invalid);
  });

  test('a text that cannot be a token costs no query', async () => {
    let queries = 0;
    const direct = callerOf(app, bindings({ ...bound, DB: countingD1(() => (queries += 1)) }));
    for (const token of ['x', `gotr1.${'A'.repeat(42)}`, `grt1.${'A'.repeat(43)}`, `gotr1.${'A'.repeat(43)}\n`]) {
      const answer = await direct('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword: 'long enough' } });
      expect(answer).toMatchObject(invalid);
    }
    expect(queries).toBe(0);
  });

  test('a token is good for its own purpose alone', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    expect(await verify(token)).toMatchObject(invalid);
    expect(await reset(person.welcome)).toMatchObject(invalid);
    expect(await reset(person.welcome.replace('gotv1', 'gotr1'))).toMatchObject(invalid);
    expect((await verify(person.welcome)).status).toBe(204);
    expect((await reset(token)).status).toBe(204);
  });

  test('expires, to the millisecond, and is then forgotten', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    clock = START + 30 * MINUTE;
    expect(await reset(token)).toMatchObject(invalid);
    clock -= 1;
    await inRequest(({ services }) => services.recovery.purge(), { isolate, now });
    expect(await live(person.id)).toHaveLength(2);
    expect((await reset(token)).status).toBe(204);

    await recover(person.email);
    clock += 30 * MINUTE;
    await inRequest(({ services }) => services.recovery.purge(), { isolate, now });
    expect(await live(person.id)).toMatchObject([{ purpose: 'verification' }]);
    clock = START + 24 * 60 * MINUTE;
    expect(await verify(person.welcome)).toMatchObject(invalid);
  });

  test('a password that is refused does not use the token up', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    // Too short, too common, the owner's own address.
    for (const password of ['short', 'password1', person.email]) {
      expect(await reset(token, password)).toMatchObject({
        status: 422,
        body: { code: 'VALIDATION_FAILED', errors: [{ pointer: '/newPassword' }] },
      });
    }
    expect((await reset(token)).status).toBe(204);
  });

  test('three are good at a time; using one withdraws the others', async () => {
    const person = await register();
    for (let i = 0; i < 4; i += 1) {
      await recover(person.email);
      // Each by an isolate whose clock is a minute behind that of the one before.
      await sql('update one_time_tokens set created_at_ms = created_at_ms + 60000 where user_id = ?', person.id);
    }
    const [first, second, third, fourth] = mailbox.slice(1).map(tokenIn) as [string, string, string, string];
    expect(await live(person.id)).toHaveLength(1 + 3);
    expect(await reset(first)).toMatchObject(invalid);
    expect((await reset(third)).status).toBe(204);
    expect(await reset(second)).toMatchObject(invalid);
    expect(await reset(fourth)).toMatchObject(invalid);
  });

  test('a change of the password withdraws it', async () => {
    const person = await register();
    await recover(person.email);
    const changed = await call('POST', '/v1/auth/password', {
      token: person.access,
      body: { currentPassword: person.password, newPassword: 'changed by its owner' },
    });
    expect(changed.status).toBe(200);
    expect(await reset(lastToken())).toMatchObject(invalid);
    expect((await login(person.email, 'changed by its owner')).status).toBe(200);
  });

  test('so does a change of the address: the token says nothing of the new one', async () => {
    const person = await register();
    await recover(person.email);
    await sql('update users set email = ? where id = ?', `new.${person.email}`, person.id);
    expect(await reset(lastToken())).toMatchObject(invalid);
    expect(await verify(person.welcome)).toMatchObject(invalid);
    expect(await sql('select email_verified_at_ms from users where id = ?', person.id)).toEqual([
      { email_verified_at_ms: null },
    ]);
    expect((await login(`new.${person.email}`, person.password)).status).toBe(200);
  });

  test('a disabled account gets no mail, and a token that was mailed before does not change it', async () => {
    const person = await register();
    await recover(person.email);
    await sql(`update users set status = 'disabled' where id = ?`, person.id);
    expect((await recover(person.email)).status).toBe(202);
    expect(mailbox).toHaveLength(2);
    const before = await sql('select * from users where id = ?', person.id);
    expect(await reset(lastToken())).toMatchObject(invalid);
    expect(await sql('select * from users where id = ?', person.id)).toEqual(before);
    // Disabled by an administrator, it is not recovered with an old mail either once it is enabled again.
    await sql(`update users set status = 'active' where id = ?`, person.id);
    for (const status of ['disabled', 'active'] as const) {
      await inRequest(({ services }) => services.user.updateUser(person.id, { status }), { isolate, now });
    }
    expect(await reset(lastToken())).toMatchObject(invalid);
    expect((await login(person.email, person.password)).status).toBe(200);
  });

  test('a deleted account leaves no token', async () => {
    const person = await register();
    await recover(person.email);
    expect((await call('DELETE', '/v1/users/me', { token: person.access })).status).toBe(204);
    expect(await live(person.id)).toEqual([]);
    expect(await reset(lastToken())).toMatchObject(invalid);
  });

  test('20 who show one token at once: one of them has it', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    const passwords = Array.from({ length: 20 }, (_, i) => `a new password, number ${i}`);
    // All of them have seen that the token is good before the first may take it.
    let arrived = 0;
    let open = () => {};
    const all = new Promise<void>((resolve) => (open = resolve));
    const meet = () => {
      if ((arrived += 1) === passwords.length) open();
      return all;
    };
    // Twenty hashes of the real cost take longer than the database may.
    const derive: Derive = (password, salt, length) =>
      createHmac('sha512', salt).update(password).digest().subarray(0, length);
    const quick = { ...isolate, passwords: createPasswordService({ config: isolate.config, derive }) };
    const meeting = createApp({ isolate: quick, now });
    const answers = await Promise.all(
      passwords.map((newPassword) => {
        const own = callerOf(meeting, bindings({ ...bound, DB: gatedD1(meet) }));
        return own('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword } });
      }),
    );
    expect(arrived).toBe(20);
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1);
    expect(answers.filter(({ body }) => body.code === 'ONE_TIME_TOKEN_INVALID')).toHaveLength(19);
    const winner = answers.findIndex(({ status }) => status === 204);
    const back = { email: person.email, password: passwords[winner] };
    expect((await callerOf(meeting, bound)('POST', '/v1/auth/login', { body: back })).status).toBe(200);
    const resets = `select count(*) as n from events where user_id = ? and kind = 'password-reset'`;
    expect(await sql(resets, person.id)).toEqual([{ n: 1 }]);
  });

  test('a loser of that race ends no session that has begun since', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    // Looks while the token is good, and comes with its change when the winner has signed in again.
    const late = callerOf(app, bindings({ ...bound, DB: gatedD1(winner) }));
    const loser = await late('POST', '/v1/auth/recovery/confirm', {
      body: { token, newPassword: 'of the one who is late' },
    });
    expect(loser).toMatchObject(invalid);
    const { body } = await login(person.email, 'a whole new password');
    expect((await call('GET', '/v1/users/me', { token: body.access_token })).status).toBe(200);
    expect(
      await sql('select count(*) as n from sessions where user_id = ? and ended_at_ms is null', person.id),
    ).toEqual([{ n: 2 }]);

    async function winner() {
      expect((await reset(token)).status).toBe(204);
      expect((await login(person.email, 'a whole new password')).status).toBe(200);
    }
  });
});

describe('verification', () => {
  test('the mail of the registration confirms the address, from any device, once', async () => {
    const person = await register();
    expect(mailbox).toMatchObject([
      {
        to: person.email,
        subject: 'Confirm your e-mail address for Tea & Co',
        text: expect.stringContaining('gotv1.'),
      },
    ]);
    const me = () => call('GET', '/v1/users/me', { token: person.access });
    expect((await me()).body.emailVerified).toBe(false);
    expect((await verify(person.welcome)).status).toBe(204);
    expect((await me()).body.emailVerified).toBe(true);
    expect(await verify(person.welcome)).toMatchObject(invalid);
  });

  test('its owner may ask for another, until it is verified', async () => {
    const person = await register();
    const ask = () => call('POST', '/v1/auth/verification', { token: person.access });
    expect(await ask()).toMatchObject({ status: 202, body: { status: 'accepted' } });
    expect(mailbox).toHaveLength(2);
    const second = lastToken();
    expect(second).not.toBe(person.welcome);
    expect((await verify(second)).status).toBe(204);
    expect(await verify(person.welcome)).toMatchObject(invalid);
    expect((await ask()).status).toBe(202);
    expect(mailbox).toHaveLength(2);
    expect(await call('POST', '/v1/auth/verification')).toMatchObject({ status: 401 });
  });
});

describe('limits', () => {
  const strict = () => {
    const own = bindings({
      ...bound,
      LIMIT_RECOVERY: '5/15m',
      LIMIT_RECOVERY_ACCOUNT: '3/1h',
      LIMIT_VERIFICATION: '1/1h',
    });
    return callerOf(createApp({ isolate: isolateFor(own) }), own);
  };
  const from = (client: ReturnType<typeof strict>, email: string, address: string) =>
    client('POST', '/v1/auth/recovery', { body: { email }, headers: { 'CF-Connecting-IP': address } });

  test('a mailbox cannot be flooded, from however many addresses; an unknown account is limited alike', async () => {
    const person = await register();
    mailbox.length = 0;
    const client = strict();
    const refused: Answer[] = [];
    for (const email of [person.email, `nobody.${person.email}`]) {
      for (let i = 1; i <= 3; i += 1) expect((await from(client, email, `198.51.100.${i}`)).status).toBe(202);
      // Another spelling is the same mailbox.
      refused.push(await from(client, ` ${email.toUpperCase()}`, '198.51.100.4'));
    }
    for (const answer of refused) {
      expect(answer).toMatchObject({
        status: 429,
        body: { code: 'RATE_LIMITED', 'violated-policies': ['recovery-account'] },
      });
      expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    }
    expect(mailbox).toHaveLength(3);
  });

  test('nor by registering it, deleting the account and registering it again', async () => {
    const client = strict();
    const body = {
      email: `again.${Math.random().toString(36).slice(2)}@example.org`,
      password: 'correct horse battery',
      name: 'Again',
    };
    const attempt = (i: number) =>
      client('POST', '/v1/auth/register', { body, headers: { 'CF-Connecting-IP': `198.51.100.${i}` } });
    mailbox.length = 0;
    for (let i = 1; i <= 3; i += 1) {
      const { status, body: signedIn } = await attempt(i);
      expect(status).toBe(201);
      // What is taken is not counted.
      if (i === 1) expect((await attempt(i)).status).toBe(409);
      expect((await client('DELETE', '/v1/users/me', { token: signedIn.access_token })).status).toBe(204);
    }
    expect(await attempt(4)).toMatchObject({ status: 429, body: { 'violated-policies': ['register-account'] } });
    expect(mailbox).toHaveLength(3);
  });

  test('one client address cannot ask for any number of accounts', async () => {
    const client = strict();
    for (let i = 1; i <= 5; i += 1) expect((await from(client, `n${i}@example.org`, '192.0.2.1')).status).toBe(202);
    const sixth = await from(client, 'n6@example.org', '192.0.2.1');
    expect(sixth.body['violated-policies']).toEqual(['recovery']);
  });

  test('nor a user for more than so many mails', async () => {
    const person = await register();
    const client = strict();
    const ask = () => client('POST', '/v1/auth/verification', { token: person.access });
    expect((await ask()).status).toBe(202);
    expect(await ask()).toMatchObject({ status: 429, body: { 'violated-policies': ['verification'] } });
  });
});

describe('when something is away', () => {
  test('without the database every address gets a 503 with Retry-After, known or not', async () => {
    const person = await register();
    await recover(person.email);
    const token = lastToken();
    const broken = callerOf(app, bindings({ ...bound, DB: brokenD1() }));
    const log = vi.spyOn(console, 'error').mockReturnValue();
    for (const send of [
      () => broken('POST', '/v1/auth/recovery', { body: { email: person.email } }),
      () => broken('POST', '/v1/auth/recovery', { body: { email: 'nobody@example.com' } }),
      () => broken('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword: 'a whole new password' } }),
      () => broken('POST', '/v1/auth/verification', { token: person.access }),
      () => broken('POST', '/v1/auth/verification/confirm', { body: { token: person.welcome } }),
    ]) {
      const answer = await send();
      expect(answer).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
      expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    }
    // The database's failure, and the response.
    expect(log).toHaveBeenCalledTimes(10);
    // Nothing was used up.
    expect((await reset(token)).status).toBe(204);
  });

  test('without a mailer it says so to every caller; registering works', async () => {
    const own = bindings({ MAILER: 'none' });
    const client = callerOf(createApp({ isolate: isolateFor(own) }), own);
    const person = newcomer();
    const { status, body } = await client('POST', '/v1/auth/register', { body: person });
    expect(status).toBe(201);
    expect(await live(body.user.id)).toEqual([]);
    const log = vi.spyOn(console, 'error').mockReturnValue();
    for (const email of [person.email, 'nobody@example.com']) {
      const answer = await client('POST', '/v1/auth/recovery', { body: { email } });
      expect(answer).toMatchObject({
        status: 503,
        body: { code: 'CONFIG_INVALID', detail: expect.stringContaining('MAILER') },
      });
    }
    // The setting at fault, and the response.
    expect(log).toHaveBeenCalledTimes(4);
  });

  test('a mail that cannot be sent is logged without its address, and the answer stands', async () => {
    const person = await register();
    const refusing = bindings({
      ...bound,
      EMAIL: {
        send: async ({ to }: Sent) => {
          throw Object.assign(new Error(`${to} is suppressed`), { code: 'E_RECIPIENT_SUPPRESSED' });
        },
      },
    });
    const lines: string[] = [];
    for (const level of ['info', 'warn', 'error'] as const) {
      vi.spyOn(console, level).mockImplementation((line: string) => void lines.push(line));
    }
    const client = callerOf(createApp({ isolate: isolateFor(refusing, { now }) }), refusing);
    expect((await client('POST', '/v1/auth/recovery', { body: { email: person.email } })).status).toBe(202);
    expect(lines.map((line) => JSON.parse(line))).toContainEqual({
      level: 'error',
      event: 'mail.failed',
      kind: 'recovery',
      final: true,
      error: 'Error',
      code: 'E_RECIPIENT_SUPPRESSED',
      requestId: expect.any(String),
    });
    expect(lines.join('\n')).not.toMatch(/@|got[rvcud]1/);
  });
});

/** The database, telling of each query that reaches it. */
function countingD1(count: () => void): D1Database {
  return tappedD1((query) => {
    count();
    return query();
  });
}

/** The database, whose second batch waits for something: the first is a look, the second the change. */
function gatedD1(before: () => Promise<unknown>): D1Database {
  let batches = 0;
  return tappedD1(async (query, kind) => {
    if (kind === 'batch' && (batches += 1) === 2) await before();
    return query();
  });
}

function brokenD1(): D1Database {
  return tappedD1(() => Promise.reject(new Error('D1_ERROR: no such luck')));
}
