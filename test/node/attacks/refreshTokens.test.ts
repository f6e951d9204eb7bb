import { createHmac, randomBytes } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { expectTokens } from '../../support/flow.ts';
import { looseBits } from './forge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

const refreshKey = (kid: string, state: string) => ({
  kty: 'oct',
  k: randomBytes(32).toString('base64url'),
  kid,
  alg: 'HS256',
  state,
});
const KEYS = [refreshKey('r-active', 'active'), refreshKey('r-next', 'next'), refreshKey('r-retired', 'retired')];

let scene: AttackScene;
let victim: Victim;
let attacker: Victim;
beforeAll(async () => {
  scene = await startAttack({ REFRESH_KEYS: JSON.stringify({ keys: KEYS }), LIMIT_REFRESH: '5/15m' });
  victim = await scene.newAccount();
  attacker = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const refresh = (token: string) => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });

/** `grt1.<kid>.<user>.<random>.<generation>.<epoch>.<expiry>.<mac>` */
const PARTS = ['form', 'kid', 'user', 'random', 'generation', 'epoch', 'expiry', 'mac'] as const;
type Part = (typeof PARTS)[number];

function changed(token: string, change: Partial<Record<Part, (text: string) => string>>): string {
  return token
    .split('.')
    .map((text, index) => change[PARTS[index] ?? 'form']?.(text) ?? text)
    .join('.');
}

/** What the Worker would mint, with this secret. */
function minted(secret: string | Buffer, token: string, change: Parameters<typeof changed>[1] = {}): string {
  const body = changed(token, change).split('.').slice(0, -1).join('.');
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

const add = (more: number) => (text: string) => (Number.parseInt(text, 36) + more).toString(36);
const flip = (text: string, at: number) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
const swapCase = (text: string) =>
  text.replaceAll(/[a-z]/gi, (char) => (char === char.toLowerCase() ? char.toUpperCase() : char.toLowerCase()));
const secretOf = (kid: string) => Buffer.from(KEYS.find((key) => key.kid === kid)?.k ?? '', 'base64url');

/** Every form that is no token, by name. */
function tamperings(token: string, foreign: string): [string, string][] {
  const part = (given: string, name: Part) => given.split('.')[PARTS.indexOf(name)] ?? '';
  return [
    ...Array.from({ length: token.length }, (_, at): [string, string] => [`character ${at} changed`, flip(token, at)]),
    ...Array.from({ length: 43 }, (_, cut): [string, string] => [
      `${cut + 1} characters short`,
      token.slice(0, -cut - 1),
    ]),
    ...[1, 2, 3, 35, 1e6].map((more): [string, string] => [
      `generation + ${more}`,
      changed(token, { generation: add(more) }),
    ]),
    ['generation zero', changed(token, { generation: () => '0' })],
    ['generation negative', changed(token, { generation: () => '-1' })],
    ['generation with a zero before it', changed(token, { generation: (text) => `0${text}` })],
    ['generation beyond exact numbers', changed(token, { generation: () => 'zzzzzzzzzzz' })],
    ['epoch + 1', changed(token, { epoch: add(1) })],
    ['epoch zero', changed(token, { epoch: () => '0' })],
    ['a later expiry', changed(token, { expiry: add(86_400_000) })],
    ['an endless expiry', changed(token, { expiry: () => 'zzzzzzzzzzz' })],
    ['an earlier expiry', changed(token, { expiry: add(-1) })],
    ['another session of the victim', changed(token, { random: () => randomBytes(16).toString('base64url') })],
    ['a session of the attacker', changed(token, { random: () => part(foreign, 'random') })],
    ['another user', changed(token, { user: () => part(foreign, 'user') })],
    ['the victim in a token of the attacker', changed(foreign, { user: () => part(token, 'user') })],
    [
      'the victim and their session in a token of the attacker',
      changed(foreign, { user: () => part(token, 'user'), random: () => part(token, 'random') }),
    ],
    ["the attacker's MAC", changed(token, { mac: () => part(foreign, 'mac') })],
    ['a retired kid', changed(token, { kid: () => 'r-retired' })],
    ['the next kid', changed(token, { kid: () => 'r-next' })],
    ['an unknown kid', changed(token, { kid: () => 'r-none' })],
    ['a prototype as kid', changed(token, { kid: () => '__proto__' })],
    ['the empty kid', changed(token, { kid: () => '' })],
    ['another form', changed(token, { form: () => 'grt2' })],
    ['no form', token.slice(5)],
    ['minted with the empty secret', minted('', token)],
    ['minted with the kid as secret', minted('r-active', token)],
    ['minted with the text of the secret', minted(KEYS[0]?.k ?? '', token)],
    ['minted with the retired secret under the active kid', minted(secretOf('r-retired'), token)],
    ['an empty MAC', changed(token, { mac: () => '' })],
    ['a MAC of zeroes', changed(token, { mac: () => 'A'.repeat(43) })],
    ['a MAC in hexadecimal', changed(token, { mac: (text) => Buffer.from(text, 'base64url').toString('hex') })],
    ['a MAC in ordinary base64', changed(token, { mac: (text) => Buffer.from(text, 'base64url').toString('base64') })],
    ['a MAC with loose bits', looseBits(token)],
    ['a MAC in the other case', changed(token, { mac: swapCase })],
    ['all in the other case', swapCase(token)],
    ['upper case numbers', changed(token, { expiry: (text) => text.toUpperCase() })],
    ['the session in the other case', changed(token, { random: swapCase })],
    ...[
      '\n',
      '\r\n',
      ' ',
      '\t',
      '\0',
      '=',
      '==',
      '.',
      'A',
      '.A',
      '%00',
      '\u200b',
      '\ufeff',
      '/../',
      ';x',
      ',',
      '"',
    ].flatMap((text): [string, string][] => [
      [`${JSON.stringify(text)} after it`, `${token}${text}`],
      [`${JSON.stringify(text)} before it`, `${text}${token}`],
      [`${JSON.stringify(text)} within it`, `${token.slice(0, 40)}${text}${token.slice(40)}`],
    ]),
    ['full-width digits', changed(token, { generation: () => '\uff11' })],
    ['Cyrillic letters', token.replace('grt1', 'g\u0433t1')],
    ['percent-encoded', token.replaceAll('.', '%2e')],
    ['doubled', `${token}${token}`],
    ['two, with a comma', `${token},${token}`],
    ['as a bearer header', `Bearer ${token}`],
    ['in quotes', JSON.stringify(token)],
  ];
}

test('200 tampered tokens touch nothing of the victim’s', async () => {
  const list = tamperings(victim.refresh, attacker.refresh).filter(([, token]) => token !== victim.refresh);
  expect(new Set(list.map(([, token]) => token)).size).toBeGreaterThan(200);
  const before = await scene.redis.engine(
    'HGETALL',
    `app:session:{${victim.id}}${victim.sessionId.slice(victim.id.length)}`,
  );
  expect(before).not.toEqual([]);
  await scene.redis.idle();
  scene.redis.reset();
  for (const [name, token] of list) {
    const answer = await refresh(token);
    expect([name, answer.body.code]).toEqual([name, token.length > 512 ? 'VALIDATION_FAILED' : 'INVALID_TOKEN']);
    expectRefused(answer, 'INVALID_TOKEN', 'VALIDATION_FAILED');
  }
  await scene.redis.idle();
  // Not one command, hence no counter and no session.
  expect(scene.redis.counts).toMatchObject({ requests: 0, commands: 0 });
  const after = await scene.redis.engine(
    'HGETALL',
    `app:session:{${victim.id}}${victim.sessionId.slice(victim.id.length)}`,
  );
  expect(after).toEqual(before);

  await expectUnharmed(scene, victim);
  const answer = await refresh(victim.refresh);
  const { refresh: successor } = expectTokens(answer, 200);
  // The first of five.
  expect(answer.headers.get('RateLimit')).toMatch(/"refresh";r=4;/);
  expect(scene.redis.counts.requests).toBeGreaterThan(0);
  victim = { ...victim, refresh: successor, access: answer.body.access_token };
});

describe('minted with the right secret', () => {
  test('the control: the same token, character by character', async () => {
    const device = await scene.signIn(attacker);
    expect(minted(secretOf('r-active'), device.refresh)).toBe(device.refresh);
    expectTokens(await refresh(minted(secretOf('r-active'), device.refresh)), 200);
  });

  test.each(['r-retired', 'r-next'])('%s verifies under its own kid, and the active one answers', async (kid) => {
    const device = await scene.signIn(attacker);
    const { refresh: successor } = expectTokens(
      await refresh(minted(secretOf(kid), device.refresh, { kid: () => kid })),
      200,
    );
    expect(successor).toMatch(/^grt1\.r-active\./);
  });

  test('of a session that has ended, or never was, it opens nothing', async () => {
    const device = await scene.signIn(attacker);
    expect((await scene.call('POST', '/v1/auth/logout', { token: device.access })).status).toBe(204);
    const secret = secretOf('r-active');
    for (const change of [
      {},
      { generation: add(1) },
      { generation: add(50) },
      { epoch: add(5) },
      { expiry: add(1e9) },
    ]) {
      expectRefused(await refresh(minted(secret, device.refresh, change)), 'TOKEN_REVOKED', 'TOKEN_REUSED');
    }
    const nowhere = minted(secret, device.refresh, { random: () => randomBytes(16).toString('base64url') });
    expectRefused(await refresh(nowhere), 'TOKEN_REVOKED');
    expectRefused(await refresh(minted(secret, device.refresh, { expiry: () => '1' })), 'TOKEN_EXPIRED');
  });
});

test.each<[string, unknown]>([
  ['no member', {}],
  ['null', { refresh_token: null }],
  ['a number', { refresh_token: 1 }],
  ['a list with a good one', () => ({ refresh_token: [victim.refresh] })],
  ['an object', () => ({ refresh_token: { toString: victim.refresh } })],
  ['empty', { refresh_token: '' }],
  ['100 KB', { refresh_token: `grt1.${'A'.repeat(100_000)}` }],
  ['60 KB', { refresh_token: `grt1.${'A'.repeat(60_000)}` }],
  ['a good one and more members', () => ({ refresh_token: victim.refresh, grant_type: 'refresh_token' })],
  ['a good one under another name', () => ({ refreshToken: victim.refresh })],
])('a body with %s is refused', async (_, body) => {
  const given: unknown = typeof body === 'function' ? (body as () => unknown)() : body;
  const answer = await scene.call('POST', '/v1/auth/refresh', { body: given });
  expectRefused(answer, 'VALIDATION_FAILED', 'BODY_TOO_LARGE');
});

test('a good one anywhere but in a JSON body is refused', async () => {
  const { refresh: token } = victim;
  const path = '/v1/auth/refresh';
  const form = { raw: `refresh_token=${token}`, headers: { 'Content-Type': 'application/x-www-form-urlencoded' } };
  expectRefused(await scene.call('POST', path, form), 'UNSUPPORTED_MEDIA_TYPE');
  expectRefused(await scene.call('POST', `${path}?refresh_token=${token}`, { body: {} }), 'VALIDATION_FAILED');
  expectRefused(await scene.call('POST', path, { token, body: {} }), 'VALIDATION_FAILED');
  expectRefused(await scene.call('POST', path, { headers: { Cookie: `refresh_token=${token}` } }), 'MALFORMED_JSON');
  expectRefused(await scene.call('GET', `${path}?refresh_token=${token}`), 'METHOD_NOT_ALLOWED');
  expectTokens(await refresh(token), 200);
});

test('the logs say nothing', () => {
  expectQuietLogs(scene, victim.refresh, attacker.refresh, ...KEYS.map(({ k }) => k));
});
