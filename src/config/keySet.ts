// With its extension, because the scripts run this module in Node without a bundler.
import { bytesOf, entropyFault, signingFault } from './keyMaterial.ts';

/** `next`: published, not used yet. `active`: signs. `retired`: only verifies tokens that it signed. */
export type KeyState = 'next' | 'active' | 'retired';

export type SetKind = 'signing' | 'refresh' | 'pepper';

/** A key as settings hold it: a JWK (RFC 7517) with a state. */
export interface KeyConfig {
  kty: 'OKP' | 'EC' | 'oct';
  kid: string;
  state: KeyState;
  [member: string]: unknown;
}

export interface KeySetConfig {
  keys: KeyConfig[];
}

interface Shape {
  crv?: string;
  /** Public members of 32 bytes each. */
  parts: readonly string[];
  algs: readonly string[];
}

/** RFC 8037 and RFC 9864, RFC 7518 sections 6.2 and 3.2. */
const SHAPES = {
  OKP: { crv: 'Ed25519', parts: ['x'], algs: ['Ed25519', 'EdDSA'] },
  EC: { crv: 'P-256', parts: ['x', 'y'], algs: ['ES256'] },
  oct: { parts: [], algs: ['HS256'] },
} as const satisfies Record<KeyConfig['kty'], Shape>;

const TYPES: Readonly<Record<SetKind, readonly KeyConfig['kty'][]>> = {
  signing: ['OKP', 'EC'],
  refresh: ['oct'],
  pepper: ['oct'],
};

const STATES: readonly unknown[] = ['next', 'active', 'retired'] satisfies KeyState[];
const KID = /^[A-Za-z0-9_-]{1,64}$/;

type Members = Readonly<Record<string, unknown>>;

/**
 * All faults of a key set, each with the id of its key; none when the set can be used. Every key is imported, and signs and
 * verifies once, so that a faulty key is found before the first request is served. No message holds key material.
 */
export function keySetFaults(kind: SetKind, value: unknown): string[] {
  const keys: unknown = isRecord(value) ? value['keys'] : undefined;
  if (!Array.isArray(keys)) return ['is not {"keys":[…]}'];
  const faults = keys.flatMap((key: unknown, index) => {
    const fault = keyFault(kind, key);
    return fault === undefined ? [] : [`${nameOf(key, index)} ${fault}`];
  });
  const records = keys.filter(isRecord);
  const active = records.filter((key) => key['state'] === 'active').length;
  if (active !== 1) faults.push(`needs exactly one active key and has ${active}`);
  if (hasTwice(records.map((key) => key['kid']))) faults.push('has a kid twice');
  if (hasTwice(records.map((key) => key['k'] ?? key['x']))) faults.push('has the same key under two ids');
  return faults;
}

/** Whether two sets share a secret: a secret used for two purposes is as weak as the weaker of them. */
export function shareSecret(one: KeySetConfig, other: KeySetConfig): boolean {
  const secrets = new Set(one.keys.map((key) => key['k']));
  return other.keys.some((key) => secrets.has(key['k']));
}

function keyFault(kind: SetKind, key: unknown): string | undefined {
  if (!isRecord(key)) return 'is not an object';
  const kty = TYPES[kind].find((type) => type === key['kty']);
  if (kty === undefined) return `has no kty of ${TYPES[kind].join(' or ')}`;
  if (typeof key['kid'] !== 'string' || !KID.test(key['kid'])) return 'has no kid of 1 to 64 letters, digits, _ and -';
  if (!STATES.includes(key['state'])) return 'has no state of next, active or retired';
  return usageFault(kty, key) ?? (kty === 'oct' ? secretFault(key) : numbersFault(kty, key));
}

/** RFC 7517, sections 4.2 to 4.4: the declared use of a key. */
function usageFault(kty: KeyConfig['kty'], key: Members): string | undefined {
  const { crv, algs }: Shape = SHAPES[kty];
  const { alg, use, key_ops: operations, state } = key;
  if (crv !== undefined && key['crv'] !== crv) return `has another crv than ${crv}`;
  if (alg !== undefined && !algs.some((one) => one === alg)) return `has another alg than ${algs.join(' or ')}`;
  if (use !== undefined && use !== 'sig') return 'has another use than sig';
  if (operations === undefined) return undefined;
  const known = Array.isArray(operations) && operations.every((one) => one === 'sign' || one === 'verify');
  if (!known || hasTwice(operations)) return 'has key_ops other than sign and verify';
  // A public key only verifies, and a retired key does not sign.
  const needed = state === 'active' || (state === 'next' && (kty === 'oct' || key['d'] !== undefined));
  if (needed && !operations.includes('sign')) return `has key_ops without sign, and is ${state}`;
  return operations.length === 0 ? 'has no key_ops' : undefined;
}

function secretFault({ k }: Members): string | undefined {
  const bytes = bytesOf(k);
  if (bytes === undefined || bytes.length < 32) return 'has no k of 32 bytes or more in base64url';
  const weakness = entropyFault(bytes);
  return weakness === undefined ? undefined : `has a k that ${weakness}`;
}

function numbersFault(kty: 'OKP' | 'EC', key: Members): string | undefined {
  // Only the active key signs, so the others need no private part. If they have one, it is checked.
  const secret = key['state'] === 'active' || key['d'] !== undefined ? ['d'] : [];
  for (const name of [...SHAPES[kty].parts, ...secret]) {
    if (bytesOf(key[name])?.length !== 32) return `has no ${name} of 32 bytes in base64url`;
  }
  return signingFault(key);
}

/** Messages do not repeat text that is not an id: it may be a secret in the wrong place. */
function nameOf(key: unknown, index: number): string {
  const kid = isRecord(key) ? key['kid'] : undefined;
  return typeof kid === 'string' && KID.test(kid) ? `key ${kid}` : `its key ${index + 1}`;
}

function hasTwice(values: readonly unknown[]): boolean {
  const present = values.filter((value) => value !== undefined);
  return new Set(present).size < present.length;
}

function isRecord(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
