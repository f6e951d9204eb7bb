import { randomBytes } from 'node:crypto';

import type { Command, RedisValue } from '../../redis/client';

/** Where a value is cached, and the tag versions that invalidate it. */
export interface CacheKey {
  /** For metrics. @default `user` */
  readonly namespace?: string;
  readonly entryKey: string;
  /**
   * The key's canonical text. Redis gets only the SHA-256 of its arguments, because they can be personal, such as search
   * terms.
   */
  readonly canonical: string;
  /** Redis keys of the tag versions: bumping any of them invalidates the entry. */
  readonly tagVersionKeys: readonly string[];
}

/** A value as stored. Times are milliseconds since the epoch. */
export interface Entry {
  readonly json: string;
  readonly createdAtMs: number;
  /** Fresh until then. */
  readonly softExpiryMs: number;
  /** Not served at all after this time. */
  readonly hardExpiryMs: number;
  /** How long the loader took, in milliseconds. */
  readonly costMs: number;
  /** A negative entry: the loader found nothing. */
  readonly negative: boolean;
}

/** The state of the cache before a loader runs, from one read. Fills carry its `writeId` and `tagVersions`. */
export interface Snapshot {
  /** The value, if all its tag versions are current and it has not expired. */
  readonly entry: Entry | undefined;
  /** `''`: the key holds no entry of this app. */
  readonly writeId: string;
  /** `null`: this tag version is missing, so no entry relies on it yet. */
  readonly tagVersions: readonly (string | null)[];
  /** Its number among the reads of the request: see `RequestAccounts`. */
  readonly order?: number;
  /** Its number among the reads of the isolate, by the time at which each was sent. */
  readonly read?: number;
  /** If the isolate may remember it: when Redis was asked, and the isolate's generation of invalidations at that time. */
  readonly seen?: { readonly askedAtMs: number; readonly generation: number } | undefined;
  /** Read from the isolate's memory, without asking Redis for this request. */
  readonly remembered?: boolean;
}

/** A tag version outlives every entry that carries it. Losing one only costs misses. */
export const TAG_VERSION_TTL_MS = 7 * 86_400_000;

/** Entries in another format are misses, whichever version of the code wrote them. */
const FORMAT = 'g2';

const WRITE_ID_LENGTH = 16;
const OURS = /^[\w-]{16}[T[]/;

const newWriteId = (): string => randomBytes(12).toString('base64url');

const DAY_MS = 86_400_000;

/** 12 random characters and the day of its creation. */
const newTagVersion = (): string =>
  `${randomBytes(9).toString('base64url')}.${Math.floor(Date.now() / DAY_MS).toString(36)}`;

/** Earlier versions of this code wrote no day. */
const TAG_VERSION = /^\+?[\w-]{12}(?:\.([0-9a-z]{1,6}))?$/;

/** Whether this is a tag version of this app. Other values are treated as a missing tag version. */
export const isTagVersion = (value: unknown): value is string => typeof value === 'string' && TAG_VERSION.test(value);

/**
 * Whether a tag version must be renewed. It lives {@link TAG_VERSION_TTL_MS}; when it expires, all entries that carry it
 * become misses.
 */
export function isAging(version: string, nowMs: number): boolean {
  const day = TAG_VERSION.exec(version)?.[1];
  return day === undefined || nowMs - parseInt(day, 36) * DAY_MS >= 2 * DAY_MS;
}

/** Only versions created by a load begin like this; those of invalidations do not. */
const INITIAL = '+';

/** For a missing tag version, to be written by `SET … NX`. */
export const initialTagVersion = (): string => INITIAL + newTagVersion();

/** Whether a load created this tag version, so there was no invalidation since the version was missing. */
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
 * value's JSON. The write id changes with every write; a fill compares it.
 */
export function encodeEntry({ canonical }: CacheKey, tagVersions: readonly string[], entry: Entry): string {
  const { createdAtMs, softExpiryMs, hardExpiryMs, costMs, negative } = entry;
  const header = [FORMAT, createdAtMs, softExpiryMs, hardExpiryMs, costMs, tagVersions, canonical, negative ? 1 : 0];
  return `${newWriteId()}${JSON.stringify(header)}\n${entry.json}`;
}

/** Parses the replies to the reads of a key. An entry that is foreign or outdated is a miss. */
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
