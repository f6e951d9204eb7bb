import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { cacheRenew } from '../../redis/scripts/cacheRenew';
import type { Keys } from '../../redis/keys';
import { TAG_VERSION_TTL_MS, initialTagVersion, isAging, isTagVersion, readSnapshot } from './entry';
import type { CacheKey, Snapshot } from './entry';
import type { EntryMemory } from './entryMemory';
import type { SingleFlight } from './singleFlight';
import type { CacheMemory } from './memory';
import { isDue } from '../memory/remembered';
import type { Refresher } from '../memory/refresher';

/** A request reuses values for this long only: a job may run for minutes. */
const REUSE_MS = 1_000;

export interface CacheReader {
  /**
   * Reads entries with all their tag versions: one command for any number of entries and versions. Entries that this
   * request has just read are not read again.
   *
   * @param withinMs for how long the isolate may serve Redis's reply; 0: never
   * @throws {RedisError}
   */
  read(keys: readonly CacheKey[], withinMs?: number): Promise<Snapshot>[];
  /**
   * Fresh entries that Redis had at most `withinMs` ago.
   *
   * @returns a function that lets the request read them without asking Redis; `undefined` if any entry is not remembered
   */
  recall(keys: readonly CacheKey[], withinMs: number): (() => void) | undefined;
  /** Later reads of this request return the value that it has loaded. */
  replace(key: CacheKey, snapshot: Snapshot): void;
  forget(key: CacheKey): void;
}

/** The entries that a request has read, by key. */
export type CacheReads = Map<string, { snapshot: Promise<Snapshot>; atMs: number }>;

export interface ReaderDeps {
  batch: RedisBatch;
  /** The current request's. */
  reads: () => CacheReads;
  keys: Keys;
  memory: CacheMemory;
  /** Entries that this isolate serves without asking Redis. */
  entries: EntryMemory;
  singleFlight: SingleFlight;
  refresher: Refresher;
  /** Numbers the reads of the current request. */
  nextOrder: () => number;
  now: () => number;
}

export function createReader(deps: ReaderDeps): CacheReader {
  const { batch, reads: readsOfRequest, keys, memory, entries, singleFlight, refresher, nextOrder, now } = deps;

  /** The values of these Redis keys by name. A key of another type has no value. */
  async function valuesOf(names: readonly string[]): Promise<ReadonlyMap<string, RedisValue>> {
    // The first read also fetches the flush sentinel, if the isolate does not know it yet. It needs a separate command: its
    // shard may be down while the entry's shard is up.
    const sentinel =
      memory.flushSentinel === undefined
        ? batch.send('GET', keys.flushSentinel).then(noteSentinel, () => undefined)
        : undefined;
    const reply = valuesFrom(batch, names);
    if (!memory.knowsServerTime) batch.send('TIME').then(noteTime, () => undefined);
    const [values] = await Promise.all([reply, sentinel]);
    return values;
  }

  async function valuesFrom(through: RedisBatch, names: readonly string[]): Promise<ReadonlyMap<string, RedisValue>> {
    const values = await through.send('MGET', names[0] ?? '', ...names.slice(1));
    if (!Array.isArray(values) || values.length !== names.length) throw new RedisUnavailable('garbage');
    // Redis returns a string or null for each key.
    if (!values.every(isTextOrNull)) throw new RedisUnavailable('garbage');
    return new Map(names.map((name, index) => [name, values[index] ?? null]));
  }

  /** Builds the snapshot of one entry from the values. */
  function snapshotOf(key: CacheKey, found: ReadonlyMap<string, RedisValue>): Snapshot {
    // Foreign text counts as a missing tag version: the load's reservation replaces it.
    const tagVersions = key.tagVersionKeys.map((name) => {
      const version = found.get(name);
      return isTagVersion(version) ? version : null;
    });
    renew(key.tagVersionKeys, tagVersions);
    makeSentinel(tagVersions);
    return readSnapshot(key, found.get(key.entryKey) ?? null, tagVersions, now());
  }

  /** Reads an entry again that this isolate serves from memory. */
  async function refresh(key: CacheKey, through: RedisBatch): Promise<void> {
    const seen = { askedAtMs: now(), generation: singleFlight.generation };
    try {
      const found = await valuesFrom(through, namesOf([key]));
      entries.note(key, { ...snapshotOf(key, found), seen });
    } catch (error) {
      // The remembered entry still expires at its time.
      if (!(error instanceof RedisError)) throw error;
    }
  }

  function noteSentinel(reply: RedisValue): void {
    memory.flushSentinel = isTagVersion(reply) ? reply : undefined;
  }

  function noteTime(reply: RedisValue): void {
    if (!Array.isArray(reply) || reply.length !== 2 || !reply.every(isDigits)) return;
    const [seconds, micros] = reply;
    memory.noteServerTime(Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000));
  }

  /** Renews tag versions that are in use: one command after the response, at most once a day per version and isolate. */
  function renew(names: readonly string[], tagVersions: readonly (string | null)[]): void {
    const nowMs = now();
    const aging = names.filter((name, at) => {
      const version = tagVersions[at] ?? null;
      return version !== null && isAging(version, nowMs) && memory.takeRenewal(name, nowMs);
    });
    // The flush sentinel is at least as old as the oldest tag version.
    const due =
      aging.length > 0 && memory.takeRenewal(keys.flushSentinel, nowMs) ? [...aging, keys.flushSentinel] : aging;
    for (const name of due) void batch.deferRun(cacheRenew, [name], [TAG_VERSION_TTL_MS]);
  }

  /**
   * Creates the flush sentinel. Loads create it with missing tag versions; if none is missing, every read would ask for it
   * again.
   */
  function makeSentinel(tagVersions: readonly (string | null)[]): void {
    const isDue = memory.flushSentinel === undefined && !tagVersions.includes(null);
    if (!isDue || !memory.takeRenewal(keys.flushSentinel, now())) return;
    batch
      .aside(['SET', keys.flushSentinel, initialTagVersion(), 'NX', 'PX', TAG_VERSION_TTL_MS])
      .catch(() => undefined);
  }

  return {
    read(wanted, withinMs = 0) {
      const atMs = now();
      const seen = withinMs > 0 ? { askedAtMs: atMs, generation: singleFlight.generation } : undefined;
      const reads = readsOfRequest();
      const missing = wanted.filter((key) => !isRead(reads, key, atMs));
      if (missing.length > 0) {
        const number = (memory.reads += 1);
        const values = valuesOf(namesOf(missing));
        for (const key of missing) {
          const snapshot = values.then((found) => {
            const order = nextOrder();
            const read = { ...snapshotOf(key, found), order, read: number, ...(seen !== undefined && { seen }) };
            entries.note(key, read);
            return read;
          });
          // A prefetch whose result is never read must not cause an unhandled rejection.
          snapshot.catch(() => undefined);
          reads.set(key.entryKey, { snapshot, atMs });
        }
      }
      return wanted.map(({ entryKey }) => {
        const known = reads.get(entryKey);
        if (known === undefined) throw new Error('unreachable');
        return known.snapshot;
      });
    },
    recall(wanted, withinMs) {
      const nowMs = now();
      const reads = readsOfRequest();
      // Entries that the request has read or loaded itself are at least as new.
      const missing = wanted.filter((key) => !isRead(reads, key, nowMs));
      const found = missing.map((key) => entries.get(key, { withinMs, nowMs, singleFlight }));
      if (found.includes(undefined)) return undefined;
      return () => {
        for (const [index, key] of missing.entries()) {
          const { snapshot, askedAtMs } = found[index]!;
          if (isDue(askedAtMs, withinMs, nowMs)) {
            refresher.note(`entry ${key.entryKey}`, (through) => refresh(key, through));
          }
          const read: Snapshot = { ...snapshot, order: nextOrder(), remembered: true };
          reads.set(key.entryKey, { snapshot: Promise.resolve(read), atMs: nowMs });
        }
      };
    },
    replace(key, snapshot) {
      entries.note(key, snapshot);
      readsOfRequest().set(key.entryKey, { snapshot: Promise.resolve(snapshot), atMs: now() });
    },
    forget(key) {
      readsOfRequest().delete(key.entryKey);
    },
  };
}

/** All Redis keys of these entries, without duplicates. */
function namesOf(wanted: readonly CacheKey[]): string[] {
  const names: string[] = [];
  for (const { entryKey, tagVersionKeys } of wanted) names.push(entryKey, ...tagVersionKeys);
  return wanted.length === 1 ? names : [...new Set(names)];
}

/** Whether the request has read this entry recently. */
function isRead(reads: CacheReads, { entryKey }: CacheKey, nowMs: number): boolean {
  const known = reads.get(entryKey);
  return known !== undefined && Math.abs(nowMs - known.atMs) <= REUSE_MS;
}

const isTextOrNull = (value: RedisValue): value is string | null => value === null || typeof value === 'string';

const isDigits = (value: RedisValue): value is string => typeof value === 'string' && /^\d{1,12}$/.test(value);
