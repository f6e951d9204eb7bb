import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { readSnapshot } from './entry';
import type { CacheKey, Snapshot } from './entry';
import type { CacheMemory } from './memory';

/** What a request has read stays so for it, but not for longer: a job may run for minutes. */
const REUSE_MS = 1_000;

export interface CacheReader {
  /**
   * Entries with all their nonces: one command, whatever the number of either. What this request has just asked for is
   * not asked for again.
   *
   * @throws {RedisError}
   */
  read(keys: readonly CacheKey[]): Promise<Snapshot>[];
  /** Later reads of this request see what it has loaded. */
  replace(key: CacheKey, snapshot: Snapshot): void;
  forget(key: CacheKey): void;
}

/** Entries that a request has asked for, by their keys. */
export type CacheReads = Map<string, { snapshot: Promise<Snapshot>; atMs: number }>;

export interface ReaderDeps {
  batch: RedisBatch;
  /** The current request's. */
  reads: () => CacheReads;
  keys: Keys;
  memory: CacheMemory;
  now: () => number;
}

export function createReader({ batch, reads: readsOfRequest, keys, memory, now }: ReaderDeps): CacheReader {
  /** The values of these Redis keys by name; a key of another type has none. */
  async function valuesOf(names: readonly string[]): Promise<ReadonlyMap<string, RedisValue>> {
    // What an isolate has yet to learn travels along with its first read.
    const learnMark = memory.mark === undefined;
    const asked = learnMark ? [...names, keys.cacheMark] : names;
    const reply = batch.send('MGET', asked[0] ?? '', ...asked.slice(1));
    if (!memory.knowsServerTime) batch.send('TIME').then(noteTime, () => undefined);
    const values = await reply;
    if (!Array.isArray(values) || values.length !== asked.length) throw new RedisUnavailable('garbage');
    if (learnMark) memory.mark = textOf(values.at(-1));
    return new Map(asked.map((name, index) => [name, values[index] ?? null]));
  }

  function noteTime(reply: RedisValue): void {
    const [seconds, micros] = Array.isArray(reply) ? reply.map(Number) : [];
    if (seconds !== undefined && seconds > 0)
      memory.noteServerTime(seconds * 1_000 + Math.floor((micros ?? 0) / 1_000));
  }

  return {
    read(wanted) {
      const atMs = now();
      const reads = readsOfRequest();
      const missing = wanted.filter(({ entryKey }) => {
        const known = reads.get(entryKey);
        return known === undefined || Math.abs(atMs - known.atMs) > REUSE_MS;
      });
      if (missing.length > 0) {
        const values = valuesOf([...new Set(missing.flatMap((key) => [key.entryKey, ...key.nonceKeys]))]);
        for (const key of missing) {
          const snapshot = values.then((found) => {
            const nonces = key.nonceKeys.map((name) => found.get(name) ?? null);
            return readSnapshot(key, found.get(key.entryKey) ?? null, nonces, now());
          });
          // A prefetch that nobody comes for must not become an unhandled rejection.
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
    replace(key, snapshot) {
      readsOfRequest().set(key.entryKey, { snapshot: Promise.resolve(snapshot), atMs: now() });
    },
    forget(key) {
      readsOfRequest().delete(key.entryKey);
    },
  };
}

function textOf(value: RedisValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
