import { createHash, randomBytes } from 'node:crypto';

import type { RedisValue } from '../../redis/client';

/**
 * A stored entry: a write id of 16 characters, then either `T` (a tombstone) or a JSON header, a line feed and the
 * value's JSON. The write id changes with every write and is what a fill compares.
 */
interface EntryHeader {
  /** Milliseconds since the epoch. */
  createdAtMs: number;
  expiresAtMs: number;
  /** What the loader took, in milliseconds. */
  costMs: number;
  /** Nonces that the value depends on, in the order of the key's `nonceKeys`, as they were before the loader ran. */
  nonces: string[];
  /** The arguments themselves: the key is only their hash. */
  canonical: string;
}

/** Where a value is cached, and what invalidates it. */
export interface CacheKey {
  readonly entryKey: string;
  readonly canonical: string;
  /** Redis keys of the nonces: bumping any of them invalidates the entry. */
  readonly nonceKeys: readonly string[];
}

/** What a read saw. `writeId` and `nonces` are the snapshot that a fill carries. */
export interface Snapshot {
  /** JSON, when there is a value that may be served. */
  hit: string | undefined;
  writeId: string;
  /** `null`: this nonce is missing, and has to be made before a loader runs. */
  nonces: (string | null)[];
}

const WRITE_ID_LENGTH = 16;

function newWriteId(): string {
  return randomBytes(12).toString('base64url');
}

export function newNonce(): string {
  return randomBytes(9).toString('base64url');
}

export function tombstone(): string {
  return `${newWriteId()}T`;
}

export function encodeEntry(header: EntryHeader, json: string): string {
  const { createdAtMs, expiresAtMs, costMs, nonces, canonical } = header;
  return `${newWriteId()}${JSON.stringify([createdAtMs, expiresAtMs, costMs, nonces, canonical])}\n${json}`;
}

/** What the replies to a key's reads mean. Anything that is not ours, or not current, is a miss. */
export function readSnapshot(key: CacheKey, entry: RedisValue, nonces: readonly RedisValue[], nowMs: number): Snapshot {
  const current = key.nonceKeys.map((_, index) => {
    const nonce = nonces[index];
    return typeof nonce === 'string' ? nonce : null;
  });
  const text = typeof entry === 'string' ? entry : '';
  return { hit: valueOf(text, key, current, nowMs), writeId: text.slice(0, WRITE_ID_LENGTH), nonces: current };
}

function valueOf(text: string, key: CacheKey, nonces: readonly (string | null)[], nowMs: number): string | undefined {
  const lineEnd = text.indexOf('\n');
  if (lineEnd === -1) return undefined;
  let header: unknown;
  try {
    header = JSON.parse(text.slice(WRITE_ID_LENGTH, lineEnd));
  } catch {
    return undefined;
  }
  if (!Array.isArray(header)) return undefined;
  const [, expiresAtMs, , written, canonical] = header as unknown[];
  if (canonical !== key.canonical || typeof expiresAtMs !== 'number' || expiresAtMs <= nowMs) return undefined;
  if (!Array.isArray(written) || written.length !== nonces.length) return undefined;
  if (nonces.some((nonce, index) => nonce === null || nonce !== written[index])) return undefined;
  return text.slice(lineEnd + 1);
}

/**
 * One text for one value: keys sorted, types told apart (`1` and `"1"`, a missing and an undefined member, a date and its
 * text), so that two sets of arguments never share an entry.
 */
export function canonicalize(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `s${JSON.stringify(value)}`;
    case 'number':
      return `n${Object.is(value, -0) ? '-0' : String(value)}`;
    case 'bigint':
      return `i${value}`;
    case 'boolean':
      return `b${value}`;
    case 'undefined':
      return 'u';
    case 'object':
      break;
    case 'function':
    case 'symbol':
      throw new TypeError(`a ${typeof value} cannot be part of a cache key`);
  }
  if (value === null) return 'z';
  if (Array.isArray(value)) return `[${Array.from(value, canonicalize).join(',')}]`;
  if (value instanceof Date) return `d${value.getTime()}`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError('only plain objects, arrays, dates and primitives can be part of a cache key');
  }
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalize(member)}`).join(',')}}`;
}

/** SHA-256, URL-safe. */
export function hashCanonical(canonical: string): string {
  return createHash('sha256').update(canonical).digest('base64url');
}
