import { gzipSync } from 'node:zlib';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { b64, claimsLike, forge, headerOf, newKey, signatureOf, signingKeys } from './forge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { request, send } from './wire.ts';

const key = newKey('key-1');
let scene: AttackScene;
let victim: Victim;
let revoked = '';
let url = '';
beforeAll(async () => {
  scene = await startAttack({ SIGNING_KEYS: signingKeys({ active: key }) });
  ({ url } = scene.app);
  victim = await scene.newAccount();
  const device = await scene.signIn(victim);
  revoked = device.access;
  await scene.call('POST', '/v1/auth/logout', { token: revoked });
});
afterAll(() => scene[Symbol.asyncDispose]());

const me = (...headers: string[]) => request(url, 'GET /v1/users/me', ['CF-Connecting-IP: 203.0.113.7', ...headers]);
const bearer = (token: string) => `Authorization: Bearer ${token}`;

test('the control: the same bytes with one good header', async () => {
  const answer = await me(bearer(victim.access));
  expect([answer.status, answer.body.id]).toEqual([200, victim.id]);
  expectRefused(await me(bearer(revoked)), 'TOKEN_REVOKED');
});

describe('more than one Authorization', () => {
  test.each<[string, () => string[]]>([
    ['the same twice', () => [bearer(victim.access), bearer(victim.access)]],
    ['a bad one, a good one', () => [bearer('x'), bearer(victim.access)]],
    ['a good one, a bad one', () => [bearer(victim.access), bearer('x')]],
    ['a revoked one, a good one', () => [bearer(revoked), bearer(victim.access)]],
    ['a good one, a revoked one', () => [bearer(victim.access), bearer(revoked)]],
    ['Basic, a good one', () => ['Authorization: Basic a2E6cGE=', bearer(victim.access)]],
    ['a good one, Basic', () => [bearer(victim.access), 'Authorization: Basic a2E6cGE=']],
    ['a good one, an empty one', () => [bearer(victim.access), 'Authorization:']],
    ['in other letters', () => [bearer('x'), `AUTHORIZATION: Bearer ${victim.access}`]],
    ['three', () => [bearer(victim.access), bearer(victim.access), bearer(victim.access)]],
    ['in one line, with a comma', () => [`${bearer(revoked)}, Bearer ${victim.access}`]],
    ['in one line, with a comma and no scheme', () => [`${bearer(victim.access)},${revoked}`]],
    ['in one line, with a space', () => [`${bearer(victim.access)} ${revoked}`]],
  ])('%s: refused', async (_, headers) => {
    expectRefused(await me(...headers()), 'INVALID_TOKEN');
  });
});

describe('other schemes and forms', () => {
  test.each<[string, () => string]>([
    ['Basic with the password', () => `Basic ${btoa(`${victim.email}:${victim.password}`)}`],
    ['Basic with the token', () => `Basic ${victim.access}`],
    ['DPoP', () => `DPoP ${victim.access}`],
    ['MAC', () => `MAC id="${victim.access}"`],
    ['Token', () => `Token ${victim.access}`],
    ['no scheme', () => victim.access],
    ['a scheme without a token', () => 'Bearer'],
    ['a scheme and a colon', () => `Bearer: ${victim.access}`],
    ['a scheme and an equals sign', () => `Bearer=${victim.access}`],
    ['a scheme and a tab', () => `Bearer\t${victim.access}`],
    ['no space', () => `Bearer${victim.access}`],
    ['a scheme that goes on', () => `Bearers ${victim.access}`],
    ['a token of control characters', () => 'Bearer \x01\x02'],
    ['a token of other letters', () => 'Bearer \xe4\xf6\xfc.\xe4.\xe4'],
    ['dots alone', () => 'Bearer ..'],
    ['a quoted token', () => `Bearer "${victim.access}"`],
  ])('%s: refused', async (_, value) => {
    expectRefused(await me(`Authorization: ${value()}`), 'INVALID_TOKEN');
  });

  test.each<[string, string, () => string[]]>([
    ['the query string', 'access_token', () => []],
    ['a cookie', '', () => [`Cookie: access_token=${victim.access}; session=${victim.access}; token=${victim.access}`]],
    ['Proxy-Authorization', '', () => [`Proxy-Authorization: Bearer ${victim.access}`]],
    ['X-Authorization', '', () => [`X-Authorization: Bearer ${victim.access}`, `X-Access-Token: ${victim.access}`]],
    [
      'X-Forwarded-User and its like',
      '',
      () => [`X-Forwarded-User: ${victim.id}`, `X-User-Id: ${victim.id}`, 'X-Role: admin'],
    ],
    ['a trailing header name', '', () => [`Authorization_: Bearer ${victim.access}`]],
  ])('a token in %s is not looked at', async (_, parameter, headers) => {
    const path =
      parameter === '' ? '/v1/users/me' : `/v1/users/me?${parameter}=${victim.access}&token=${victim.access}`;
    expectRefused(await request(url, `GET ${path}`, headers()), 'AUTHENTICATION_REQUIRED');
  });

  test('a token in the body is not looked at', async () => {
    const body = `access_token=${victim.access}`;
    const form = ['Content-Type: application/x-www-form-urlencoded', `Content-Length: ${body.length}`];
    expectRefused(await request(url, 'POST /v1/auth/logout', form, body), 'UNSUPPORTED_MEDIA_TYPE');
    const json = JSON.stringify({ access_token: victim.access });
    const typed = ['Content-Type: application/json', `Content-Length: ${json.length}`];
    expectRefused(await request(url, 'POST /v1/auth/logout', typed, json), 'AUTHENTICATION_REQUIRED');
    await expectUnharmed(scene, victim);
  });
});

describe('oversized', () => {
  const tokens: [string, () => string][] = [
    ['100 KB of one letter', () => 'A'.repeat(100_000)],
    ['100 KB of dots', () => '.'.repeat(100_000)],
    ['100 KB of padding', () => `${victim.access}${'='.repeat(100_000)}`],
    ['100 KB in the header part', () => signed({ pad: 'A'.repeat(75_000) }, claimsLike(victim.access))],
    ['100 KB in the claims', () => forge(key, { ...claimsLike(victim.access), pad: 'A'.repeat(75_000) })],
    ['100 KB in the signature', () => `${victim.access}${'A'.repeat(100_000)}`],
    ['just too long', () => forge(key, { ...claimsLike(victim.access), pad: 'A'.repeat(1_300) })],
    ['nested a thousand times', () => forge(key, `${'['.repeat(700)}${']'.repeat(700)}`)],
  ];
  test.each(tokens)('a token of %s is refused before it is decoded', async (_, token) => {
    await scene.me(victim.access);
    const startMs = performance.now();
    expectRefused(await me(bearer(token())), 'INVALID_TOKEN');
    // Generous: a regular expression or a decoder that runs away takes minutes, or does not end.
    expect(performance.now() - startMs).toBeLessThan(30_000);
    await expectUnharmed(scene, victim);
  });

  test('one that just fits is accepted', async () => {
    const token = forge(key, { ...claimsLike(victim.access), pad: 'A'.repeat(900) });
    expect(token.length).toBeLessThan(2_048);
    expect((await me(bearer(token))).status).toBe(200);
  });

  function signed(header: object, payload: object): string {
    const input = `${b64({ ...headerOf(key), ...header })}.${b64(payload)}`;
    return `${input}.${b64(signatureOf(key, input))}`;
  }

  test('100 KB of body, with and without Content-Length', async () => {
    const json = JSON.stringify({ email: victim.email, password: 'A'.repeat(100_000) });
    const type = 'Content-Type: application/json';
    const login = 'POST /v1/auth/login';
    expectRefused(await request(url, login, [type, `Content-Length: ${json.length}`], json), 'BODY_TOO_LARGE');
    const chunks = `${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\n`;
    expectRefused(await request(url, login, [type, 'Transfer-Encoding: chunked'], chunks), 'BODY_TOO_LARGE');
  });

  test('a compressed body is not unpacked', async () => {
    const body = gzipSync(Buffer.alloc(20_000_000, ' ')).toString('latin1');
    const headers = ['Content-Type: application/json', 'Content-Encoding: gzip', `Content-Length: ${body.length}`];
    expectRefused(await request(url, 'POST /v1/auth/login', headers, body), 'INVALID_ENCODING');
  });
});

describe('bytes that are not quite HTTP', () => {
  const login = 'POST /v1/auth/login';
  const type = 'Content-Type: application/json';
  /** Everything but the password, so that a body that is read as it should be is refused for just that. */
  const json = '{"email":"nobody@example.org"}';
  const chunked = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n0\r\n\r\n`;

  test('the control: the body by its length and in chunks', async () => {
    expectRefused(await request(url, login, [type, `Content-Length: ${json.length}`], json), 'VALIDATION_FAILED');
    expectRefused(await request(url, login, [type, 'Transfer-Encoding: chunked'], chunked(json)), 'VALIDATION_FAILED');
  });

  test.each<[string, string]>([
    ['a negative length', '-2\r\n{}\r\n0\r\n\r\n'],
    ['a length that is none', 'zz\r\n{}\r\n0\r\n\r\n'],
    ['a length beyond all numbers', 'ffffffffffffffffff\r\n{}\r\n0\r\n\r\n'],
    ['no end after it', '2\r\n{}xx\r\n0\r\n\r\n'],
  ])('a chunk with %s is the client’s fault', async (_, body) => {
    expectRefused(await request(url, login, [type, 'Transfer-Encoding: chunked'], body), 'MALFORMED_REQUEST');
  });

  // What the runtime refuses itself, before the app: plain text, no problem document.
  test.each<[string, () => string[]]>([
    ['two lengths', () => ['Content-Length: 2', 'Content-Length: 3']],
    ['a negative length', () => ['Content-Length: -1']],
    ['a signed length', () => ['Content-Length: +2']],
    ['a list of lengths', () => ['Content-Length: 2, 2']],
    ['an unknown transfer coding', () => ['Transfer-Encoding: xchunked']],
    ['two transfer codings', () => ['Transfer-Encoding: chunked, identity']],
  ])('%s: the runtime refuses', async (_, headers) => {
    const answer = await request(url, login, [type, ...headers()], '{}');
    expect(answer.status).toBe(400);
  });

  test('a length and chunks at once: the chunks count (RFC 9112, section 6.3)', async () => {
    const headers = [type, 'Content-Length: 2', 'Transfer-Encoding: chunked'];
    const answer = await request(url, login, headers, chunked(json));
    expectRefused(answer, 'VALIDATION_FAILED');
    // The e-mail address was read: nothing is said of it.
    expect(answer.body.errors.map(({ pointer }: { pointer: string }) => pointer)).toEqual(['/password']);
  });

  test.each<[string, () => string]>([
    ['folded before the token', () => `Authorization: Bearer\r\n ${victim.access}`],
    ['folded before the scheme', () => `Authorization:\r\n Bearer ${victim.access}`],
    ['folded after it', () => `${bearer(victim.access)}\r\n \r\n\tx`],
    ['folded within the token', () => bearer(`${victim.access.slice(0, 50)}\r\n ${victim.access.slice(50)}`)],
    ['a space before the colon', () => `Authorization : Bearer ${victim.access}`],
    ['a NUL after it', () => `${bearer(victim.access)}\0`],
    ['a bare CR', () => `${bearer(victim.access)}\rX: y`],
  ])('a header %s is no way in', async (_, header) => {
    const answer = await me(header());
    if (answer.headers.get('Content-Type') === 'application/problem+json') expectRefused(answer, 'INVALID_TOKEN');
    else expect(answer.status).toBe(400);
  });

  test.each<[string, string]>([
    ['another host', 'GET http://evil.example/v1/users HTTP/1.1\r\nHost: evil.example'],
    ['a host that is another', 'GET /v1/users HTTP/1.1\r\nHost: localhost:1'],
    [
      'forwarded hosts',
      'GET /v1/users HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: admin.internal\r\nX-Original-URL: /health',
    ],
    [
      'another path of a proxy',
      'GET /v1/users HTTP/1.1\r\nHost: a\r\nX-Rewrite-URL: /health\r\nX-Forwarded-Prefix: /health',
    ],
    ['another method', 'POST /v1/users HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0'],
  ])('%s opens no other door', async (_, head) => {
    const answer = await send(url, `${head}\r\nConnection: close\r\n${bearer(victim.access)}\r\n\r\n`);
    expectRefused(answer, 'FORBIDDEN', 'METHOD_NOT_ALLOWED');
    expect(JSON.stringify([...answer.headers])).not.toContain('evil.example');
  });

  test('methods that routes do not have do nothing', async () => {
    for (const method of ['TRACE', 'OPTIONS', 'PUT', 'PROPFIND']) {
      const answer = await request(url, `${method} /v1/users/me`, [bearer(victim.access)]);
      expectRefused(answer, 'METHOD_NOT_ALLOWED');
      // TRACE would give the token back.
      expect(JSON.stringify(answer.body)).not.toContain(victim.access.slice(-20));
    }
    await expectUnharmed(scene, victim);
  });
});

test('the logs say nothing', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene, victim.access, victim.refresh, revoked);
});
