import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';

type Jwk = Record<string, unknown>;

const b64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64url');

export function ed25519Key(more: Jwk = {}): Jwk {
  const { privateKey } = generateKeyPairSync('ed25519');
  return { ...privateKey.export({ format: 'jwk' }), kid: 'ed', alg: 'Ed25519', use: 'sig', state: 'active', ...more };
}

export function p256Key(more: Jwk = {}): Jwk {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'ec', alg: 'ES256', use: 'sig', state: 'active', ...more };
}

export function secretKey(more: Jwk = {}): Jwk {
  return { kty: 'oct', k: b64(randomBytes(32)), kid: 'oct', alg: 'HS256', state: 'active', ...more };
}

const setOf = (...keys: Jwk[]): string => JSON.stringify({ keys });
const retired = (key: Jwk): Jwk => ({ ...key, d: undefined, state: 'retired' });

/** y of the points whose order divides 8, little-endian, without the sign of x; the last two are other spellings. */
export const SMALL_ORDER_POINTS: Readonly<Record<string, string>> = {
  'the identity': `01${'00'.repeat(31)}`,
  'the identity, with a sign': `01${'00'.repeat(30)}80`,
  'the point of order 2': `ec${'ff'.repeat(30)}7f`,
  'a point of order 4': '00'.repeat(32),
  'the other point of order 4': `${'00'.repeat(31)}80`,
  'a point of order 8': '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'another point of order 8': 'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'a point of order 4, unreduced': `ed${'ff'.repeat(30)}7f`,
  'the identity, unreduced': `ee${'ff'.repeat(30)}7f`,
};

/** A y between 2 and 9 that no point of Curve25519's Edwards form has. */
const NO_POINT = `07${'00'.repeat(31)}`;

const point = (hex: string, more: Jwk = {}): Jwk =>
  retired({ kty: 'OKP', crv: 'Ed25519', x: b64(Buffer.from(hex, 'hex')), kid: 'weak', ...more });

/** Every fault of a signing set, with the words that name it and the id of its key. */
export function signingFaults(): Record<string, { value: string; kid: string; says: string }> {
  const ed = ed25519Key();
  const ec = p256Key();
  const [otherEd, otherEc] = [ed25519Key(), p256Key()];
  const x33 = b64(Buffer.concat([Buffer.from(String(ed['x']), 'base64url'), Buffer.alloc(1)]));
  const order = Buffer.from('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551', 'hex');
  const zeroSeed = createPrivateKey({
    key: Buffer.from(`302e020100300506032b657004220420${'00'.repeat(32)}`, 'hex'),
    format: 'der',
    type: 'pkcs8',
  }).export({ format: 'jwk' });
  const weak = Object.entries(SMALL_ORDER_POINTS).map(
    ([name, hex]) =>
      [
        `a retired key that is ${name}`,
        { value: setOf(ed, point(hex)), kid: 'weak', says: name.endsWith('unreduced') ? 'canonical' : 'small order' },
      ] as const,
  );
  return {
    'an EC point off its curve': { value: setOf({ ...ec, y: ec['x'] }), kid: 'ec', says: 'not a point' },
    'a retired EC point off its curve': {
      value: setOf(ed, retired({ ...ec, y: ec['x'] })),
      kid: 'ec',
      says: 'not a point',
    },
    'an Ed25519 x of 33 bytes': { value: setOf({ ...ed, x: x33 }), kid: 'ed', says: 'no x of 32 bytes' },
    'an Ed25519 x of 31 bytes': { value: setOf({ ...ed, x: String(ed['x']).slice(0, 42) }), kid: 'ed', says: 'no x' },
    'an x with padding': { value: setOf({ ...ed, x: `${String(ed['x'])}=` }), kid: 'ed', says: 'no x' },
    'an Ed25519 x off its curve': { value: setOf(ed, point(NO_POINT)), kid: 'weak', says: 'not a point' },
    'a d of another Ed25519 key': {
      value: setOf({ ...ed, d: otherEd['d'] }),
      kid: 'ed',
      says: 'd that does not belong',
    },
    'a d of another EC key': { value: setOf({ ...ec, d: otherEc['d'] }), kid: 'ec', says: 'd that does not belong' },
    'a wrong d of a next key': {
      value: setOf(ed, { ...ec, d: otherEc['d'], state: 'next' }),
      kid: 'ec',
      says: 'd that does not belong',
    },
    'an EC d of the order': { value: setOf({ ...ec, d: b64(order) }), kid: 'ec', says: 'beyond the order' },
    'an all-zero Ed25519 seed': { value: setOf({ ...ed, ...zeroSeed }), kid: 'ed', says: 'd that is not random' },
    'no d of the active key': { value: setOf({ ...ed, d: undefined }), kid: 'ed', says: 'no d' },
    'another curve': { value: setOf({ ...ec, crv: 'P-384' }), kid: 'ec', says: 'another crv' },
    X25519: { value: setOf({ ...ed, crv: 'X25519' }), kid: 'ed', says: 'another crv' },
    'key_ops of verify': { value: setOf({ ...ed, key_ops: ['verify'] }), kid: 'ed', says: 'key_ops without sign' },
    'key_ops of verify, ES256': {
      value: setOf({ ...ec, key_ops: ['verify'] }),
      kid: 'ec',
      says: 'key_ops without sign',
    },
    'key_ops of deriveBits': { value: setOf({ ...ed, key_ops: ['sign', 'deriveBits'] }), kid: 'ed', says: 'key_ops' },
    'key_ops of a string': { value: setOf({ ...ed, key_ops: 'sign' }), kid: 'ed', says: 'key_ops' },
    'key_ops twice': { value: setOf({ ...ed, key_ops: ['sign', 'sign'] }), kid: 'ed', says: 'key_ops' },
    'no key_ops at all': { value: setOf(ed, { ...ec, state: 'retired', key_ops: [] }), kid: 'ec', says: 'key_ops' },
    'use of encryption': { value: setOf({ ...ed, use: 'enc' }), kid: 'ed', says: 'another use' },
    'an alg of the other type': { value: setOf({ ...ed, alg: 'ES256' }), kid: 'ed', says: 'another alg' },
    'alg none': { value: setOf({ ...ec, alg: 'none' }), kid: 'ec', says: 'another alg' },
    'one key under two ids': { value: setOf(ed, { ...ed, kid: 'b', state: 'retired' }), kid: '', says: 'two ids' },
    'a secret key': { value: setOf(secretKey()), kid: '', says: 'no kty of OKP or EC' },
    ...Object.fromEntries(weak),
  };
}

/** Every fault of a set of secrets. */
export function secretFaults(): Record<string, { value: string; kid: string; says: string }> {
  const of = (bytes: Uint8Array, more: Jwk = {}) => setOf(secretKey({ k: b64(bytes), ...more }));
  const counting = Uint8Array.from({ length: 32 }, (_, index) => index);
  const key = secretKey();
  return {
    'all zeros': { value: of(Buffer.alloc(32)), kid: 'oct', says: 'not random' },
    'all ones': { value: of(Buffer.alloc(32, 0xff)), kid: 'oct', says: 'not random' },
    'two bytes in turn': { value: of(Buffer.alloc(64, 'a\u0001')), kid: 'oct', says: 'not random' },
    'eight bytes, repeated': { value: of(Buffer.alloc(32, randomBytes(8))), kid: 'oct', says: 'not random' },
    'counting bytes': { value: of(counting), kid: 'oct', says: 'not random' },
    'counting down in threes': { value: of(counting.map((byte) => 255 - 3 * byte)), kid: 'oct', says: 'not random' },
    'a passphrase': { value: of(Buffer.from('The quick brown fox jumps over the lazy dog')), kid: 'oct', says: 'text' },
    '31 bytes': { value: of(randomBytes(31)), kid: 'oct', says: 'no k of 32 bytes' },
    'standard base64': { value: setOf(secretKey({ k: '+/'.repeat(22) })), kid: 'oct', says: 'no k of 32 bytes' },
    'a weak retired key': {
      value: setOf(key, secretKey({ kid: 'old', state: 'retired', k: b64(Buffer.alloc(32)) })),
      kid: 'old',
      says: 'not random',
    },
    'another alg': { value: setOf({ ...key, alg: 'RS256' }), kid: 'oct', says: 'another alg' },
    'alg none': { value: setOf({ ...key, alg: 'none' }), kid: 'oct', says: 'another alg' },
    'use of encryption': { value: setOf({ ...key, use: 'enc' }), kid: 'oct', says: 'another use' },
    'key_ops of verify': { value: setOf({ ...key, key_ops: ['verify'] }), kid: 'oct', says: 'key_ops without sign' },
    'one secret under two ids': { value: setOf(key, { ...key, kid: 'b', state: 'next' }), kid: '', says: 'two ids' },
    'a signing key': { value: setOf(ed25519Key()), kid: '', says: 'no kty of oct' },
  };
}
