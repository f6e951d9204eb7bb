import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer } from '../../support/client.ts';
import { signedIn } from '../faults/scene.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { request } from './wire.ts';

let scene: AttackScene;
let victim: Victim;
let admin = '';
beforeAll(async () => {
  scene = await startAttack();
  victim = await scene.newAccount();
  const boss = await scene.newAccount();
  await scene.app.sql("UPDATE users SET role = 'admin' WHERE id = ?", boss.id);
  admin = (await scene.signIn(boss)).access;
});
afterAll(() => scene[Symbol.asyncDispose]());

const roles = () => scene.app.sql("SELECT count(*) AS n FROM users WHERE role = 'admin'");
const post = (path: string, raw: string, token?: string) =>
  scene.call('POST', path, { raw, ...(token !== undefined && { token }) });

describe('more than was asked for', () => {
  const MORE: [string, string][] = [
    ['role', '"admin"'],
    ['isAdmin', 'true'],
    ['status', '"active"'],
    ['id', '"00000000-0000-0000-0000-000000000000"'],
    ['epoch', '99'],
    ['accessVersion', '99'],
    ['access_version', '99'],
    ['emailVerifiedAtMs', '1'],
    ['passwordHash', '"$scrypt$ln=1"'],
    ['createdAtMs', '0'],
    ['userId', '"x"'],
    ['constructor', '{"prototype":{"role":"admin"}}'],
    ['prototype', '{"role":"admin"}'],
    ['toString', '"x"'],
    ['hasOwnProperty', '1'],
  ];

  test.each(MORE)('%s at registration, at login, in the profile: refused, and named', async (name, value) => {
    const { email, password, name: called } = newcomer();
    const more = `"${name}":${value}`;
    const profile = { raw: `{"name":"x",${more}}`, token: victim.access };
    const answers = [
      await post('/v1/auth/register', `{"email":"${email}","password":"${password}","name":"${called}",${more}}`),
      await post('/v1/auth/login', `{"email":"${victim.email}","password":"${victim.password}",${more}}`),
      await scene.call('PATCH', '/v1/users/me', profile),
    ];
    for (const answer of answers) {
      expectRefused(answer, 'VALIDATION_FAILED');
      expect(answer.body.errors).toEqual([{ pointer: `/${name}`, detail: 'is not known here' }]);
    }
    expect(await scene.app.sql('SELECT id FROM users WHERE email = ?', email)).toEqual([]);
  });

  test('a prototype in a body makes no user an administrator, then or afterwards', async () => {
    const before = await roles();
    const { email, password, name } = newcomer();
    const proto = '"__proto__":{"role":"admin","status":"active","isAdmin":true}';
    const registered = await post(
      '/v1/auth/register',
      `{${proto},"email":"${email}","password":"${password}","name":"${name}"}`,
    );
    expectRefusedOr(registered, 201);
    const changed = await scene.call('PATCH', '/v1/users/me', { raw: `{${proto},"name":"Me"}`, token: victim.access });
    expectRefusedOr(changed, 200);
    const alone = await scene.call('PATCH', '/v1/users/me', { raw: `{${proto}}`, token: victim.access });
    expectRefused(alone, 'VALIDATION_FAILED');
    const nested = await post('/v1/auth/login', `{"email":{${proto}},"password":{${proto}}}`);
    expectRefused(nested, 'VALIDATION_FAILED');
    expectRefused(
      await scene.call('GET', '/v1/users?__proto__[role]=admin&__proto__=x', { token: admin }),
      'VALIDATION_FAILED',
    );

    expect(await roles()).toEqual(before);
    // The isolate's objects are as they were.
    const { body: user } = await scene.me(victim.access);
    expect([user.role, Object.keys(user).includes('isAdmin')]).toEqual(['user', false]);
    expectRefused(await scene.call('GET', '/v1/users', { token: victim.access }), 'FORBIDDEN');
    const later = await scene.newAccount();
    expect((await scene.me(later.access)).body.role).toBe('user');
    expectRefused(await post('/v1/auth/login', '{}'), 'VALIDATION_FAILED');
  });

  /** Whether such a member is refused or dropped is all one, as long as it does nothing. */
  function expectRefusedOr(answer: Answer, status: number): void {
    if (answer.status === status) expect(JSON.stringify(answer.body)).not.toContain('admin');
    else expectRefused(answer, 'VALIDATION_FAILED');
  }

  test('of two members of a name the last one counts, for every check alike', async () => {
    const { email, password } = victim;
    const answer = await post('/v1/auth/login', `{"email":"x","email":"${email}","password":"${password}"}`);
    expect([answer.status, answer.body.user.id]).toEqual([200, victim.id]);
    const other = await post('/v1/auth/login', `{"email":"${email}","email":"x","password":"${password}"}`);
    expectRefused(other, 'VALIDATION_FAILED');
  });
});

describe('JSON that is meant to hurt', () => {
  const deep = (open: string, close: string, times: number) => `${open.repeat(times)}0${close.repeat(times)}`;
  const BOMBS: [string, string][] = [
    ['30,000 lists', deep('[', ']', 30_000)],
    ['10,000 objects', deep('{"a":', '}', 10_000)],
    ['30,000 lists as e-mail address', `{"email":${deep('[', ']', 30_000)},"password":"x"}`],
    ['10,000 objects under an unknown name', `{"email":"a@b.c","password":"x","z":${deep('{"a":', '}', 10_000)}}`],
    ['5,000 unknown members', `{${Array.from({ length: 5_000 }, (_, index) => `"k${index}":0`).join(',')}}`],
    ['a name of 60,000 characters', `{"${'n'.repeat(60_000)}":1}`],
    ['30,000 lists without an end', '['.repeat(30_000)],
    ['a number of 60,000 digits', `{"email":${'9'.repeat(60_000)}}`],
    ['a number beyond all', '{"email":1e99999,"password":-1e99999}'],
    ['60,000 backslashes', `{"email":"${'\\\\'.repeat(30_000)}"}`],
    ['60,000 spaces', `${' '.repeat(60_000)}{}`],
    ['a list', '[]'],
    ['a string', '"x"'],
    ['a number', '1'],
    ['null', 'null'],
    ['nothing but spaces', '   '],
    ['NaN', '{"email":NaN}'],
    ['a comment', '{/**/"email":"a"}'],
    ['single quotes', "{'email':'a'}"],
    ['a trailing comma', '{"email":"a",}'],
    ['a byte order mark', '\ufeff{}'],
    ['a bare NUL', '{"email":"a\u0000b"}'],
    ['two documents', '{}{}'],
  ];
  test.each(BOMBS)('%s', async (_, raw) => {
    const startMs = performance.now();
    for (const path of ['/v1/auth/login', '/v1/auth/register', '/v1/auth/refresh']) {
      expectRefused(await post(path, raw), 'VALIDATION_FAILED', 'MALFORMED_JSON');
    }
    expectRefused(
      await scene.call('PATCH', '/v1/users/me', { raw, token: victim.access }),
      'VALIDATION_FAILED',
      'MALFORMED_JSON',
    );
    // A walk that recurses or backtracks takes much longer, or does not end.
    expect(performance.now() - startMs).toBeLessThan(60_000);
    expect((await scene.call('GET', '/health')).status).toBe(200);
  });

  test('an answer about 5,000 members is short', async () => {
    const members = Array.from({ length: 5_000 }, (_, index) => `"k${index}":0`).join(',');
    const answer = await post('/v1/auth/login', `{${members}}`);
    expect(answer.body.errors.length).toBeLessThan(50);
    const long = await post('/v1/auth/login', `{"${'n'.repeat(60_000)}":1}`);
    expect(JSON.stringify(long.body).length).toBeLessThan(2_000);
  });
});

/** What is code somewhere: in SQL, Lua, Redis's protocol, a shell, HTML, a template, a log. */
const METACHARACTERS = [
  "'; DROP TABLE users; --",
  "' OR '1'='1",
  '" OR ""="',
  "%' OR 1=1 UNION SELECT password_hash FROM users --",
  '%_%',
  '*3 $3 SET $1 a $1 b',
  "redis.call('FLUSHALL')",
  '}:nonce{',
  '{victim}',
  'app:auth:blacklist:{x}',
  '$(reboot)`id`|;&',
  '<script>alert(1)</script>',
  '${jndi:ldap://127.0.0.1/x}',
  '{{7*7}}%{7*7}',
  '../../etc/passwd',
  '%s%n%d',
  '\u202egnp.exe',
  'a\u2028b\u2029c',
  'e\u0301\u0327',
  '👩‍👩‍👧‍👦',
  '\\u0000\\n',
];
/** What is no text at all. */
const NOT_TEXT = [
  'a\u0000b',
  'a\nb',
  'a\r\nSet-Cookie: x=y',
  'a\u001b[31mb',
  'a\u0085b',
  'a\ud800b',
  '\udfff',
  'a\u007fb',
];

describe('text that is code elsewhere', () => {
  test.each(METACHARACTERS)('%j is stored and given back as it is, and does nothing', async (text) => {
    const before = await scene.app.sql('SELECT count(*) AS n FROM users');
    const shown = text.trim().normalize('NFC');
    const renamed = await scene.call('PATCH', '/v1/users/me', { token: victim.access, body: { name: text } });
    expect([renamed.status, renamed.body.name]).toEqual([200, shown]);
    expect((await scene.me(victim.access)).body.name).toBe(shown);
    const q = encodeURIComponent(text);
    const found = await scene.call('GET', `/v1/users?q=${q}`, { token: admin });
    expect([found.status, found.body.items.map(({ id }: { id: string }) => id)]).toEqual([200, [victim.id]]);

    expectRefused(await post('/v1/auth/login', JSON.stringify({ email: text, password: text })), 'VALIDATION_FAILED');
    expectRefused(await post('/v1/auth/refresh', JSON.stringify({ refresh_token: text })), 'INVALID_TOKEN');
    expectRefused(await scene.me(Buffer.from(text).toString('base64url')), 'INVALID_TOKEN');
    expectRefused(await scene.call('GET', `/v1/users/${q}`, { token: admin }), 'NOT_FOUND', 'VALIDATION_FAILED');
    expectRefused(await scene.call('DELETE', `/v1/sessions/${q}`, { token: victim.access }), 'NOT_FOUND');
    // A policy whose identities are the app's own: those of the others are checked.
    const counter = { policy: 'mailbox', identity: text };
    const peeked = await scene.call('POST', '/v1/admin/limits/peek', { token: admin, body: counter });
    expect([peeked.status, peeked.body.limits]).toEqual([200, [expect.objectContaining({ remaining: 10_000 })]]);
    expect(await scene.app.sql('SELECT count(*) AS n FROM users')).toEqual(before);
    await expectUnharmed(scene, victim);
  });

  test('as a device, an e-mail address and a password it is text as well', async () => {
    for (const text of METACHARACTERS.slice(0, 3)) {
      const { email, password } = victim;
      const device = signedIn(await post('/v1/auth/login', JSON.stringify({ email, password, device: text })));
      const { body } = await scene.call('GET', '/v1/sessions', { token: device.access });
      expect(body.items.find(({ current }: { current: boolean }) => current).device).toBe(text);
      const wrong = { email, password: `${text}${text}` };
      expectRefused(await post('/v1/auth/login', JSON.stringify(wrong)), 'INVALID_CREDENTIALS');
    }
    for (const email of [
      "a'--@example.com",
      "o'or'1'='1@example.com",
      '*@example.com',
      '{a}@example.com',
      '%@example.com',
    ]) {
      const body = JSON.stringify({ email, password: 'wrong horse battery' });
      expectRefused(await post('/v1/auth/login', body), 'INVALID_CREDENTIALS', 'VALIDATION_FAILED');
    }
  });

  test.each(NOT_TEXT)('%j is refused where text is wanted', async (text) => {
    const { email, password } = newcomer();
    const registration = { email, password, name: 'New' };
    for (const body of [
      { ...registration, name: text },
      { ...registration, device: text },
      { ...registration, email: `${text}${email}` },
    ]) {
      expectRefused(await scene.call('POST', '/v1/auth/register', { body }), 'VALIDATION_FAILED');
    }
    const profile = { token: victim.access, body: { name: text } };
    expectRefused(await scene.call('PATCH', '/v1/users/me', profile), 'VALIDATION_FAILED');
    const counter = { token: admin, body: { policy: 'api', identity: text } };
    expectRefused(await scene.call('POST', '/v1/admin/limits/peek', counter), 'VALIDATION_FAILED');
    expectRefused(await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: text } }), 'INVALID_TOKEN');
    expect(await scene.app.sql('SELECT id FROM users WHERE email = ?', email)).toEqual([]);
  });

  test('a User-Agent becomes a device’s name without characters that are no text, and adds no line to the log', async () => {
    const { email, password } = victim;
    const body = JSON.stringify({ email, password });
    const agents: [string, string][] = [
      ['Phone \x80\xff\xfe App', 'Phone'],
      ['a\tb', 'ab'],
      [`{"level":"error","event":"x"}`, '{"level":"error","event":"x"}'],
      ['A'.repeat(10_000), 'A'.repeat(100)],
      ['', 'unknown'],
    ];
    for (const [agent, name] of agents) {
      const headers = ['Content-Type: application/json', `Content-Length: ${body.length}`, `User-Agent: ${agent}`];
      const device = signedIn(await request(scene.app.url, 'POST /v1/auth/login', headers, body));
      const { body: list } = await scene.call('GET', '/v1/sessions', { token: device.access });
      expect(list.items.find(({ current }: { current: boolean }) => current).device).toContain(name);
    }
  });

  test.each([
    'x',
    'a b c d e f',
    'a"b<script>',
    'A'.repeat(65),
    '../../../../x',
    '{"a":"b"}',
    '\x80\xff\x80\xff\x80\xff\x80\xff',
  ])('a request id of %j is not taken over', async (id) => {
    const answer = await request(scene.app.url, 'GET /v1/users/me', [`X-Request-Id: ${id}`]);
    expectRefused(answer, 'AUTHENTICATION_REQUIRED');
    expect(answer.body.requestId).toMatch(/^[\da-f-]{36}$/);
  });
});

test('the logs say nothing, one line each', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene, 'DROP TABLE', 'jndi', 'wrong horse', victim.password, 'A'.repeat(100));
});

test('a password is compared whole, whatever its length, also behind a NUL', async () => {
  const { email, name } = newcomer();
  const call = clientOf(scene.app.url, '192.0.2.77');
  const password = `pass\u0000word${'x'.repeat(200)}`;
  expect((await call('POST', '/v1/auth/register', { body: { email, password, name } })).status).toBe(201);
  for (const wrong of ['pass\u0000other', password.slice(0, -1), `${password}x`, password.replace('\u0000', '')]) {
    expectRefused(await call('POST', '/v1/auth/login', { body: { email, password: wrong } }), 'INVALID_CREDENTIALS');
  }
  expect((await call('POST', '/v1/auth/login', { body: { email, password } })).status).toBe(200);
});
