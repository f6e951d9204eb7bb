import { env as tests } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { parseConfig } from '../../../src/config/env';
import { createAccessTokens } from '../../../src/services/token/accessToken';
import {
  SMALL_ORDER_POINTS,
  ed25519Key,
  p256Key,
  secretFaults,
  secretKey,
  signingFaults,
} from '../../support/keyFaults';
import { callerOf } from '../support/request';

const keys = (value: string) => (JSON.parse(value) as { keys: Record<string, unknown>[] }).keys;
const setOf = (...all: unknown[]) => JSON.stringify({ keys: all });

const cases = [
  ...Object.entries(signingFaults()).map(([fault, about]) => ['SIGNING_KEYS', fault, about] as const),
  ...Object.entries(secretFaults()).map(([fault, about]) => ['REFRESH_KEYS', fault, about] as const),
  ...Object.entries(secretFaults()).map(([fault, about]) => ['PEPPER_KEYS', fault, about] as const),
];

describe('a key set that cannot be used', () => {
  test.each(cases)(
    '%s with %s: nothing is served, and the response has the reason',
    async (name, _, { value, kid, says }) => {
      const call = callerOf(createApp(), { ...tests, [name]: value });
      for (const path of ['/ready', '/.well-known/jwks.json', '/v1/users/me']) {
        const { status, body } = await call('GET', path);
        expect({ path, status, code: body.code }).toEqual({ path, status: 503, code: 'CONFIG_INVALID' });
        expect(body.detail).toContain(`wrong: ${name} (`);
        expect(body.detail).toContain(says);
        expect(body.detail).toContain(kid === '' ? '' : `key ${kid} has`);
        for (const key of keys(value)) {
          for (const part of ['d', 'k', 'x'].flatMap((member) => key[member] ?? []))
            expect(body.detail).not.toContain(part);
        }
      }
    },
  );

  test('a secret is not used for refresh tokens and for peppers', () => {
    const key = secretKey();
    const both = { REFRESH_KEYS: setOf(key), PEPPER_KEYS: setOf({ ...key, kid: 'p' }) };
    expect(() => parseConfig({ ...tests, ...both })).toThrow('PEPPER_KEYS (has a key of REFRESH_KEYS');
  });

  test('one message names every fault, each with its key', () => {
    const value = setOf(ed25519Key({ use: 'enc' }), p256Key({ state: 'retired', alg: 'ES512' }));
    expect(() => parseConfig({ ...tests, SIGNING_KEYS: value })).toThrow(
      /key ed has another use.*key ec has another alg/,
    );
  });
});

describe('a key set that can be used', () => {
  test.each([
    ['only what is needed', [ed25519Key({ alg: undefined, use: undefined })]],
    ['the name EdDSA', [ed25519Key({ alg: 'EdDSA' })]],
    ['key_ops of a private key', [ed25519Key({ key_ops: ['sign'], ext: false })]],
    ['key_ops of both', [p256Key({ key_ops: ['verify', 'sign'] })]],
    ['public keys beside it', [ed25519Key(), p256Key({ d: undefined, state: 'retired', key_ops: ['verify'] })]],
    ['a next key of which only the public part is here', [ed25519Key(), p256Key({ d: undefined, state: 'next' })]],
  ])('with %s signs and verifies', async (_, all) => {
    const config = parseConfig({ ...tests, SIGNING_KEYS: setOf(...all) });
    const tokens = createAccessTokens(config, Date.now);
    const claims = { userId: 'u', sessionId: 'u.s', role: 'user', epoch: 1, accessVersion: 1, generation: 1 } as const;
    expect(await tokens.verify(await tokens.sign(claims, 60))).toMatchObject(claims);
    expect(tokens.jwks().keys).toHaveLength(all.length);
  });

  test('a thousand new keys of each kind are taken', () => {
    const secrets = Array.from({ length: 1_000 }, (_, index) =>
      secretKey({ kid: `s${index}`, state: index === 0 ? 'active' : 'retired' }),
    );
    expect(parseConfig({ ...tests, REFRESH_KEYS: setOf(...secrets) }).refreshKeys.keys).toHaveLength(1_000);
    const signing = Array.from({ length: 100 }, (_, index) => [
      ed25519Key({ kid: `e${index}`, state: index === 0 ? 'active' : 'next' }),
      p256Key({ kid: `p${index}`, state: 'retired' }),
    ]);
    expect(parseConfig({ ...tests, SIGNING_KEYS: setOf(...signing.flat()) }).signingKeys.keys).toHaveLength(200);
  });
});

describe('the list of points of small order', () => {
  const P = 2n ** 255n - 19n;
  const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;
  const L = 2n ** 252n + 27742317777372353535851937790883648493n;
  type Point = readonly [x: bigint, y: bigint];

  const mod = (value: bigint) => ((value % P) + P) % P;
  const power = (base: bigint, exponent: bigint): bigint => {
    let [result, factor] = [1n, base];
    for (let rest = exponent; rest > 0n; rest >>= 1n) {
      if ((rest & 1n) === 1n) result = mod(result * factor);
      factor = mod(factor * factor);
    }
    return result;
  };
  const add = ([x1, y1]: Point, [x2, y2]: Point): Point => {
    const k = mod(D * mod(mod(x1 * x2) * mod(y1 * y2)));
    return [
      mod(mod(x1 * y2 + x2 * y1) * power(mod(1n + k), P - 2n)),
      mod(mod(y1 * y2 + x1 * x2) * power(mod(1n - k), P - 2n)),
    ];
  };
  const times = (count: bigint, point: Point): Point => {
    let [result, factor]: [Point, Point] = [[0n, 1n], point];
    for (let rest = count; rest > 0n; rest >>= 1n) {
      if ((rest & 1n) === 1n) result = add(result, factor);
      factor = add(factor, factor);
    }
    return result;
  };
  const xOf = (y: bigint): bigint | undefined => {
    const square = mod(mod(y * y - 1n) * power(mod(D * mod(y * y) + 1n), P - 2n));
    const root = power(square, (P + 3n) / 8n);
    const other = mod(root * power(2n, (P - 1n) / 4n));
    return [root, other].find((x) => mod(x * x) === square);
  };

  test('is the whole subgroup of order 8, by the curve’s own arithmetic', () => {
    const found = new Set<bigint>();
    for (let y = 2n; found.size < 5; y += 1n) {
      const x = xOf(y);
      if (x === undefined) continue;
      // What is left of a point without its part in the subgroup of prime order.
      const torsion = times(L, [x, y]);
      for (let count = 1n; count <= 8n; count += 1n) found.add(times(count, torsion)[1]);
    }
    const listed = Object.values(SMALL_ORDER_POINTS).map(
      (hex) => BigInt(`0x${Buffer.from(hex, 'hex').reverse().toString('hex')}`) & (2n ** 255n - 1n),
    );
    expect(new Set(listed.map(mod))).toEqual(found);
  });
});
