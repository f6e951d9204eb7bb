import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { ErrorCode } from '../../../src/errors.ts';
import { claimsLike, forge, newKey, nowSeconds, signingKeys } from './forge.ts';
import type { Claims } from './forge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

/** Everything here is signed with the Worker's own key: only what the token says is at fault. */
const key = newKey('key-1');
let scene: AttackScene;
let victim: Victim;
let other: Victim;
beforeAll(async () => {
  scene = await startAttack({ SIGNING_KEYS: signingKeys({ active: key }) });
  victim = await scene.newAccount();
  other = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

/** Beyond the five seconds that clocks may differ by, and a busy machine's pauses. */
const FAR = 60;
const NEAR = 2;
const YEARS = 10 * 365 * 86_400;

type Change = (claims: Claims) => Claims | string | Buffer;
const also = (text: string) => (claims: Claims) => JSON.stringify(claims).replace(/\}$/, `,${text}}`);
const first = (text: string) => (claims: Claims) => JSON.stringify(claims).replace(/^\{/, `{${text},`);

/** A name with a byte in it that UTF-8 does not have. */
const notUtf8 = (claims: Claims) => Buffer.from(JSON.stringify({ ...claims, name: '\u00ff' }), 'latin1');

const REQUIRED = ['iss', 'aud', 'sub', 'sid', 'jti', 'role', 'ep', 'av', 'gen', 'iat', 'exp'];

const REFUSED: [string, Change, ErrorCode?][] = [
  ...REQUIRED.map((name): [string, Change] => [`no ${name}`, (claims) => ({ ...claims, [name]: undefined })]),
  ...REQUIRED.flatMap((name) =>
    [null, {}, [], true, ''].map((value): [string, Change] => [
      `${name} ${JSON.stringify(value)}`,
      (claims) => ({ ...claims, [name]: value }),
    ]),
  ),
  ['another issuer', (claims) => ({ ...claims, iss: 'https://evil.example' })],
  ['the issuer with a slash', (claims) => ({ ...claims, iss: 'http://gatehouse.test/' })],
  ['the issuer in upper case', (claims) => ({ ...claims, iss: 'HTTP://GATEHOUSE.TEST' })],
  ['issuers as a list', (claims) => ({ ...claims, iss: ['http://gatehouse.test'] })],
  ['another audience', (claims) => ({ ...claims, aud: 'other-app' })],
  ['an audience that begins alike', (claims) => ({ ...claims, aud: 'gatehouse-test-2' })],
  ['other audiences', (claims) => ({ ...claims, aud: ['other-app', 'gatehouse'] })],
  ['the issuer as audience', (claims) => ({ ...claims, aud: claims['iss'] })],

  ['expired', (claims) => ({ ...claims, iat: nowSeconds() - 900 - FAR, exp: nowSeconds() - FAR }), 'TOKEN_EXPIRED'],
  ['expired, issued just now', (claims) => ({ ...claims, exp: nowSeconds() - FAR }), 'TOKEN_EXPIRED'],
  ['exp zero', (claims) => ({ ...claims, exp: 0 }), 'TOKEN_EXPIRED'],
  ['exp negative', (claims) => ({ ...claims, exp: -nowSeconds() }), 'TOKEN_EXPIRED'],
  ['exp in milliseconds, below zero', (claims) => ({ ...claims, exp: -Date.now() }), 'TOKEN_EXPIRED'],
  ['exp as a string', (claims) => ({ ...claims, exp: String(claims['exp']) })],
  ['exp as a date', (claims) => ({ ...claims, exp: '2099-01-01T00:00:00Z' })],
  ['exp as a fraction', (claims) => ({ ...claims, exp: Number(claims['exp']) + 0.5 })],
  ['exp as a list', (claims) => ({ ...claims, exp: [claims['exp']] })],
  ['exp beyond all numbers', also('"exp":1e999')],
  ['exp beyond all exact numbers', (claims) => ({ ...claims, exp: 1e308 })],
  ['exp not a number', also('"exp":NaN')],
  ['iat in the future', (claims) => ({ ...claims, iat: nowSeconds() + FAR })],
  ['iat far in the future', (claims) => ({ ...claims, iat: nowSeconds() + YEARS, exp: nowSeconds() + 2 * YEARS })],
  ['iat in milliseconds', (claims) => ({ ...claims, iat: Date.now() })],
  ['iat as a string', (claims) => ({ ...claims, iat: String(claims['iat']) })],
  ['iat as a fraction', (claims) => ({ ...claims, iat: Number(claims['iat']) - 0.5 })],
  ['iat longer ago than any token lives', (claims) => ({ ...claims, iat: nowSeconds() - 900 - FAR }), 'TOKEN_EXPIRED'],
  ['iat long ago, exp far ahead', (claims) => ({ ...claims, iat: 1, exp: nowSeconds() + YEARS }), 'TOKEN_EXPIRED'],
  ['iat negative', (claims) => ({ ...claims, iat: -nowSeconds() }), 'TOKEN_EXPIRED'],
  ['nbf in the future', (claims) => ({ ...claims, nbf: nowSeconds() + FAR })],
  ['nbf as a string', (claims) => ({ ...claims, nbf: '0' })],
  ['nbf beyond all numbers', also('"nbf":1e999')],

  ['sub a number', (claims) => ({ ...claims, sub: 7 })],
  ['sub of 65 characters', (claims) => ({ ...claims, sub: 'u'.repeat(65) })],
  ['sid a list', (claims) => ({ ...claims, sid: [claims['sid']] })],
  ['sid of 129 characters', (claims) => ({ ...claims, sid: 's'.repeat(129) })],
  ['jti of 65 characters', (claims) => ({ ...claims, jti: 'j'.repeat(65) })],
  ['a role that does not exist', (claims) => ({ ...claims, role: 'root' })],
  ['roles as a list', (claims) => ({ ...claims, role: ['user', 'admin'] })],
  ['the role in upper case', (claims) => ({ ...claims, role: 'USER' })],
  ...['ep', 'av', 'gen'].flatMap((name): [string, Change][] => [
    [`${name} as a string`, (claims) => ({ ...claims, [name]: '1' })],
    [`${name} as a fraction`, (claims) => ({ ...claims, [name]: 1.5 })],
    [`${name} negative`, (claims) => ({ ...claims, [name]: -1 })],
    [`${name} beyond all exact numbers`, (claims) => ({ ...claims, [name]: 1e300 })],
  ]),
  ['gen zero', (claims) => ({ ...claims, gen: 0 })],

  ['an expired exp after a good one', (claims) => also(`"exp":${nowSeconds() - FAR}`)(claims), 'TOKEN_EXPIRED'],
  ['another audience after the right one', also('"aud":"other-app"')],
  ['claims behind a prototype', (claims) => `{"__proto__":${JSON.stringify(claims)}}`],
  [
    'a good exp in the prototype only',
    (claims) => first('"__proto__":{"exp":9999999999}')({ ...claims, exp: undefined }),
  ],
  ['claims in a list', (claims) => JSON.stringify([claims])],
  ['claims in a string', (claims) => JSON.stringify(JSON.stringify(claims))],
  ['claims null', () => 'null'],
  ['claims that are no JSON', () => 'sub=1&role=admin'],
  ['claims with a comma too many', (claims) => JSON.stringify(claims).replace(/\}$/, ',}')],
  ['claims with a bare NUL', (claims) => JSON.stringify(claims).replace('"role"', '"role\u0000"')],
  ['claims that are not UTF-8', (claims) => notUtf8(claims)],
  ['claims in UTF-16', (claims) => Buffer.from(JSON.stringify(claims), 'utf16le')],
  ['no claims', () => ({})],
];

describe('signed by the right key, and refused', () => {
  test.each(REFUSED)('%s', async (_, change, code = 'INVALID_TOKEN') => {
    const claims = claimsLike(victim.access);
    expectRefused(await scene.me(forge(key, change(claims))), code);
    expect((await scene.me(forge(key, claims))).status).toBe(200);
  });

  test.each<[string, Claims]>([
    ['typ JWT', { typ: 'JWT' }],
    ['typ at+JWT of OpenID', { typ: 'id+jwt' }],
    ['typ of a refresh token', { typ: 'rt+jwt' }],
    ['typ of a logout token', { typ: 'logout+jwt' }],
    ['typ at', { typ: 'at' }],
    ['typ with a parameter', { typ: 'at+jwt; charset=utf-8' }],
    ['typ with a path', { typ: 'text/at+jwt' }],
    ['typ empty', { typ: '' }],
    ['typ null', { typ: null }],
    ['typ a list', { typ: ['at+jwt'] }],
    ['no typ', { typ: undefined }],
  ])('%s', async (_, header) => {
    expectRefused(await scene.me(forge(key, claimsLike(victim.access), header)), 'INVALID_TOKEN');
  });
});

describe('signed by the right key, and good', () => {
  test.each<[string, Change]>([
    ['as it is', (claims) => claims],
    ['one audience of several', (claims) => ({ ...claims, aud: ['other-app', 'gatehouse-test'] })],
    ['expired within the tolerance', (claims) => ({ ...claims, exp: nowSeconds() - NEAR })],
    ['issued ahead within the tolerance', (claims) => ({ ...claims, iat: nowSeconds() + NEAR })],
    ['not before, within the tolerance', (claims) => ({ ...claims, nbf: nowSeconds() + NEAR })],
    ['unknown claims', (claims) => ({ ...claims, admin: true, scope: 'everything', roles: ['admin'] })],
    ['a member twice: the last one counts (RFC 7519, section 4)', first('"sub":"somebody-else"')],
    ['a prototype that says more', also('"__proto__":{"role":"admin"}')],
  ])('%s', async (_, change) => {
    const token = forge(key, change(claimsLike(victim.access)));
    const answer = await scene.me(token);
    expect([answer.status, answer.body.id]).toEqual([200, victim.id]);
    expectRefused(await scene.call('GET', '/v1/users', { token }), 'FORBIDDEN');
  });

  test.each(['at+jwt', 'AT+JWT', 'application/at+jwt', 'Application/AT+JWT'])('typ %s', async (typ) => {
    expect((await scene.me(forge(key, claimsLike(victim.access), { typ }))).status).toBe(200);
  });
});

test('a token that names another user’s session is refused, although the right key signed it', async () => {
  const claims = claimsLike(victim.access);
  expect((await scene.me(forge(key, claims))).body.id).toBe(victim.id);
  for (const sid of [other.sessionId, victim.sessionId.slice(1), victim.id.slice(0, -1), `${victim.id}x.1`]) {
    expectRefused(await scene.me(forge(key, { ...claims, sid })), 'INVALID_TOKEN');
  }
});

test('a token with an epoch and a version that were never reached does not bring back an ended session', async () => {
  const device = await scene.signIn(victim);
  expect((await scene.call('POST', '/v1/auth/logout', { token: device.access })).status).toBe(204);
  const claims = claimsLike(device.access);
  // As high as they may be: the session has ended all the same.
  const ahead = { ...claims, ep: Number.MAX_SAFE_INTEGER, av: Number.MAX_SAFE_INTEGER, gen: Number.MAX_SAFE_INTEGER };
  expectRefused(await scene.me(forge(key, ahead)), 'TOKEN_REVOKED');
});

test('the logs say nothing', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene);
});
