import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';

import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Call } from '../../support/client.ts';
import { startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { expectTokens, login } from '../../support/flow.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { until } from '../faults/scene.ts';

const NEW = 'a whole new password';
const SECRETS = /@example\.com|got[rvcud]1|horse battery|whole new|grt1\.|eyJ/;

let redis: FaultyRedis;
let mailbox: Mailbox;
let app: RunningApp;
let call: Call;

beforeAll(async () => {
  [redis, mailbox] = await Promise.all([startFaultyRedis(), startMailbox()]);
  app = await startApp({
    bundle: inject('workerBundle'),
    redis,
    email: mailbox,
    settings: {
      ...UNLIMITED,
      RECOVERY_URL: 'https://app.example/reset#token={token}',
      BREAKER_PROBE_MS: '100',
      BREAKER_PROBE_MAX_MS: '400',
    },
  });
  call = clientOf(app.url);
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await mailbox[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});
beforeEach(async () => {
  mailbox.fault = 'none';
  await redis.clear();
});

/** A user with a session, and with a verified address or without. */
async function register({ verified = true } = {}) {
  const person = newcomer();
  const answer = await call('POST', '/v1/auth/register', { body: person });
  const tokens = expectTokens(answer, 201);
  const token = await mailbox.tokenFor(person.email);
  if (verified) expect((await verify(token)).status).toBe(204);
  return { ...person, ...tokens, id: answer.body.user.id as string, token };
}

const recover = (email: string) => call('POST', '/v1/auth/recovery', { body: { email } });
const reset = (token: string, newPassword = NEW) =>
  call('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword } });
const verify = (token: string) => call('POST', '/v1/auth/verification/confirm', { body: { token } });
const me = (token: string) => call('GET', '/v1/users/me', { token });
const invalid = { status: 400, body: { code: 'ONE_TIME_TOKEN_INVALID' } };

test('registered, verified, forgotten, recovered: and no trace of a secret in logs or Redis', async () => {
  const person = await register({ verified: false });
  const second = expectTokens(await login(call, person, 'Second'), 200);
  expect((await me(person.access)).body.emailVerified).toBe(false);
  expect((await verify(person.token)).status).toBe(204);
  expect((await me(second.access)).body.emailVerified).toBe(true);
  expect(await verify(person.token)).toMatchObject(invalid);

  expect(await recover(person.email)).toMatchObject({ status: 202, body: { status: 'accepted' } });
  const token = await mailbox.tokenFor(person.email);
  expect((await reset(token)).status).toBe(204);
  for (const { access, refresh } of [person, second]) {
    expect((await me(access)).body.code).toBe('TOKEN_REVOKED');
    const refused = await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } });
    expect(refused.body.code).toBe('TOKEN_REVOKED');
  }
  expect((await login(call, person)).body.code).toBe('INVALID_CREDENTIALS');
  const back = expectTokens(await login(call, { ...person, password: NEW }), 200);
  expect(await reset(token)).toMatchObject(invalid);

  const events = await call('GET', '/v1/users/me/events', { token: back.access });
  const kinds = events.body.items.map(({ kind }: { kind: string }) => kind);
  expect(kinds.filter((kind: string) => /recovery|reset|verified/.test(kind))).toEqual([
    'password-reset',
    'recovery-requested',
    'email-verified',
  ]);
  expect(events.body.items.find(({ kind }: { kind: string }) => kind === 'password-reset').address).toBe('203.0.113.7');

  await app.scheduled();
  expect(app.logs.join('\n')).toMatch(/audit\.password_reset/);
  expect(app.logs.join('\n')).not.toMatch(SECRETS);
  const keys = (await redis.engine('KEYS', '*')) as string[];
  expect(keys.length).toBeGreaterThan(3);
  expect(keys.join('\n')).not.toMatch(SECRETS);
  const sent = JSON.stringify(redis.requests.map(({ commands }) => commands));
  expect(sent).not.toMatch(/got[rvcud]1|horse battery|whole new/);
});

test('20 who show one token at once: one has it', async () => {
  const person = await register();
  await recover(person.email);
  const token = await mailbox.tokenFor(person.email);
  const passwords = Array.from({ length: 20 }, (_, i) => `password of number ${i}`);
  const answers = await Promise.all(passwords.map((password) => reset(token, password)));
  const statuses = answers.map(({ status }) => status);
  expect(statuses.filter((status) => status === 204)).toHaveLength(1);
  expect(statuses.filter((status) => status >= 500)).toEqual([]);
  const winner = passwords[statuses.indexOf(204)]!;
  expectTokens(await login(call, { ...person, password: winner }), 200);
  const resets = `select count(*) as n from events where user_id = ? and kind = 'password-reset'`;
  expect(await app.sql(resets, person.id)).toEqual([{ n: 1 }]);
});

describe('with Redis away', () => {
  test('all of it works, and the revocation is delivered to Redis when it is back', async () => {
    const person = await register({ verified: false });
    redis.mode = { kind: 'refuse' };
    expect((await verify(person.token)).status).toBe(204);
    expect((await recover(person.email)).status).toBe(202);
    const token = await mailbox.tokenFor(person.email);
    expect((await reset(token)).status).toBe(204);
    expect((await me(person.access)).body.code).toBe('TOKEN_REVOKED');
    const back = expectTokens(await login(call, { ...person, password: NEW }), 200);
    expect((await me(back.access)).body.emailVerified).toBe(true);

    const [user] = await app.sql('select epoch from users where id = ?', person.id);
    const raised = String(user!['epoch']);
    const epoch = async () => {
      const [key] = (await redis.engine('KEYS', `*:auth:blacklist:{${person.id}}`)) as string[];
      return key === undefined ? null : redis.engine('HGET', key, 'ep');
    };
    expect(await epoch()).not.toBe(raised);
    await redis.clear();
    await until('Redis knows the new epoch', async () => {
      await me(back.access);
      return (await epoch()) === raised;
    });
    expect((await me(person.access)).body.code).toBe('TOKEN_REVOKED');
  });
});

describe('with the mail server', () => {
  test('refusing: the answer stands, it is tried again, and logged without address or token', async () => {
    const person = await register();
    mailbox.fault = 'refuse';
    const before = mailbox.attemptsTo(person.email);
    expect((await recover(person.email)).status).toBe(202);
    await until('a second attempt', () => mailbox.attemptsTo(person.email) === before + 2);
    // What was refused twice arrives with the third.
    mailbox.fault = 'none';
    expect((await reset(await mailbox.tokenFor(person.email))).status).toBe(204);

    mailbox.fault = 'refuse';
    const failed = () => app.logs.filter((line) => line.includes('mail.failed'));
    expect(failed()).toEqual([]);
    expect((await recover(person.email)).status).toBe(202);
    await until('the failure is logged', () => failed().length > 0);
    expect(mailbox.attemptsTo(person.email)).toBe(before + 3 + 3);
    expect(failed().join('\n')).toContain('"kind":"recovery"');
    expect(app.logs.join('\n')).not.toMatch(SECRETS);
    expect((await call('GET', '/ready')).body.degradedRequests['mail=failed']).toBeGreaterThan(0);
    // The owner asks for another.
    mailbox.fault = 'none';
    expect((await recover(person.email)).status).toBe(202);
    expect((await reset(await mailbox.tokenFor(person.email), `${NEW}, again`)).status).toBe(204);
  });
});

test('with the database away every request gets a 503 with Retry-After, and no token is used up', async () => {
  const person = await register();
  await recover(person.email);
  const token = await mailbox.tokenFor(person.email);
  await app.database('away');
  try {
    for (const answer of [await recover(person.email), await recover('nobody@example.com'), await reset(token)]) {
      expect(answer).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
      expect(Number(answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    }
  } finally {
    await app.database('here');
  }
  expect((await reset(token)).status).toBe(204);
});

test('expired tokens are forgotten by the cron', async () => {
  const person = await register();
  await recover(person.email);
  await mailbox.tokenFor(person.email);
  await recover(person.email);
  const token = await mailbox.tokenFor(person.email);
  const hashes = () =>
    app.sql('select hash from one_time_tokens where user_id = ? order by rowid', person.id) as Promise<
      { hash: string }[]
    >;
  const [old, kept] = await hashes();
  await app.sql('update one_time_tokens set expires_at_ms = ? where hash = ?', Date.now() - 1, old!.hash);
  await app.scheduled();
  expect(await hashes()).toEqual([kept]);
  expect((await reset(token)).status).toBe(204);
});

test('the console mailer shows the mail where the developer looks; the platform’s stand-in takes it as well', async () => {
  const server = { redis, bundle: inject('workerBundle') };
  await using console = await startApp({ ...server, settings: { ...UNLIMITED, MAILER: 'console' } });
  const person = newcomer();
  expect((await clientOf(console.url)('POST', '/v1/auth/register', { body: person })).status).toBe(201);
  await until('the mail is shown', () => console.logs.some((line) => line.includes(`mail to ${person.email}`)));
  const token = /gotv1\.[\w-]{43}/.exec(console.logs.join('\n'))?.[0] ?? '';
  const confirmed = await clientOf(console.url)('POST', '/v1/auth/verification/confirm', { body: { token } });
  expect(confirmed.status).toBe(204);

  await using platform = await startApp({ ...server, email: 'miniflare', settings: UNLIMITED });
  expect((await clientOf(platform.url)('POST', '/v1/auth/register', { body: person })).status).toBe(201);
  await until('it was taken', () => platform.logs.some((line) => line.includes('mail.sent')));
  expect(platform.logs.join('\n')).not.toMatch(SECRETS);
});

test('a known and an unknown address are answered alike, in body, status and headers', async () => {
  const person = await register();
  // Mail hangs for the address that gets any: a request that waited for it would never get its response.
  mailbox.fault = 'hang';
  const answers: string[] = [];
  for (const email of [person.email, `nobody.${person.email}`, person.email]) {
    const { status, headers, body } = await recover(email);
    const steady = [...headers].filter(([header]) => !['date', 'x-request-id', 'ratelimit'].includes(header));
    answers.push(JSON.stringify({ status, steady, body }));
  }
  expect(answers[0]).toContain('"status":202');
  expect(new Set(answers).size).toBe(1);
});
