import { randomBytes } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { Answer } from '../../support/client.ts';
import { expectTokens } from '../../support/flow.ts';
import { claimsLike, claimsOf, forge, newKey, signingKeys } from './forge.ts';
import { minted, refreshKey, tamperings } from './refreshForge.ts';
import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

const key = newKey('key-1');
const sameKid = newKey('key-1');
const KEYS = [refreshKey('r-active', 'active'), refreshKey('r-retired', 'retired')];

let scene: AttackScene;
let victim: Victim;
let attacker: Victim;
beforeAll(async () => {
  scene = await startAttack({
    SIGNING_KEYS: signingKeys({ active: key }),
    REFRESH_KEYS: JSON.stringify({ keys: KEYS }),
  });
  victim = await scene.newAccount();
  attacker = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const secretOf = (kid: string) => Buffer.from(KEYS.find((key) => key.kid === kid)?.k ?? '', 'base64url');

const revoke = (token: string, more: object = {}) =>
  scene.call('POST', '/v1/auth/revoke', { body: { token, ...more } });

/** The response to any caller, whatever the token was (RFC 7009, section 2.2). */
function expectToldNothing({ status, body }: Answer): void {
  expect([status, body]).toEqual([200, {}]);
}

/** Whether a command names anything of the victim's. */
const ofVictim = () =>
  scene.redis.requests.flatMap(({ commands }) => commands).filter((command) => command.join(' ').includes(victim.id));

async function expectNothingEnded(): Promise<void> {
  await scene.redis.idle();
  expect(ofVictim()).toEqual([]);
  const ended = await scene.app.sql('SELECT id FROM sessions WHERE user_id = ? AND ended_at_ms IS NOT NULL', victim.id);
  expect(ended).toEqual([]);
  expect(await scene.app.sql('SELECT id FROM revoked_tokens')).toEqual([]);
  await expectUnharmed(scene, victim);
}

describe('a token is revoked by itself alone', () => {
  test('with 200 tampered refresh tokens', async () => {
    await scene.redis.idle();
    scene.redis.reset();
    for (const [, token] of tamperings(victim.refresh, attacker.refresh, secretOf('r-retired'))) {
      if (token !== victim.refresh) expectToldNothing(await revoke(token));
    }
    await expectNothingEnded();
    victim = { ...victim, refresh: expectTokens(await refresh(victim.refresh), 200).refresh };
  });

  test('with forged access tokens', async () => {
    await scene.redis.idle();
    scene.redis.reset();
    const claims = claimsLike(victim.access);
    const genuine = claimsOf(victim.access);
    const [header, payload] = victim.access.split('.');
    for (const token of [
      forge(sameKid, claims),
      forge(sameKid, genuine),
      forge(newKey('other'), genuine),
      forge(key, { ...genuine, aud: 'other-app' }),
      forge(key, { ...genuine, iss: 'https://evil.example' }),
      forge(key, genuine, { typ: 'JWT' }),
      `${header}.${payload}.`,
      `${header}.${payload}`,
      `${victim.access}=`,
      `${victim.access}\n`,
      ` ${victim.access}`,
      `Bearer ${victim.access}`,
    ]) {
      expectToldNothing(await revoke(token));
    }
    await expectNothingEnded();
  });

  test('with ids alone', async () => {
    await scene.redis.idle();
    scene.redis.reset();
    const { jti } = claimsOf(victim.access);
    for (const token of [victim.sessionId, victim.id, String(jti), victim.email, '*', '{}', '__proto__']) {
      expectToldNothing(await revoke(token));
      expectToldNothing(await revoke(token, { sid: victim.sessionId, sub: victim.id, jti }));
    }
    await expectNothingEnded();
  });

  const refresh = (token: string) => scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
});

test('the response is the same whether or not a session was there', async () => {
  const ended = await scene.signIn(attacker);
  expectToldNothing(await revoke(ended.refresh));
  expectRefused(await scene.me(ended.access), 'TOKEN_REVOKED');
  expectToldNothing(await revoke(ended.refresh));
  expectToldNothing(await revoke(ended.access));
  // Signed as the Worker would, for a session that never was.
  const never = minted(secretOf('r-active'), ended.refresh, { random: () => randomBytes(16).toString('base64url') });
  expectToldNothing(await revoke(never));
  await expectUnharmed(scene, attacker);
});

test('a wrong hint changes nothing', async () => {
  for (const hint of ['refresh_token', 'access_token', 'id_token', '__proto__', '']) {
    const { access } = await scene.signIn(attacker);
    expectToldNothing(await revoke(access, { token_type_hint: hint }));
    expectRefused(await scene.me(access), 'TOKEN_REVOKED');
  }
});

test('no copy of a revoked token is accepted, nor does it last by being signed again', async () => {
  const device = await scene.signIn(attacker);
  expect((await scene.me(device.access)).status).toBe(200);
  expectToldNothing(await revoke(device.access));
  for (const token of [
    device.access,
    forge(key, claimsOf(device.access)),
    forge(key, claimsOf(device.access), { x: 1 }),
  ]) {
    expectRefused(await scene.me(token), 'TOKEN_REVOKED');
  }
  for (const copy of [`${device.access}=`, `${device.access}%0A`, `${device.access}.`]) {
    expectRefused(await scene.me(copy), 'INVALID_TOKEN');
  }
});

describe('bodies', () => {
  const form = (raw: string) =>
    scene.call('POST', '/v1/auth/revoke', { raw, headers: { 'Content-Type': 'application/x-www-form-urlencoded' } });

  test('the control: a form', async () => {
    const { access } = await scene.signIn(attacker);
    expectToldNothing(await form(`token=${access}&token_type_hint=access_token&__proto__=x&client_id=app`));
    expectRefused(await scene.me(access), 'TOKEN_REVOKED');
  });

  test.each([
    '',
    'token=',
    'tokens=x',
    'token[]=x',
    '__proto__=x',
    '__proto__[token]=x',
    'token=a&token=b',
    'token=%',
    `token=${'a'.repeat(5_000)}`,
    'a=b&'.repeat(15_000),
    '{"token":"x"}',
  ])('a form of %j', async (raw) => {
    const answer = await form(raw);
    if (raw === 'token=%') expectToldNothing(answer);
    else expectRefused(answer, 'VALIDATION_FAILED', 'MALFORMED_REQUEST', 'MALFORMED_JSON', 'UNSUPPORTED_MEDIA_TYPE');
  });

  test('elsewhere a form is none', async () => {
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
    for (const path of ['/v1/auth/login', '/v1/auth/register', '/v1/auth/refresh', '/v1/auth/revoke/']) {
      expectRefused(await scene.call('POST', path, { raw: 'token=x', headers }), 'UNSUPPORTED_MEDIA_TYPE');
    }
  });
});

test('the logs say nothing', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene, victim.access, victim.refresh, attacker.refresh);
});
