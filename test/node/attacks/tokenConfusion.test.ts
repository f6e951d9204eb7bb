import { afterAll, beforeAll, expect, test } from 'vitest';

import { expectTokens } from '../../support/flow.ts';
import { b64, claimsLike, forge, headerOf, looseBits, newKey, signatureOf, signingKeys } from './forge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

const key = newKey('key-1');
let scene: AttackScene;
let victim: Victim;
beforeAll(async () => {
  scene = await startAttack({ SIGNING_KEYS: signingKeys({ active: key }) });
  victim = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const refresh = (token: string) => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
const withHeader = (authorization: string) =>
  scene.call('GET', '/v1/users/me', { headers: { Authorization: authorization } });

test('a refresh token is no access token, on no route', async () => {
  const { refresh: token, sessionId } = victim;
  for (const [method, path] of [
    ['GET', '/v1/users/me'],
    ['PATCH', '/v1/users/me'],
    ['DELETE', '/v1/users/me'],
    ['GET', '/v1/users'],
    ['GET', `/v1/users/${victim.id}`],
    ['GET', '/v1/users/me/events'],
    ['GET', '/v1/sessions'],
    ['DELETE', `/v1/sessions/${sessionId}`],
    ['POST', '/v1/auth/logout'],
    ['POST', '/v1/auth/logout-all'],
  ] as const) {
    expectRefused(await scene.call(method, path, { token }), 'INVALID_TOKEN');
  }
  const body = { currentPassword: victim.password, newPassword: 'another horse battery' };
  expectRefused(await scene.call('POST', '/v1/auth/password', { token, body }), 'INVALID_TOKEN');
  await expectUnharmed(scene, victim);
});

test('an access token is no refresh token', async () => {
  const { access } = victim;
  expectRefused(await refresh(access), 'VALIDATION_FAILED', 'INVALID_TOKEN');
  for (const part of access.split('.')) expectRefused(await refresh(part), 'INVALID_TOKEN');
  const [, , signature = ''] = access.split('.');
  expectRefused(await refresh(victim.refresh.replace(/[^.]+$/, signature.slice(0, 43))), 'INVALID_TOKEN');
});

test('a token in a token is none', async () => {
  const { access } = victim;
  const input = `${b64({ ...headerOf(key), cty: 'JWT' })}.${b64(access)}`;
  expectRefused(await scene.me(`${input}.${b64(signatureOf(key, input))}`), 'INVALID_TOKEN');
  expectRefused(await scene.me(forge(key, JSON.stringify(access), { cty: 'JWT' })), 'INVALID_TOKEN');
  expectRefused(await scene.me(b64(access)), 'INVALID_TOKEN');
  expectRefused(await scene.me(`${b64(access)}.${b64(access)}.${b64(access)}`), 'INVALID_TOKEN');
});

/** Other texts that a careless reader takes for the same token. */
const COPIES: [string, (token: string) => string][] = [
  ['=', (token) => `${token}=`],
  ['==', (token) => `${token}==`],
  [
    'padding of each part',
    (token) =>
      token
        .split('.')
        .map((part) => part.padEnd(Math.ceil(part.length / 4) * 4, '='))
        .join('.'),
  ],
  ['loose bits in the signature', looseBits],
  ['loose bits in the payload', (token) => looseIn(token, 1)],
  ['loose bits in the header', (token) => looseIn(token, 0)],
  ['ordinary base64', ordinaryBase64],
  ['a space within', (token) => insert(token, ' ')],
  ['a tab within', (token) => insert(token, '\t')],
  ['a space after the first dot', (token) => token.replace('.', '. ')],
  ['two spaces before it', (token) => ` ${token}`],
  ['a tab before it', (token) => `\t${token}`],
  ['an encoded newline', (token) => `${token}%0A`],
  ['encoded dots', (token) => token.replaceAll('.', '%2E')],
  ['one encoded letter', (token) => token.replace(/^e/, '%65')],
  ['a dot after it', (token) => `${token}.`],
  ['a dot before it', (token) => `.${token}`],
  ['an empty part', (token) => token.replace('.', '..')],
  ['quotes', (token) => `"${token}"`],
  ['a semicolon', (token) => `${token};`],
  ['a comma', (token) => `${token},`],
  ['itself again', (token) => `${token},${token}`],
  ['the scheme again', (token) => `Bearer ${token}`],
  ['a name before it', (token) => `token=${token}`],
  ['upper case', (token) => token.toUpperCase()],
  ['a no-break space', (token) => `${token}\u00a0`],
  ['a soft hyphen', (token) => insert(token, '\u00ad')],
  ['another letter that looks alike', (token) => token.replace(/^e/, '\u00e9')],
];

function looseIn(token: string, index: number): string {
  const parts = token.split('.');
  // Three bytes are four letters without a spare bit: there, a letter more is the other spelling.
  const part = parts[index] ?? '';
  parts[index] = part.length % 4 === 0 ? `${part}A` : looseBits(part);
  return parts.join('.');
}

function ordinaryBase64(token: string): string {
  const ordinary = token.replaceAll('-', '+').replaceAll('_', '/');
  // One token in fifteen has neither letter.
  return ordinary === token ? `${token}+` : ordinary;
}

function insert(token: string, text: string): string {
  return `${token.slice(0, 60)}${text}${token.slice(60)}`;
}

/** Other texts that HTTP says are the same header. */
const SAME: [string, (token: string) => string][] = [
  ['bearer', (token) => `bearer ${token}`],
  ['BEARER', (token) => `BEARER ${token}`],
  ['bEaReR', (token) => `bEaReR ${token}`],
  ['spaces after it', (token) => `Bearer ${token}  `],
  ['a tab after it', (token) => `Bearer ${token}\t`],
  ['spaces before the scheme', (token) => `  Bearer ${token}`],
];

test.each(COPIES)('a copy of a good token with %s is refused', async (_, copy) => {
  const { access } = victim;
  expect(copy(access)).not.toBe(access);
  expectRefused(await scene.me(copy(access)), 'INVALID_TOKEN');
  await expectUnharmed(scene, victim);
});

test.each(SAME)('a good token in another spelling of the header (%s) is accepted', async (_, header) => {
  const answer = await withHeader(header(victim.access));
  expect([answer.status, answer.body.id]).toEqual([200, victim.id]);
});

test('no copy of a revoked token is accepted', async () => {
  const device = await scene.signIn(victim);
  for (const [, header] of SAME) expect((await withHeader(header(device.access))).status).toBe(200);
  expect((await scene.call('POST', '/v1/auth/logout', { token: device.access })).status).toBe(204);
  for (const [, copy] of COPIES) expectRefused(await scene.me(copy(device.access)), 'INVALID_TOKEN');
  for (const [, header] of SAME) expectRefused(await withHeader(header(device.access)), 'TOKEN_REVOKED');
  // The same claims, signed again: the session has ended, whatever the token is called.
  expectRefused(await scene.me(forge(key, claimsLike(device.access))), 'TOKEN_REVOKED');
  expectRefused(await refresh(device.refresh), 'TOKEN_REVOKED');
  await expectUnharmed(scene, victim);
});

test('no copy of a token of a session that reuse has ended is accepted', async () => {
  const device = await scene.signIn(victim);
  let token = device.refresh;
  let access = device.access;
  // Used, and its successor used: with no time of grace left, the first is reuse.
  for (let round = 0; round < 3; round += 1) {
    ({ refresh: token, access } = expectTokens(await refresh(token), 200));
    expect((await scene.me(access)).status).toBe(200);
    await scene.redis.idle();
  }
  expectRefused(await refresh(device.refresh), 'TOKEN_REUSED');
  expectRefused(await refresh(token), 'TOKEN_REVOKED');
  for (const [, copy] of COPIES) expectRefused(await scene.me(copy(access)), 'INVALID_TOKEN');
  for (const [, header] of SAME) expectRefused(await withHeader(header(access)), 'TOKEN_REVOKED');
});

test('the logs say nothing', () => expectQuietLogs(scene, victim.access, victim.refresh));
