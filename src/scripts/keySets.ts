import { generateKeyPairSync, randomBytes } from 'node:crypto';

import { calculateJwkThumbprint } from 'jose';

/** `next`: published, not used yet. `active`: signs. `retired`: still verifies what it signed. */
export type KeyState = 'next' | 'active' | 'retired';

export type SigningAlg = 'Ed25519' | 'ES256';

interface KeyFields {
  kid: string;
  state: KeyState;
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
export const SET_NAMES = { signing: 'SIGNING_KEYS', refresh: 'REFRESH_KEYS', pepper: 'PEPPER_KEYS' } as const;
export type SetKind = keyof typeof SET_NAMES;

const SHAPES = {
  signing: { OKP: ['crv', 'x', 'd'], EC: ['crv', 'x', 'y', 'd'] },
  refresh: { oct: ['k'] },
  pepper: { oct: ['k'] },
} as const satisfies Record<SetKind, Record<string, readonly string[]>>;

/** A key set that cannot be used. The message never holds the text, which is a secret. */
export class KeySetError extends Error {
  override readonly name = 'KeySetError';
}

export async function createKey(kind: SetKind, state: KeyState, alg: SigningAlg): Promise<SigningKey | SecretKey> {
  return kind === 'signing' ? await createSigningKey(state, alg) : createSecretKey(state);
}

async function createSigningKey(state: KeyState, alg: SigningAlg): Promise<SigningKey> {
  const { privateKey } =
    alg === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
  const jwk = privateKey.export({ format: 'jwk' }) as Record<string, string>;
  const kid = await calculateJwkThumbprint(jwk);
  return { ...jwk, kid, alg, use: 'sig', state } as SigningKey;
}

function createSecretKey(state: KeyState): SecretKey {
  const [k, kid] = [randomBytes(32).toString('base64url'), randomBytes(8).toString('base64url')];
  return { kty: 'oct', k, kid, alg: 'HS256', state };
}

/** A set of one active key. */
export async function createKeySet(kind: SetKind, alg: SigningAlg = 'Ed25519'): Promise<KeySet> {
  return { keys: [await createKey(kind, 'active', alg)] };
}

/** What one step of a rotation did, by `kid`. */
export type Step =
  | { kind: 'published'; next: string }
  | { kind: 'promoted'; active: string; retired: string }
  | { kind: 'dropped'; kids: string[] };

/**
 * One step of a rotation. With no `next` key one is published, so that every isolate and every cache of the JWKS knows
 * it before it signs anything; otherwise `next` becomes `active` and `active` becomes `retired`.
 *
 * @param makeNext called only when a key is needed
 */
export async function rotate<Key extends KeyFields>(
  { keys }: KeySet<Key>,
  makeNext: () => Promise<Key>,
): Promise<{ set: KeySet<Key>; step: Step }> {
  // The first one: it has been known for longest.
  const next = keys.find((key) => key.state === 'next');
  if (next === undefined) {
    const made = await makeNext();
    return { set: { keys: [...keys, made] }, step: { kind: 'published', next: made.kid } };
  }
  const active = keys.find((key) => key.state === 'active')!;
  const moved = keys.map((key): Key => {
    if (key === next) return { ...key, state: 'active' };
    return key === active ? { ...key, state: 'retired' } : key;
  });
  return { set: { keys: moved }, step: { kind: 'promoted', active: next.kid, retired: active.kid } };
}

/**
 * Drops the retired keys, or of them only `kid`: what they signed is refused from then on. A step of its own, so that
 * nothing else hides it.
 */
export function dropRetired<Key extends KeyFields>(
  { keys }: KeySet<Key>,
  kid?: string,
): { set: KeySet<Key>; step: Step } {
  const dropped = keys.filter((key) => key.state === 'retired' && (kid === undefined || key.kid === kid));
  const kids = dropped.map((key) => key.kid);
  return { set: { keys: keys.filter((key) => !dropped.includes(key)) }, step: { kind: 'dropped', kids } };
}

/**
 * Reads a key set, as strictly as rotating it needs.
 *
 * @throws {KeySetError}
 */
export function parseKeySet(kind: SetKind, text: string): KeySet {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Without the parser's own message and cause, which quote the text.
    throw new KeySetError('is not JSON');
  }
  const keys: unknown = isRecord(value) ? value['keys'] : undefined;
  if (!Array.isArray(keys)) throw new KeySetError('is not {"keys":[…]}');
  for (const [index, key] of keys.entries()) checkKey(kind, key, `its key ${index + 1}`);

  const set = { keys: keys as (SigningKey | SecretKey)[] };
  const active = set.keys.filter((key) => key.state === 'active').length;
  if (active !== 1) throw new KeySetError(`needs exactly one active key and has ${active}`);
  if (new Set(set.keys.map((key) => key.kid)).size !== set.keys.length) throw new KeySetError('has a kid twice');
  return set;
}

function checkKey(kind: SetKind, key: unknown, which: string): void {
  if (!isRecord(key)) throw new KeySetError(`${which} is not an object`);
  const shapes: Readonly<Record<string, readonly string[]>> = SHAPES[kind];
  const members = typeof key['kty'] === 'string' && Object.hasOwn(shapes, key['kty']) ? shapes[key['kty']] : undefined;
  if (members === undefined) throw new KeySetError(`${which} has no kty of ${Object.keys(shapes).join(' or ')}`);
  for (const name of ['kid', 'alg', ...members]) {
    if (typeof key[name] !== 'string' || key[name] === '') throw new KeySetError(`${which} has no ${name}`);
  }
  if (!['next', 'active', 'retired'].includes(key['state'] as string)) {
    throw new KeySetError(`${which} has no state of next, active or retired`);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
