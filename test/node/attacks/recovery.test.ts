import { randomBytes } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { ErrorCode } from '../../../src/errors.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Call } from '../../support/client.ts';
import { expectTokens, login } from '../../support/flow.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { looseBits } from './forge.ts';
import { costOf, expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { request } from './wire.ts';

const NEW = 'another horse battery';

let mailbox: Mailbox;
let scene: AttackScene;
let victim: Victim;
let disabled: Victim;
let attacker: Victim;
beforeAll(async () => {
  mailbox = await startMailbox();
  const settings = {
    LIMIT_RECOVERY: '5/15m',
    LIMIT_RECOVERY_ACCOUNT: '4/1h',
    RECOVERY_URL: 'https://app.example/reset#token={token}',
  };
  scene = await startAttack(settings, mailbox);
  victim = await scene.newAccount();
  disabled = await scene.newAccount();
  attacker = await scene.newAccount();
  await scene.app.sql("UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE id = ?", disabled.id);
  for (const { email } of [victim, disabled, attacker]) await mailbox.tokenFor(email);
});
afterAll(async () => {
  await scene[Symbol.asyncDispose]();
  await mailbox[Symbol.asyncDispose]();
});

let client = 0;
/** A client at an address of its own. */
const elsewhere = (): Call => clientOf(scene.app.url, `192.0.2.${(client += 1)}`);
const recover = (email: unknown, call = elsewhere()) => call('POST', '/v1/auth/recovery', { body: { email } });
const reset = (token: unknown, more: object = {}) =>
  elsewhere()('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword: NEW, ...more } });
const verify = (token: unknown) => elsewhere()('POST', '/v1/auth/verification/confirm', { body: { token } });

/** A token that is good, and an account of its own that it is good for. */
async function withToken() {
  const account = await scene.newAccount();
  const verification = await mailbox.tokenFor(account.email);
  expect((await recover(account.email)).status).toBe(202);
  return { account, verification, token: await mailbox.tokenFor(account.email) };
}

describe('who has an account', () => {
  test('known, unknown and disabled: the same answer, for the same trips to Redis, and one of them gets a mail', async () => {
    const before = mailbox.attemptsTo(disabled.email);
    const unknown = `nobody.${victim.email}`;
    const known = await costOf(scene, () => recover(victim.email));
    expect([known.answer.status, known.answer.body]).toEqual([202, { status: 'accepted' }]);
    await mailbox.tokenFor(victim.email);
    for (const email of [unknown, disabled.email]) {
      const other = await costOf(scene, () => recover(email));
      expect(other.face).toEqual(known.face);
      expect(other.pipelines).toEqual(known.pipelines);
    }
    expect(known.pipelines.length).toBeGreaterThan(0);
    expect([mailbox.attemptsTo(unknown), mailbox.attemptsTo(disabled.email)]).toEqual([0, before]);
  });

  test('a used, a foreign, an old and an invented token are refused alike, whatever the password', async () => {
    const { account, token } = await withToken();
    const used = token;
    expect((await reset(used)).status).toBe(204);
    expect((await recover(account.email)).status).toBe(202);
    const old = await mailbox.tokenFor(account.email);
    await scene.app.sql('UPDATE one_time_tokens SET expires_at_ms = ? WHERE user_id = ?', Date.now() - 1, account.id);
    const invented = `gotr1.${randomBytes(32).toString('base64url')}`;
    const faces: unknown[] = [];
    for (const shown of [used, old, invented, `gotr1.${'A'.repeat(43)}`]) {
      // A common password and one that holds the address: said of a good token only.
      for (const newPassword of [NEW, 'password1', account.email]) {
        const cost = await costOf(scene, () => reset(shown, { newPassword }));
        expectRefused(cost.answer, 'ONE_TIME_TOKEN_INVALID');
        faces.push([cost.answer.status, { ...cost.answer.body, requestId: '' }, cost.pipelines]);
      }
    }
    for (const other of faces) expect(other).toEqual(faces[0]);
  });
});

describe('limits', () => {
  test('spellings of one account are one account, from wherever they are asked for', async () => {
    const { email } = await scene.newAccount();
    const spellings = [email, email.toUpperCase(), `  ${email}\t`];
    for (const spelling of spellings) expect((await recover(spelling)).status).toBe(202);
    const twice = `{"email":"other.${email}","email":"${email}"}`;
    expect((await elsewhere()('POST', '/v1/auth/recovery', { raw: twice })).status).toBe(202);
    expectRefused(await recover(email), 'RATE_LIMITED');
    expectRefused(await recover(email.toUpperCase()), 'RATE_LIMITED');
  });

  test('an unknown account is limited like a known one', async () => {
    const known = await scene.newAccount();
    const faces: unknown[][] = [];
    for (const email of [known.email, `nobody.${known.email}`]) {
      const seen: unknown[] = [];
      for (let asked = 0; asked < 6; asked += 1) {
        const { status, headers, body } = await recover(email);
        seen.push([status, body.code, headers.get('RateLimit')?.replaceAll(/t=\d+/g, 't=')]);
      }
      faces.push(seen);
    }
    expect(faces[1]).toEqual(faces[0]);
    expect(faces[0]?.at(-1)).toEqual([429, 'RATE_LIMITED', expect.any(String)]);
  });

  test('forged addresses of the client do not help', async () => {
    const call = clientOf(scene.app.url, '198.51.100.254');
    const statuses: number[] = [];
    for (let asked = 0; asked < 7; asked += 1) {
      const headers = { 'X-Forwarded-For': `10.0.0.${asked}`, 'X-Real-IP': `10.0.0.${asked}` };
      const body = { email: `nobody${asked}@example.com` };
      statuses.push((await call('POST', '/v1/auth/recovery', { body, headers })).status);
    }
    expect(statuses).toEqual([202, 202, 202, 202, 202, 429, 429]);
  });
});

describe('the mail', () => {
  const lastTo = (email: string) => mailbox.mails.findLast(({ to }) => to === email);

  test('leads where the settings say, whatever host was asked', async () => {
    const account = await scene.newAccount();
    await mailbox.tokenFor(account.email);
    const body = JSON.stringify({ email: account.email });
    const headers = [
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
      'CF-Connecting-IP: 192.0.2.250',
      'X-Forwarded-Host: evil.example',
      'X-Forwarded-Proto: http',
      'X-Original-Host: evil.example',
      'Forwarded: host=evil.example;proto=http',
      'Origin: https://evil.example',
      'Referer: https://evil.example/',
    ];
    const answer = await request(scene.app.url, 'POST http://evil.example/v1/auth/recovery', headers, body);
    expect(answer.status).toBe(202);
    await expect.poll(() => lastTo(account.email)?.text).toContain('https://app.example/reset#token=gotr1.');
    expect(JSON.stringify(lastTo(account.email))).not.toContain('evil.example');
  });

  test('holds no text of the person who registered the address', async () => {
    const { email, password } = newcomer();
    const body = { email, password, name: 'You have won: https://evil.example', device: '<b>evil.example</b>' };
    expect((await elsewhere()('POST', '/v1/auth/register', { body })).status).toBe(201);
    await expect.poll(() => lastTo(email)?.text).toContain('gotv1.');
    expect(JSON.stringify(lastTo(email))).not.toContain('evil.example');
  });

  test.each<[string, (email: string) => unknown]>([
    ['a list', (email) => [email, attacker.email]],
    ['two with a comma', (email) => `${email},${attacker.email}`],
    ['two with a semicolon', (email) => `${email};${attacker.email}`],
    ['two with a space', (email) => `${email} ${attacker.email}`],
    ['two with a NUL', (email) => `${email}\u0000${attacker.email}`],
    ['a header more', (email) => `${email}\r\nBcc: ${attacker.email}`],
    ['a header more, encoded', (email) => `${email}%0d%0aBcc:${attacker.email}`],
    ['a name', (email) => `"${email}" <${attacker.email}>`],
    ['a comment', (email) => `${email}(${attacker.email})`],
    ['a second at sign', (email) => `${email}@${attacker.email}`],
    ['an object', (email) => ({ email })],
    ['letters that look alike', (email) => email.replace('e', '\u0435')],
    ['letters that become others in lower case', (email) => email.replace('s', '\u017f').replace('k', '\u212a')],
  ])('goes to one address: %s is none', async (_, address) => {
    const before = mailbox.attemptsTo(attacker.email);
    expectRefused(await recover(address(victim.email)), 'VALIDATION_FAILED');
    expect(mailbox.attemptsTo(attacker.email)).toBe(before);
  });
});

describe('one-time tokens', () => {
  test('150 tampered ones do nothing, and the true one still does', async () => {
    const { account, verification, token } = await withToken();
    const random = token.slice(6);
    const [stored] = await scene.app.sql(
      "SELECT hash FROM one_time_tokens WHERE user_id = ? AND purpose = 'recovery'",
      account.id,
    );
    const shown: unknown[] = [
      ...Array.from(
        { length: token.length },
        (_, at) => `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`,
      ),
      ...Array.from({ length: 43 }, (_, cut) => token.slice(0, -cut - 1)),
      // Who reads the database has no token.
      `gotr1.${String(stored?.['hash'])}`,
      String(stored?.['hash']),
      looseBits(token),
      token.toUpperCase(),
      token.toLowerCase(),
      random,
      `gotv1.${random}`,
      `gotr2.${random}`,
      verification,
      verification.replace('gotv1', 'gotr1'),
      account.access,
      account.refresh,
      account.sessionId,
      account.id,
      ...['\n', ' ', '\0', '=', '.', 'A', '%00', '\u200b', "' OR 1=1 --", '*', '%', '_'].flatMap((text) => [
        `${token}${text}`,
        `${text}${token}`,
        `${token.slice(0, 20)}${text}${token.slice(20)}`,
      ]),
      `gotr1.${'%'.repeat(43)}`,
      `gotr1.${'_'.repeat(43)}`,
      `${token},${token}`,
      `${token}${token}`,
      'A'.repeat(60_000),
      '',
      null,
      [token],
      { token },
      true,
    ];
    expect(shown.length).toBeGreaterThan(150);
    const codes: ErrorCode[] = ['ONE_TIME_TOKEN_INVALID', 'VALIDATION_FAILED'];
    for (const text of shown) {
      expectRefused(await reset(text), ...codes);
      // Good there: it is the verification's own.
      if (text !== verification) expectRefused(await verify(text), ...codes);
    }
    expectRefused(await verify(token), 'ONE_TIME_TOKEN_INVALID');
    await expectUnharmed(scene, account);
    expectTokens(await login(elsewhere(), account), 200);

    expect((await verify(verification)).status).toBe(204);
    expect((await reset(token)).status).toBe(204);
    expectRefused(await scene.me(account.access), 'TOKEN_REVOKED');
    expectRefused(await reset(token), 'ONE_TIME_TOKEN_INVALID');
    expectTokens(await login(elsewhere(), { ...account, password: NEW }), 200);
  }, 120_000);

  test('one is good for its own account alone', async () => {
    const { account, token } = await withToken();
    for (const more of [
      { email: victim.email },
      { userId: victim.id },
      { user: { id: victim.id } },
      { sub: victim.id },
    ]) {
      expectRefused(await reset(token, more), 'VALIDATION_FAILED');
    }
    expect((await reset(token)).status).toBe(204);
    await expectUnharmed(scene, victim);
    expectTokens(await login(elsewhere(), { ...account, password: NEW }), 200);
    expectRefused(await login(elsewhere(), { ...victim, password: NEW }), 'INVALID_CREDENTIALS');
  });

  test('one of an account that was disabled since opens nothing', async () => {
    const { account, token } = await withToken();
    await scene.app.sql("UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE id = ?", account.id);
    expectRefused(await reset(token), 'ONE_TIME_TOKEN_INVALID');
    expectRefused(await login(elsewhere(), account), 'ACCOUNT_DISABLED');
  });

  test('one is looked for in a JSON body alone', async () => {
    const { account, token } = await withToken();
    const path = '/v1/auth/recovery/confirm';
    const form = {
      raw: `token=${token}&newPassword=x`,
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    };
    expectRefused(await elsewhere()('POST', path, form), 'UNSUPPORTED_MEDIA_TYPE');
    expectRefused(
      await elsewhere()('POST', `${path}?token=${token}`, { body: { newPassword: NEW } }),
      'VALIDATION_FAILED',
    );
    expectRefused(await elsewhere()('GET', `${path}?token=${token}&newPassword=x`), 'METHOD_NOT_ALLOWED');
    expectRefused(await elsewhere()('POST', path, { token, body: { newPassword: NEW } }), 'VALIDATION_FAILED');
    for (const route of ['/v1/users/me', '/v1/sessions']) {
      expectRefused(await elsewhere()('GET', route, { token }), 'INVALID_TOKEN');
    }
    expectRefused(await elsewhere()('POST', '/v1/auth/refresh', { body: { refresh_token: token } }), 'INVALID_TOKEN');
    await expectUnharmed(scene, account);
  });

  test('a stranger who registered the address is signed out once its owner has recovered it', async () => {
    const { account: squatter, token } = await withToken();
    const second = expectTokens(await login(elsewhere(), squatter), 200);
    expect((await reset(token)).status).toBe(204);
    for (const access of [squatter.access, second.access]) expectRefused(await scene.me(access), 'TOKEN_REVOKED');
    for (const refresh of [squatter.refresh, second.refresh]) {
      const answer = await elsewhere()('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } });
      expectRefused(answer, 'TOKEN_REVOKED');
    }
    expectRefused(await login(elsewhere(), squatter), 'INVALID_CREDENTIALS');
  });
});

test('asking for a verification mail needs an access token', async () => {
  const path = '/v1/auth/verification';
  expectRefused(await elsewhere()('POST', path), 'AUTHENTICATION_REQUIRED');
  expectRefused(await elsewhere()('POST', path, { token: victim.refresh }), 'INVALID_TOKEN');
  expectRefused(await elsewhere()('POST', path, { token: `${victim.access}=` }), 'INVALID_TOKEN');
  expect((await elsewhere()('POST', path, { token: victim.access })).status).toBe(202);
});

test('the logs say nothing', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene, victim.email, 'evil.example', NEW);
});
