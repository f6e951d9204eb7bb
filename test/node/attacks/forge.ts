import { createHmac, createPublicKey, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';

export type Alg = 'Ed25519' | 'ES256';
export type Claims = Record<string, unknown>;

/** A signing key: the Worker's own, or an attacker's. */
export interface Key {
  kid: string;
  alg: Alg;
  privateKey: KeyObject;
  publicKey: KeyObject;
}

export function newKey(kid: string, alg: Alg = 'Ed25519'): Key {
  const { privateKey } =
    alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
  return { kid, alg, privateKey, publicKey: createPublicKey(privateKey) };
}

/** `SIGNING_KEYS` of these keys. */
export function signingKeys(states: { active: Key; next?: Key; retired?: Key }): string {
  const keys = Object.entries(states).map(([state, { kid, alg, privateKey }]) =>
    Object.assign(privateKey.export({ format: 'jwk' }), { kid, alg, use: 'sig', state }),
  );
  return JSON.stringify({ keys });
}

/** Base64url of text and bytes as they are, of anything else as JSON. */
export function b64(value: unknown): string {
  const bytes = typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value);
  return Buffer.from(bytes as string).toString('base64url');
}

export const signatureOf = ({ alg, privateKey }: Key, input: string): Buffer =>
  sign(alg === 'ES256' ? 'sha256' : null, Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' });

export const headerOf = ({ alg, kid }: Pick<Key, 'alg' | 'kid'>): Claims => ({ alg, typ: 'at+jwt', kid });

/**
 * A token as the Worker signs it, but for what is given. With the right key and nothing changed it is accepted: every
 * test of this folder that refuses one shows that first.
 *
 * @param change members of header and payload in place of the usual ones (`undefined` removes one), or their whole text
 */
export function forge(key: Key, payload: Claims | string | Buffer, header: Claims | string = {}): string {
  const head = typeof header === 'string' ? header : { ...headerOf(key), ...header };
  const input = `${b64(head)}.${b64(payload)}`;
  return `${input}.${b64(signatureOf(key, input))}`;
}

/** The same with an HMAC, as an alg that the header names. */
export function forgeHmac(secret: string | Buffer, alg: 'HS256' | 'HS384' | 'HS512', payload: Claims, kid: string) {
  const input = `${b64({ alg, typ: 'at+jwt', kid })}.${b64(payload)}`;
  return `${input}.${createHmac(`sha${alg.slice(2)}`, secret)
    .update(input)
    .digest('base64url')}`;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Another spelling of the same bytes: the last character's bits that stand for nothing. */
export function looseBits(token: string): string {
  const last = ALPHABET.indexOf(token.at(-1) ?? '');
  return token.slice(0, -1) + (ALPHABET[last ^ 1] ?? '');
}

export function claimsOf(token: string): Claims {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as Claims;
}

/** What a genuine token says, as a token of its own. */
export const claimsLike = (token: string): Claims => ({ ...claimsOf(token), jti: randomUUID() });

export const nowSeconds = (): number => Math.floor(Date.now() / 1_000);
