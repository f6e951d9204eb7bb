import { randomBytes } from 'node:crypto';

import type { Command, RedisValue } from '../../redis/client';

/** Where a value is cached, and what invalidates it. */
export interface CacheKey {
  readonly entryKey: string;
  /** What the key stands for. Not the arguments themselves but their SHA-256: what users search for is personal. */
  readonly canonical: string;
  /** Redis keys of the nonces: bumping any of them invalidates the entry. */
  readonly nonceKeys: readonly string[];
}

/** A value as it is stored. Times are milliseconds since the epoch. */
export interface Entry {
  readonly json: string;
  readonly createdAtMs: number;
  /** Until then it is fresh. */
  readonly softExpiryMs: number;
  /** After that it is not served at all. */
  readonly hardExpiryMs: number;
  /** What the loader took, in milliseconds. */
  readonly costMs: number;
  /** The loader said that there is nothing. */
  readonly nothing: boolean;
}

/** What a read saw. `writeId` and `nonces` are what a fill carries: taken before the loader ran. */
export interface Snapshot {
  /** A value whose nonces are all current and whose life is not over. */
  readonly entry: Entry | undefined;
  /** `''`: there is none of ours. */
  readonly writeId: string;
  /** `null`: this nonce is missing, and nobody relies on it yet. */
  readonly nonces: readonly (string | null)[];
  /** When it was read, among the reads of its request: see `RequestAccounts`. */
  readonly order?: number;
}

/** A nonce outlives every entry that carries it; a lost one only costs misses. */
export const NONCE_TTL_MS = 7 * 86_400_000;

/** Entries of another form are misses, of whatever version of this code they are. */
const FORMAT = 'g2';

const WRITE_ID_LENGTH = 16;
const OURS = /^[\w-]{16}[T[]/;

const newWriteId = (): string => randomBytes(12).toString('base64url');

const DAY_MS = 86_400_000;

/** 12 random characters and the day on which it was made. */
const newNonce = (): string =>
  `${randomBytes(9).toString('base64url')}.${Math.floor(Date.now() / DAY_MS).toString(36)}`;

/** Without the day: made by an earlier version of this code. */
const NONCE = /^\+?[\w-]{12}(?:\.([0-9a-z]{1,6}))?$/;

/** Whether this is a nonce that the app has made; anything else in its place is none. */
export const isNonce = (value: unknown): value is string => typeof value === 'string' && NONCE.test(value);

/** Whether a nonce has lost a part of its life. It lives {@link NONCE_TTL_MS}, and everything that carries it ends with it. */
export function isAging(nonce: string, nowMs: number): boolean {
  const day = NONCE.exec(nonce)?.[1];
  return day === undefined || nowMs - parseInt(day, 36) * DAY_MS >= 2 * DAY_MS;
}

/** No nonce that an invalidation has written begins like this. */
const INITIAL = '+';

/** For a nonce that is missing, to be written by `SET … NX`. */
export const initialNonce = (): string => INITIAL + newNonce();

/** Whether nothing was invalidated since this nonce was missing. */
export const isInitial = (nonce: unknown): nonce is string => isNonce(nonce) && nonce.startsWith(INITIAL);

/** Whatever carries this nonce is over; a key of another type in its place, too. */
export const bump = (nonceKey: string): Command => ['SET', nonceKey, newNonce(), 'PX', NONCE_TTL_MS];

export const tombstone = (): string => `${newWriteId()}T`;

/**
 * A stored entry: a write id of 16 characters, then either `T` (a tombstone) or a JSON header, a line feed and the
 * value's JSON. The write id changes with every write and is what a fill compares.
 */
export function encodeEntry({ canonical }: CacheKey, nonces: readonly string[], entry: Entry): string {
  const { createdAtMs, softExpiryMs, hardExpiryMs, costMs, nothing } = entry;
  const header = [FORMAT, createdAtMs, softExpiryMs, hardExpiryMs, costMs, nonces, canonical, nothing ? 1 : 0];
  return `${newWriteId()}${JSON.stringify(header)}\n${entry.json}`;
}

/** What the replies to a key's reads mean. Anything that is not ours, or not current, is a miss. */
export function readSnapshot(
  key: CacheKey,
  stored: RedisValue,
  replies: readonly RedisValue[],
  nowMs: number,
): Snapshot {
  const nonces = key.nonceKeys.map((_, index) => {
    const nonce = replies[index];
    return typeof nonce === 'string' ? nonce : null;
  });
  const text = typeof stored === 'string' && OURS.test(stored) ? stored : '';
  return { entry: entryOf(text, key, nonces, nowMs), writeId: text.slice(0, WRITE_ID_LENGTH), nonces };
}

function entryOf(text: string, key: CacheKey, nonces: readonly (string | null)[], nowMs: number): Entry | undefined {
  const lineEnd = text.indexOf('\n');
  if (lineEnd === -1) return undefined;
  let header: unknown;
  try {
    header = JSON.parse(text.slice(WRITE_ID_LENGTH, lineEnd));
  } catch {
    return undefined;
  }
  if (!Array.isArray(header)) return undefined;
  const [format, createdAtMs, softExpiryMs, hardExpiryMs, costMs, written, canonical, nothing] = header as unknown[];
  if (format !== FORMAT || canonical !== key.canonical) return undefined;
  if (!isTime(createdAtMs) || !isTime(softExpiryMs) || !isTime(hardExpiryMs) || !isTime(costMs)) return undefined;
  if (hardExpiryMs <= nowMs || !Array.isArray(written) || written.length !== nonces.length) return undefined;
  if (nonces.some((nonce, index) => nonce === null || nonce !== written[index])) return undefined;
  const json = text.slice(lineEnd + 1);
  return { json, createdAtMs, softExpiryMs, hardExpiryMs, costMs, nothing: nothing === 1 };
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0;
}
