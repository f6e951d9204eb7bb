import { randomBytes } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { expectTokens } from '../../support/flow.ts';
import { add, minted, refreshKey, tamperings } from './refreshForge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

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

const secretOf = (kid: string) => Buffer.from(KEYS.find((key) => key.kid === kid)?.k ?? '', 'base64url');

const refresh = (token: string) => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });

test('200 tampered tokens touch nothing of the victim’s', async () => {
  const list = tamperings(victim.refresh, attacker.refresh, secretOf('r-retired')).filter(
    ([, token]) => token !== victim.refresh,
  );
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
