import { env } from 'cloudflare:workers';
import type { Result } from 'hono/router';
import { TrieRouter } from 'hono/router/trie-router';
import { beforeAll, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { RememberingRouter } from '../../../src/routes/router';
import { bindings, callerOf, isolateFor } from '../support/request';

const bound = bindings();
const app = createApp({ isolate: isolateFor(bound) });
const call = callerOf(app, bound);

let token = '';
let userId = '';
let admin = '';
const known = { email: 'known@example.com', password: 'correct horse battery', name: 'Known' };

beforeAll(async () => {
  const { body } = await call('POST', '/v1/auth/register', { body: known });
  token = body.access_token;
  userId = body.user.id;
  const boss = { ...known, email: 'boss@example.com' };
  await call('POST', '/v1/auth/register', { body: boss });
  await env.DB.prepare(`update users set role = 'admin' where email = ?`).bind(boss.email).run();
  const signedIn = await call('POST', '/v1/auth/login', { body: { email: boss.email, password: boss.password } });
  admin = signedIn.body.access_token;
});

const registration = { email: 'new@example.com', password: 'correct horse battery', name: 'New' };
const post = (body: unknown) => call('POST', '/v1/auth/register', { body });

describe('every refusal is a problem document', () => {
  test.each<[string, () => ReturnType<typeof call>, number, string, string?]>([
    ['malformed JSON', () => call('POST', '/v1/auth/login', { raw: '{"email":' }), 400, 'MALFORMED_JSON'],
    ['no body', () => call('POST', '/v1/auth/login'), 400, 'MALFORMED_JSON'],
    [
      'not JSON by its type',
      () => call('POST', '/v1/auth/login', { raw: 'a=b', headers: { 'Content-Type': 'text/plain' } }),
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ],
    [
      'not UTF-8',
      () => call('POST', '/v1/auth/login', { raw: new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]) }),
      400,
      'INVALID_ENCODING',
    ],
    ['an array', () => post([]), 422, 'VALIDATION_FAILED'],
    ['null', () => post(null), 422, 'VALIDATION_FAILED'],
    ['a missing field', () => post({ ...registration, email: undefined }), 422, 'VALIDATION_FAILED', '/email'],
    ['an unknown field', () => post({ ...registration, role: 'admin' }), 422, 'VALIDATION_FAILED', '/role'],
    ['a wrong type', () => post({ ...registration, name: 7 }), 422, 'VALIDATION_FAILED', '/name'],
    ['no e-mail address', () => post({ ...registration, email: 'nobody' }), 422, 'VALIDATION_FAILED', '/email'],
    ['a short password', () => post({ ...registration, password: 'short' }), 422, 'VALIDATION_FAILED', '/password'],
    [
      'a long password',
      () => post({ ...registration, password: 'x'.repeat(257) }),
      422,
      'VALIDATION_FAILED',
      '/password',
    ],
    ['a long name', () => post({ ...registration, name: 'x'.repeat(101) }), 422, 'VALIDATION_FAILED', '/name'],
    ['control characters', () => post({ ...registration, name: 'a\u0000b' }), 422, 'VALIDATION_FAILED', '/name'],
    [
      'a recovery for no address',
      () => call('POST', '/v1/auth/recovery', { body: { email: 'nobody' } }),
      422,
      'VALIDATION_FAILED',
      '/email',
    ],
    [
      'a new password that is too short',
      () => call('POST', '/v1/auth/recovery/confirm', { body: { token: 'gotr1.x', newPassword: 'short' } }),
      422,
      'VALIDATION_FAILED',
      '/newPassword',
    ],
    [
      'a token of no mail',
      () => call('POST', '/v1/auth/recovery/confirm', { body: { token: 'x', newPassword: 'long enough' } }),
      400,
      'ONE_TIME_TOKEN_INVALID',
    ],
    [
      'a token that is no text',
      () => call('POST', '/v1/auth/verification/confirm', { body: { token: 7 } }),
      422,
      'VALIDATION_FAILED',
      '/token',
    ],
    ['a body over the limit', () => post({ ...registration, name: 'x'.repeat(70_000) }), 413, 'BODY_TOO_LARGE'],
    ['a taken address', () => post({ ...registration, email: ' KNOWN@example.com' }), 409, 'EMAIL_TAKEN', '/email'],
    ['an unknown route', () => call('GET', '/v1/nothing'), 404, 'NOT_FOUND'],
    ['an unknown method', () => call('PUT', '/v1/users/me'), 405, 'METHOD_NOT_ALLOWED'],
    ['no token', () => call('GET', '/v1/users/me'), 401, 'AUTHENTICATION_REQUIRED'],
    ['a malformed token', () => call('GET', '/v1/users/me', { token: 'not-a-token' }), 401, 'INVALID_TOKEN'],
    [
      'another scheme',
      () => call('GET', '/v1/users/me', { headers: { Authorization: 'Basic a2E6cGE=' } }),
      401,
      'INVALID_TOKEN',
    ],
    [
      'a foreign refresh token',
      () => call('POST', '/v1/auth/refresh', { body: { refresh_token: `grt1.k.u.s.1.1.zzzzzzzz.${'A'.repeat(43)}` } }),
      401,
      'INVALID_TOKEN',
    ],
    [
      'an access token as refresh token',
      () => call('POST', '/v1/auth/refresh', { body: { refresh_token: token } }),
      401,
      'INVALID_TOKEN',
    ],
    [
      'a page that is no number',
      () => call('GET', '/v1/users?page=0', { token: admin }),
      422,
      'VALIDATION_FAILED',
      'page',
    ],
    [
      'a list of users, asked for by a user without the role of an administrator',
      () => call('GET', '/v1/users', { token }),
      403,
      'FORBIDDEN',
    ],
    ['another user', () => call('GET', `/v1/users/${userId}`, { token }), 403, 'FORBIDDEN'],
    ['a session of another user', () => call('DELETE', '/v1/sessions/somebody.else', { token }), 404, 'NOT_FOUND'],
    ['nothing to change', () => call('PATCH', '/v1/users/me', { token, body: {} }), 422, 'VALIDATION_FAILED'],
    [
      'a role for oneself',
      () => call('PATCH', '/v1/users/me', { token, body: { role: 'admin' } }),
      422,
      'VALIDATION_FAILED',
      '/role',
    ],
  ])('%s', async (_name, request, status, code, place) => {
    const answer = await request();
    expect(answer.headers.get('Content-Type')).toBe('application/problem+json');
    expect(answer.body).toMatchObject({ status, code, title: expect.any(String), requestId: expect.any(String) });
    expect(answer.status).toBe(status);
    if (place !== undefined) {
      expect(
        answer.body.errors.map((error: { pointer?: string; parameter?: string }) => error.pointer ?? error.parameter),
      ).toContain(place);
    }
    expect(JSON.stringify(answer.body)).not.toMatch(/\bat .*\.(ts|js):\d/);
  });
});

test.each([
  [
    'a comma too many',
    '{"email":"a@example.com",\n "password":"secret one",}',
    'The JSON is malformed at line 2, column 26.',
  ],
  ['an end too early', '{"email":', 'The JSON ends too early.'],
])('malformed JSON, %s: the place is in the response, and nothing of the text', async (_, raw, detail) => {
  const { body } = await call('POST', '/v1/auth/login', { raw });
  expect(body).toMatchObject({ code: 'MALFORMED_JSON', detail });
  expect(JSON.stringify(body)).not.toContain('secret');
});

test.each([
  ['a zero-width space', '\u200b'],
  ['a word joiner and a soft hyphen', '\u2060\u00ad'],
  ['a Hangul filler', '\u3164'],
  ['a blank Braille cell', '\u2800'],
  ['direction marks', '\u200e\u202e'],
  ['an ideographic space between zero-width ones', '\u200b\u3000\u200b'],
])('a name of %s is refused', async (_, name) => {
  const { status, body } = await post({ ...registration, name });
  expect([status, body.errors[0].pointer]).toEqual([422, '/name']);
});

test.each(['!', '👩\u200d🚀', 'क्\u200dष', '田'])('%s is a name', async (name) => {
  const { status, body } = await call('PATCH', '/v1/users/me', { token, body: { name } });
  expect([status, body.name]).toEqual([200, name.normalize('NFC')]);
});

describe('an e-mail address with a domain in other letters', () => {
  test('is one account with its ASCII form', async () => {
    const password = 'correct horse battery';
    const first = await post({ ...registration, email: 'ada@Bücher.example' });
    expect([first.status, first.body.user?.email]).toEqual([201, 'ada@xn--bcher-kva.example']);
    expect((await post({ ...registration, email: 'ada@xn--bcher-kva.example' })).body.code).toBe('EMAIL_TAKEN');
    const login = await call('POST', '/v1/auth/login', { body: { email: 'ada@bücher.example', password } });
    expect(login.status).toBe(200);
  });

  test.each([
    'ädä@example.com',
    'ada@bü cher.example',
    'ada@bücher.example/x',
    'ada@bücher.example:80',
    'ada@xn--ü.example',
  ])('%s is refused', async (email) => {
    const { status, body } = await post({ ...registration, email });
    const detail = 'must be an e-mail address, in ASCII before the @';
    expect([status, body.errors]).toEqual([422, [{ pointer: '/email', detail }]]);
  });
});

test('the response to a path with a slash at its end, and to a token without its scheme, says what is meant', async () => {
  expect((await call('GET', '/v1/users/me/', { token })).body.detail).toBe('Paths end without a slash.');
  expect((await call('GET', '/v1/nothing/', { token })).body.detail).toBeUndefined();
  const { body } = await call('GET', '/v1/users/me', { headers: { Authorization: token } });
  expect(body).toMatchObject({ code: 'INVALID_TOKEN', detail: expect.stringContaining('"Bearer"') });
});

test('a preflight of an origin that is not listed is in the log once, with the setting that admits it', async () => {
  const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  const preflight = () =>
    call('OPTIONS', '/v1/users/me', {
      headers: { Origin: 'http://localhost:5173', 'Access-Control-Request-Method': 'GET' },
    });
  expect((await preflight()).headers.get('Access-Control-Allow-Origin')).toBeNull();
  await preflight();
  const lines = log.mock.calls.map(([line]) => JSON.parse(String(line)) as unknown);
  log.mockRestore();
  expect(lines).toEqual([
    {
      level: 'warn',
      event: 'cors.origin_not_listed',
      origin: 'http://localhost:5173',
      setting: 'CORS_ORIGINS=http://localhost:5173',
    },
  ]);
});

describe('a password', () => {
  const LENGTH = 'must have 8 to 256 characters';
  const LONE = 'must not contain lone surrogates';
  const change = (newPassword: string, currentPassword: string) =>
    call('POST', '/v1/auth/password', { token, body: { currentPassword, newPassword } });

  test.each<[string, string, string]>([
    ['seven characters', 'abcdefg', LENGTH],
    ['seven characters of two UTF-16 units', '\u{1f600}'.repeat(7), LENGTH],
    ['eight code points that NFC makes seven', 'cafe\u0301 xy', LENGTH],
    ['257 characters', 'x'.repeat(257), LENGTH],
    ['257 characters of four code points', '\u03b1\u0314\u0301\u0345'.repeat(257), LENGTH],
    ['tens of thousands', 'x'.repeat(60_000), LENGTH],
    ['a lone surrogate', 'long enough \ud800', LONE],
    ['the most common one', 'password', 'is one of the most common passwords'],
    ['a common one in capitals', 'IloveYou', 'is one of the most common passwords'],
    [
      'the e-mail address and a year',
      'new@example.com2026',
      'must have 8 more characters than the words of your name, your e-mail address and this service',
    ],
  ])('of %s is refused at registration and at a change', async (_name, password, detail) => {
    const refused = { status: 422, code: 'VALIDATION_FAILED' };
    const registered = await post({ ...registration, password });
    expect(registered.body).toMatchObject({ ...refused, errors: [{ pointer: '/password', detail }] });
    const changed = await change(password.replace('new@', 'known@'), known.password);
    expect(changed.body).toMatchObject({ ...refused, errors: [{ pointer: '/newPassword', detail }] });
  });

  test.each([
    ['x'.repeat(257), 'must have 1 to 256 characters'],
    ['', 'must have 1 to 256 characters'],
    ['\udc00', LONE],
  ])('that no account can have is not computed at login or as the current one', async (password, detail) => {
    const login = await call('POST', '/v1/auth/login', { body: { email: known.email, password } });
    expect(login.body).toMatchObject({ status: 422, errors: [{ pointer: '/password', detail }] });
    const changed = await change('quite another horse', password);
    expect(changed.body).toMatchObject({ status: 422, errors: [{ pointer: '/currentPassword', detail }] });
  });

  test.each([
    ['eight characters', 'zq4!m9#w'],
    ['256 characters of two UTF-16 units, whole', '\u{1f600}'.repeat(255) + '\u{1f601}'],
    ['256 characters of four code points', '\u03b1\u0314\u0301\u0345'.repeat(256)],
  ])('of %s is good, to the last one', async (name, password) => {
    const email = `${name.replaceAll(/\W/g, '')}@length.example`;
    expect((await post({ ...registration, email, password })).status).toBe(201);
    const login = (given: string) => call('POST', '/v1/auth/login', { body: { email, password: given } });
    expect((await login(password)).status).toBe(200);
    const others = Array.from(password.normalize('NFC')).slice(0, -1).join('');
    expect((await login(others)).status).toBe(401);
    expect((await login(`${others}\u{1f602}`)).status).toBe(401);
  });
});

test('a refused request writes nothing', async () => {
  const rows = await env.DB.prepare('select count(*) as n from users where email = ?')
    .bind(registration.email)
    .first('n');
  expect(rows).toBe(0);
});

test('405 names the allowed methods', async () => {
  const answer = await call('PUT', '/v1/users/me');
  expect(answer.headers.get('Allow')?.split(', ').toSorted()).toEqual(['DELETE', 'GET', 'PATCH']);
});

test('401 carries a challenge', async () => {
  expect((await call('GET', '/v1/users/me')).headers.get('WWW-Authenticate')).toBe('Bearer');
  expect((await call('GET', '/v1/users/me', { token: 'x' })).headers.get('WWW-Authenticate')).toBe(
    'Bearer error="invalid_token"',
  );
});

test('a streamed body over the limit is refused without a Content-Length', async () => {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let i = 0; i < 100; i += 1) controller.enqueue(new Uint8Array(1_024).fill(0x20));
      controller.close();
    },
  });
  const request = new Request('http://gatehouse.test/v1/auth/login', {
    method: 'POST',
    body,
    headers: { 'Content-Type': 'application/json' },
  });
  const response = await app.fetch(request, bound, {
    waitUntil: () => undefined,
    passThroughOnException: () => undefined,
    props: {},
  });
  expect(response.status).toBe(413);
});

test('security headers and the request id are on every answer', async () => {
  const answer = await call('GET', '/health', { headers: { 'X-Request-Id': 'client-chosen-1' } });
  expect(answer.headers.get('X-Request-Id')).toBe('client-chosen-1');
  expect(Object.fromEntries(answer.headers)).toMatchObject({
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'strict-transport-security': 'max-age=15552000; includeSubDomains',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
  });
  const odd = await call('GET', '/health', { headers: { 'X-Request-Id': 'no spaces "please"' } });
  expect(odd.headers.get('X-Request-Id')).toMatch(/^[0-9a-f-]{36}$/);
});

test('a path finds the routes that Hono finds, also when it is asked for again, by whatever method', () => {
  const [ours, honos] = [new RememberingRouter<string>(), new TrieRouter<string>()];
  const routes = [
    ['ALL', '*'],
    ['GET', '/users/me'],
    ['GET', '/users/:id'],
    ['PATCH', '/users/me'],
    ['ALL', '/users/*'],
    ['DELETE', '/users/:id{[0-9]+}'],
  ] as const;
  for (const [method, path] of routes) {
    ours.add(method, path, `${method} ${path}`);
    honos.add(method, path, `${method} ${path}`);
  }
  const namesOf = ([handlers]: Result<string>) => handlers.map(([name, params]) => [name, { ...params }]);
  for (const method of ['GET', 'PATCH', 'DELETE', 'OPTIONS', 'ALL', 'BREW', 'GET']) {
    for (const path of ['/users/me', '/users/7', '/users', '/', '/users/me']) {
      expect(namesOf(ours.match(method, path)), `${method} ${path}`).toEqual(namesOf(honos.match(method, path)));
    }
  }
});

test('CORS admits the origins of the settings and no other', async () => {
  const cross = bindings({ CORS_ORIGINS: 'https://app.example, https://two.example' });
  const callCross = callerOf(createApp({ isolate: isolateFor(cross) }), cross);
  const allowed = await callCross('GET', '/health', { headers: { Origin: 'https://app.example' } });
  expect(allowed.headers.get('Access-Control-Allow-Origin')).toBe('https://app.example');
  const other = await callCross('GET', '/health', { headers: { Origin: 'https://evil.example' } });
  expect(other.headers.get('Access-Control-Allow-Origin')).toBeNull();
});
