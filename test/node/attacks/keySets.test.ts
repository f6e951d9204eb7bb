import { randomUUID } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { newcomer } from '../../support/client.ts';
import { SMALL_ORDER_POINTS, ed25519Key, secretFaults, signingFaults } from '../../support/keyFaults.ts';
import { b64, claimsOf, nowSeconds } from './forge.ts';
import { startAttack } from './scene.ts';

/** One of each kind that used to start: the whole list is tried in test/worker/config/keySets.test.ts. */
const FAULTS = {
  ...pick(signingFaults(), 'an EC point off its curve', 'an Ed25519 x of 33 bytes', 'a d of another Ed25519 key'),
  ...pick(signingFaults(), 'key_ops of verify'),
};

function pick<T>(from: Record<string, T>, ...names: string[]): Record<string, T> {
  return Object.fromEntries(names.map((name) => [name, from[name]!]));
}

describe('a Worker with keys that cannot be used', () => {
  test.each(Object.entries(FAULTS))('%s: is not ready, and a registration writes nothing', async (_, fault) => {
    await using scene = await startAttack({ SIGNING_KEYS: fault.value });
    const ready = await scene.call('GET', '/ready');
    expect([ready.status, ready.body.code]).toEqual([503, 'CONFIG_INVALID']);
    expect(ready.body.detail).toContain(`key ${fault.kid} has`);

    const person = newcomer();
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const answer = await scene.call('POST', '/v1/auth/register', { body: person });
      expect([answer.status, answer.body.code]).toEqual([503, 'CONFIG_INVALID']);
    }
    for (const table of ['users', 'sessions', 'events', 'outbox']) {
      expect(await scene.app.sql(`SELECT * FROM ${table}`)).toEqual([]);
    }
    expect(scene.redis.requests).toEqual([]);
  });

  test('all-zero refresh keys: a refresh token that anyone can mint is not served', async () => {
    await using scene = await startAttack({ REFRESH_KEYS: secretFaults()['all zeros']!.value });
    const { status, body } = await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: 'grt1.x' } });
    expect([status, body.code]).toEqual([503, 'CONFIG_INVALID']);
    expect(body.detail).toContain('REFRESH_KEYS (key oct has a k that is not random)');
  });
});

describe('a retired key of small order', () => {
  /** R is the identity and S is 0: for the identity as key, this signs every message. */
  const SIGNATURE = b64(Buffer.from(`01${'00'.repeat(63)}`, 'hex'));

  test('lets no administrator in whom its owner has not made', async () => {
    const x = Buffer.from(SMALL_ORDER_POINTS['the identity']!, 'hex').toString('base64url');
    const weak = { kty: 'OKP', crv: 'Ed25519', x, kid: 'weak', alg: 'Ed25519', use: 'sig', state: 'retired' };
    await using scene = await startAttack({ SIGNING_KEYS: JSON.stringify({ keys: [ed25519Key(), weak] }) });
    const sub = randomUUID();
    const nowS = nowSeconds();
    await scene.app.sql(
      `INSERT INTO users (id, email, name, role, password_hash, created_at_ms, updated_at_ms)
       VALUES (?, 'root@example.com', 'Root', 'admin', '', 0, 0)`,
      sub,
    );
    await scene.app.sql(
      `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       VALUES (?, ?, '', '', 0, ?, ?, 1)`,
      `${sub}.x`,
      sub,
      nowS * 1_000,
      (nowS + 3_600) * 1_000,
    );
    const payload = { iss: 'http://gatehouse.test', aud: 'gatehouse-test', sub, sid: `${sub}.x`, jti: randomUUID() };
    const claims = { ...payload, role: 'admin', ep: 1, av: 1, gen: 1, iat: nowS, exp: nowS + 900 };
    const token = `${b64({ alg: 'Ed25519', typ: 'at+jwt', kid: 'weak' })}.${b64(claims)}.${SIGNATURE}`;
    expect(claimsOf(token)).toMatchObject({ role: 'admin' });

    const answer = await scene.call('GET', '/v1/users', { token });
    expect([answer.status, answer.body.code]).toEqual([503, 'CONFIG_INVALID']);
    expect(answer.body.detail).toContain('key weak has an x of small order');
  });
});
