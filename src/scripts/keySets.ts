import { generateKeyPairSync, randomBytes } from 'node:crypto';

import { calculateJwkThumbprint } from 'jose';

import { keySetFaults } from '../config/keySet.ts';
import type { KeyState, SetKind } from '../config/keySet.ts';

export type { KeyState, SetKind } from '../config/keySet.ts';

export type SigningAlg = 'Ed25519' | 'ES256';

interface KeyFields {
  kid: string;
  state: KeyState;
  /** When it got this state (RFC 3339). Sets that were made before this member existed lack it. */
  since?: string;
}

/** Private JWK of an access token key (RFC 8037, RFC 7518 section 6.2). Its `kid` is the RFC 7638 thumbprint. */
export type SigningKey = KeyFields & { use: 'sig' } & (
    | { kty: 'OKP'; crv: 'Ed25519'; x: string; d: string; alg: 'Ed25519' }
    | { kty: 'EC'; crv: 'P-256'; x: string; y: string; d: string; alg: 'ES256' }
  );

/** JWK of a refresh token key or a pepper: 32 random bytes. */
export type SecretKey = KeyFields & { kty: 'oct'; k: string; alg: 'HS256' };

export interface KeySet<Key extends KeyFields = SigningKey | SecretKey> {
  keys: Key[];
}

/** Which set, under the name that the Worker reads it by. The Worker can do without peppers. */
export const SET_NAMES = {
  signing: 'SIGNING_KEYS',
  refresh: 'REFRESH_KEYS',
  pepper: 'PEPPER_KEYS',
} as const satisfies Record<SetKind, string>;

/** A key set that cannot be used. The message never holds the text, which is a secret. */
export class KeySetError extends Error {
  override readonly name = 'KeySetError';
}

export async function createKey(
  kind: SetKind,
  state: KeyState,
  alg: SigningAlg,
  nowMs = Date.now(),
): Promise<SigningKey | SecretKey> {
  const since = new Date(nowMs).toISOString();
  for (;;) {
    const key = kind === 'signing' ? await createSigningKey({ state, since }, alg) : createSecretKey({ state, since });
    // An id that begins with a hyphen would be taken for an option: `--kid -P54…`.
    if (!key.kid.startsWith('-')) return key;
  }
}

async function createSigningKey(fields: Pick<KeyFields, 'state' | 'since'>, alg: SigningAlg): Promise<SigningKey> {
  const { privateKey } =
    alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
  const jwk = privateKey.export({ format: 'jwk' }) as Record<string, string>;
  const kid = await calculateJwkThumbprint(jwk);
  return { ...jwk, kid, alg, use: 'sig', ...fields } as SigningKey;
}

function createSecretKey(fields: Pick<KeyFields, 'state' | 'since'>): SecretKey {
  const [k, kid] = [randomBytes(32).toString('base64url'), randomBytes(8).toString('base64url')];
  return { kty: 'oct', k, kid, alg: 'HS256', ...fields };
}

/** A set of one active key. */
export async function createKeySet(kind: SetKind, alg: SigningAlg = 'Ed25519'): Promise<KeySet> {
  return { keys: [await createKey(kind, 'active', alg)] };
}

/**
 * Reads a key set, and tries each of its keys, as the Worker does before it serves anything.
 *
 * @throws {KeySetError} names every key that is wrong, and why
 */
export function parseKeySet(kind: SetKind, text: string): KeySet {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Without the parser's own message and cause, which quote the text.
    throw new KeySetError('is not JSON');
  }
  const faults = keySetFaults(kind, value);
  if (faults.length > 0) throw new KeySetError(faults.join('; '));
  return value as KeySet;
}
