import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
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
      422,
      'VALIDATION_FAILED',
    ],
    [
      'a page that is no number',
      () => call('GET', '/v1/users?page=0', { token: admin }),
      422,
      'VALIDATION_FAILED',
      'page',
    ],
    ['a list for whoever is no admin', () => call('GET', '/v1/users', { token }), 403, 'FORBIDDEN'],
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
      'needs 8 characters beside the words of the e-mail address, the name and the service',
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

test('what is refused writes nothing', async () => {
  const rows = await env.DB.prepare('select count(*) as n from users where email = ?')
    .bind(registration.email)
    .first('n');
  expect(rows).toBe(0);
});

test('405 says what is allowed', async () => {
  const answer = await call('PUT', '/v1/users/me');
  expect(answer.headers.get('Allow')?.split(', ').toSorted()).toEqual(['DELETE', 'GET', 'PATCH']);
});

test('401 carries a challenge', async () => {
  expect((await call('GET', '/v1/users/me')).headers.get('WWW-Authenticate')).toBe('Bearer');
  expect((await call('GET', '/v1/users/me', { token: 'x' })).headers.get('WWW-Authenticate')).toBe(
    'Bearer error="invalid_token"',
  );
});

test('a streamed body over the limit is refused without its length being told', async () => {
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
  expect(answer.headers.get('X-Content-Type-Options')).toBe('nosniff');
  expect(answer.headers.get('Strict-Transport-Security')).toMatch(/max-age=/);
  const odd = await call('GET', '/health', { headers: { 'X-Request-Id': 'no spaces "please"' } });
  expect(odd.headers.get('X-Request-Id')).toMatch(/^[0-9a-f-]{36}$/);
});

test('CORS admits the origins of the settings and no other', async () => {
  const cross = bindings({ CORS_ORIGINS: 'https://app.example, https://two.example' });
  const callCross = callerOf(createApp({ isolate: isolateFor(cross) }), cross);
  const allowed = await callCross('GET', '/health', { headers: { Origin: 'https://app.example' } });
  expect(allowed.headers.get('Access-Control-Allow-Origin')).toBe('https://app.example');
  const other = await callCross('GET', '/health', { headers: { Origin: 'https://evil.example' } });
  expect(other.headers.get('Access-Control-Allow-Origin')).toBeNull();
});
