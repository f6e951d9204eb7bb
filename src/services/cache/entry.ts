import { randomBytes } from 'node:crypto';

import type { Command, RedisValue } from '../../redis/client';

/** Where a value is cached, and what invalidates it. */
export interface CacheKey {
  /** For metrics. @default `user` */
  readonly namespace?: string;
  readonly entryKey: string;
  /** What the key stands for. Not the arguments themselves but their SHA-256: what users search for is personal. */
  readonly canonical: string;
  /** Redis keys of the tag versions: bumping any of them invalidates the entry. */
  readonly tagVersionKeys: readonly string[];
}

/** A value as it is stored. Times are milliseconds since the epoch. */
export interface Entry {
  readonly json: string;
  readonly createdAtMs: number;
  /** Until then it is fresh. */
  readonly softExpiryMs: number;
  /** After this time it is not served at all. */
  readonly hardExpiryMs: number;
  /** How long the loader took, in milliseconds. */
  readonly costMs: number;
  /** A negative entry: the loader found nothing. */
  readonly negative: boolean;
}

/** The state that one read of the cache saw, before the loader ran. Fills carry its `writeId` and `tagVersions`. */
export interface Snapshot {
  /** The value, if all its tag versions are current and it has not expired. */
  readonly entry: Entry | undefined;
  /** `''`: the key holds none of our entries. */
  readonly writeId: string;
  /** `null`: this tag version is missing, so no entry relies on it yet. */
  readonly tagVersions: readonly (string | null)[];
  /** When it was read, among the reads of its request: see `RequestAccounts`. */
  readonly order?: number;
  /** When Redis was asked, where the isolate may remember it; and the isolate's generation of invalidations then. */
  readonly seen?: { readonly askedAtMs: number; readonly generation: number } | undefined;
  /** It comes from the isolate's memory: Redis was not asked for this request. */
  readonly remembered?: boolean;
}

/** A tag version outlives every entry that carries it; a lost one only costs misses. */
export const TAG_VERSION_TTL_MS = 7 * 86_400_000;

/** Entries of another form are misses, of whatever version of this code they are. */
const FORMAT = 'g2';

const WRITE_ID_LENGTH = 16;
const OURS = /^[\w-]{16}[T[]/;

const newWriteId = (): string => randomBytes(12).toString('base64url');

const DAY_MS = 86_400_000;

/** 12 random characters and the day on which it was made. */
const newTagVersion = (): string =>
  `${randomBytes(9).toString('base64url')}.${Math.floor(Date.now() / DAY_MS).toString(36)}`;

/** Without the day: made by an earlier version of this code. */
const TAG_VERSION = /^\+?[\w-]{12}(?:\.([0-9a-z]{1,6}))?$/;

/** Whether this is a tag version that the app has made; anything else in its place is none. */
export const isTagVersion = (value: unknown): value is string => typeof value === 'string' && TAG_VERSION.test(value);

/**
 * Whether a tag version has lost a part of its life. It lives {@link TAG_VERSION_TTL_MS}, and everything that carries it ends
 * with it.
 */
export function isAging(version: string, nowMs: number): boolean {
  const day = TAG_VERSION.exec(version)?.[1];
  return day === undefined || nowMs - parseInt(day, 36) * DAY_MS >= 2 * DAY_MS;
}

/** Only versions that a load has made begin like this; those of invalidations do not. */
const INITIAL = '+';

/** For a tag version that is missing, to be written by `SET … NX`. */
export const initialTagVersion = (): string => INITIAL + newTagVersion();

/** Whether nothing was invalidated since this tag version was missing. */
export const isInitial = (version: unknown): version is string => isTagVersion(version) && version.startsWith(INITIAL);

/** Invalidates every entry that carries this tag version. Also overwrites a key of another type. */
export const bump = (tagVersionKey: string): Command => [
  'SET',
  tagVersionKey,
  newTagVersion(),
  'PX',
  TAG_VERSION_TTL_MS,
];

export const tombstone = (): string => `${newWriteId()}T`;

/**
 * A stored entry: a write id of 16 characters, then either `T` (a tombstone) or a JSON header, a line feed and the
 * value's JSON. The write id changes with every write and is what a fill compares.
 */
export function encodeEntry({ canonical }: CacheKey, tagVersions: readonly string[], entry: Entry): string {
  const { createdAtMs, softExpiryMs, hardExpiryMs, costMs, negative } = entry;
  const header = [FORMAT, createdAtMs, softExpiryMs, hardExpiryMs, costMs, tagVersions, canonical, negative ? 1 : 0];
  return `${newWriteId()}${JSON.stringify(header)}\n${entry.json}`;
}

/** Interprets the replies to the reads of a key. An entry that is not ours, or not current, is a miss. */
export function readSnapshot(
  key: CacheKey,
  stored: RedisValue,
  replies: readonly RedisValue[],
  nowMs: number,
): Snapshot {
  const tagVersions = key.tagVersionKeys.map((_, index) => {
    const version = replies[index];
    return typeof version === 'string' ? version : null;
  });
  const text = typeof stored === 'string' && OURS.test(stored) ? stored : '';
  return { entry: entryOf(text, key, tagVersions, nowMs), writeId: text.slice(0, WRITE_ID_LENGTH), tagVersions };
}

function entryOf(
  text: string,
  key: CacheKey,
  tagVersions: readonly (string | null)[],
  nowMs: number,
): Entry | undefined {
  const lineEnd = text.indexOf('\n');
  if (lineEnd === -1) return undefined;
  let header: unknown;
  try {
    header = JSON.parse(text.slice(WRITE_ID_LENGTH, lineEnd));
  } catch {
    return undefined;
  }
  if (!Array.isArray(header)) return undefined;
  const [format, createdAtMs, softExpiryMs, hardExpiryMs, costMs, written, canonical, negative] = header as unknown[];
  if (format !== FORMAT || canonical !== key.canonical) return undefined;
  if (!isTime(createdAtMs) || !isTime(softExpiryMs) || !isTime(hardExpiryMs) || !isTime(costMs)) return undefined;
  if (hardExpiryMs <= nowMs || !Array.isArray(written) || written.length !== tagVersions.length) return undefined;
  if (tagVersions.some((version, index) => version === null || version !== written[index])) return undefined;
  const json = text.slice(lineEnd + 1);
  return { json, createdAtMs, softExpiryMs, hardExpiryMs, costMs, negative: negative === 1 };
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && value >= 0;
}
