import { generateKeyPairSync } from 'node:crypto';

import { SignJWT, importJWK } from 'jose';
import type { JWK } from 'jose';
import { describe, expect, test } from 'vitest';

import { configOf } from '../../../src/config/env';
import { createAccessTokens } from '../../../src/services/token/accessToken';
import { createRefreshTokens } from '../../../src/services/token/refreshToken';
import { bindings } from '../support/request';

const config = configOf(bindings());
const START = Date.UTC(2026, 0, 1);
let clock = START;
const now = () => clock;
const access = createAccessTokens(config, now);
const refresh = createRefreshTokens(config.refreshKeys, now);

const claims = {
  userId: 'u1',
  sessionId: 'u1.s1',
  role: 'user',
  epoch: 3,
  accessVersion: 2,
  generation: 5,
} as const;

const b64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const part = (token: string, index: number) => token.split('.')[index] ?? '';
const decode = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString()) as Record<string, unknown>;

describe('access tokens', () => {
  test('say who is who, and in which form (RFC 9068)', async () => {
    const token = await access.sign(claims, 900);
    expect(decode(part(token, 0))).toEqual({ alg: 'EdDSA', typ: 'at+jwt', kid: 'test-1' });
    expect(decode(part(token, 1))).toMatchObject({
      iss: 'http://gatehouse.test',
      aud: 'gatehouse-test',
      sub: 'u1',
      sid: 'u1.s1',
      jti: expect.any(String),
      role: 'user',
      ep: 3,
      av: 2,
      gen: 5,
      exp: START / 1_000 + 900,
    });
    expect(await access.verify(token)).toMatchObject(claims);
  });

  test('expire, also those that were verified before', async () => {
    const token = await access.sign(claims, 900);
    await access.verify(token);
    clock = START + 906_000;
    await expect(access.verify(token)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    await expect(createAccessTokens(config, now).verify(token)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    clock = START;
  });

  const jwk = config.signingKeys.keys[0] as unknown as JWK;
  const payload = {
    iss: config.issuer,
    aud: config.audience,
    sub: 'u1',
    sid: 'u1.s1',
    jti: 'j',
    role: 'user',
    ep: 1,
    av: 1,
    gen: 1,
    iat: START / 1_000,
    exp: START / 1_000 + 900,
  };
  const signed = async (header: object, body: object) =>
    new SignJWT(body as never)
      .setProtectedHeader({ alg: 'Ed25519', typ: 'at+jwt', kid: 'test-1', ...header })
      .sign(await importJWK(jwk, 'Ed25519'));

  test.each<[string, () => string | Promise<string>]>([
    ...['none', 'None', 'NONE', 'nOnE'].map((alg): [string, () => string] => [
      `alg ${alg}`,
      () => `${b64({ alg, typ: 'at+jwt', kid: 'test-1' })}.${b64(payload)}.`,
    ]),
    [
      'HS256 with the public key',
      async () =>
        new SignJWT(payload)
          .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid: 'test-1' })
          .sign(Buffer.from(String(jwk.x), 'base64url')),
    ],
    ['an unknown kid', () => signed({ kid: 'other' }, payload)],
    ['kid traversal', () => signed({ kid: '../../etc/passwd' }, payload)],
    ['no kid', () => signed({ kid: undefined }, payload)],
    ['another type', () => signed({ typ: 'JWT' }, payload)],
    ['no type', () => signed({ typ: undefined }, payload)],
    [
      'an unknown crit',
      async () =>
        new SignJWT(payload)
          .setProtectedHeader({ alg: 'Ed25519', typ: 'at+jwt', kid: 'test-1', crit: ['urn:x'], 'urn:x': true })
          .sign(await importJWK(jwk, 'Ed25519'), { crit: { 'urn:x': true } }),
    ],
    ['another issuer', () => signed({}, { ...payload, iss: 'https://evil.example' })],
    ['another audience', () => signed({}, { ...payload, aud: 'other' })],
    ['no expiry', () => signed({}, { ...payload, exp: undefined })],
    ['issued in the future', () => signed({}, { ...payload, iat: payload.iat + 60 })],
    ['no session', () => signed({}, { ...payload, sid: undefined })],
    ['a role that does not exist', () => signed({}, { ...payload, role: 'root' })],
    ['100 KB', async () => `${await signed({}, payload)}${'A'.repeat(100_000)}`],
    ['a newline after it', async () => `${await signed({}, payload)}\n`],
    ['padding', async () => `${await signed({}, payload)}==`],
    [
      'non-canonical last bits',
      async () => {
        const token = await signed({}, payload);
        const last = token.at(-1) ?? '';
        const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
        return token.slice(0, -1) + (alphabet[alphabet.indexOf(last) ^ 1] ?? '');
      },
    ],
    ['a refresh token', () => refresh.mint({ sessionId: 'u1.s1', generation: 1, epoch: 1, expiresAtMs: START + 1e6 })],
  ])('refuse %s', async (_name, make) => {
    await expect(access.verify(await make())).rejects.toMatchObject({ code: 'INVALID_TOKEN' });
  });

  test('one issued for longer than is allowed now has expired', async () => {
    const old = await signed({}, { ...payload, iat: payload.iat - 5_000 });
    await expect(access.verify(old)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
  });

  test('one with an exp beyond all bounds ends when it would otherwise, remembered or not', async () => {
    const endless = await signed({}, { ...payload, exp: payload.exp + 1e9 });
    expect(await access.verify(endless)).toMatchObject({ expiresAt: payload.iat + config.tokens.accessTtlSeconds });
    clock = START + 911_000;
    await expect(access.verify(endless)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    await expect(createAccessTokens(config, now).verify(endless)).rejects.toMatchObject({ code: 'TOKEN_EXPIRED' });
    clock = START;
  });

  test('the control of the cases above is accepted', async () => {
    expect(await access.verify(await signed({}, payload))).toMatchObject({ userId: 'u1' });
  });

  test('both names of a signature with Ed25519 are accepted', async () => {
    for (const alg of ['EdDSA', 'Ed25519']) {
      expect(await access.verify(await signed({ alg }, payload))).toMatchObject({ userId: 'u1' });
    }
  });

  test('an ES256 key signs and verifies, and tokens of the Ed25519 key before it are still good', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const ec = { ...privateKey.export({ format: 'jwk' }), kty: 'EC' as const, kid: 'ec-1', state: 'active' as const };
    const before = config.signingKeys.keys.map((key) => ({ ...key, state: 'retired' as const }));
    const rotated = createAccessTokens({ ...config, signingKeys: { keys: [...before, ec] } }, now);
    const token = await rotated.sign(claims, 900);
    expect(decode(part(token, 0))).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: 'ec-1' });
    expect(await rotated.verify(token)).toMatchObject(claims);
    expect(await rotated.verify(await access.sign(claims, 900))).toMatchObject(claims);
    await expect(access.verify(token)).rejects.toMatchObject({ code: 'INVALID_TOKEN' });
    expect(JSON.stringify(rotated.jwks())).not.toContain(ec.d);
  });

  test('the key set shows public members only', () => {
    expect(access.jwks().keys).toEqual([
      { kty: 'OKP', crv: 'Ed25519', x: jwk.x, kid: 'test-1', alg: 'EdDSA', use: 'sig' },
    ]);
  });
});

describe('refresh tokens', () => {
  const grant = { sessionId: 'u1.s1', generation: 7, epoch: 2, expiresAtMs: START + 1_000_000 };

  test('are the same for the same grant, and give it back', () => {
    const token = refresh.mint(grant);
    expect(refresh.mint(grant)).toBe(token);
    expect(refresh.read(token)).toEqual(grant);
  });

  test('no changed character is accepted', () => {
    const token = refresh.mint(grant);
    for (let index = 0; index < token.length; index += 1) {
      const other = token[index] === 'b' ? 'c' : 'b';
      const tampered = `${token.slice(0, index)}${other}${token.slice(index + 1)}`;
      expect(() => refresh.read(tampered), `at ${index}`).toThrow('not valid');
    }
  });

  test('end with the session', () => {
    const token = refresh.mint({ ...grant, expiresAtMs: START - 1 });
    expect(() => refresh.read(token)).toThrow('expired');
  });

  test('a retired key still reads, the active one mints', () => {
    const key = (kid: string, state: 'active' | 'retired') => ({
      kty: 'oct' as const,
      kid,
      state,
      k: Buffer.alloc(32, kid).toString('base64url'),
    });
    const before = createRefreshTokens({ keys: [key('a', 'active')] }, now);
    const after = createRefreshTokens({ keys: [key('a', 'retired'), key('b', 'active')] }, now);
    expect(after.read(before.mint(grant))).toEqual(grant);
    expect(after.mint(grant)).not.toBe(before.mint(grant));
    expect(() => before.read(after.mint(grant))).toThrow('not valid');
  });
});
