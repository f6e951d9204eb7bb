import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';
import { cacheRenew } from '../../redis/scripts/cacheRenew';
import type { Keys } from '../../redis/keys';
import { NONCE_TTL_MS, initialNonce, isAging, isNonce, readSnapshot } from './entry';
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
  /** Numbers the reads of the current request. */
  nextOrder: () => number;
  now: () => number;
}

export function createReader({ batch, reads: readsOfRequest, keys, memory, nextOrder, now }: ReaderDeps): CacheReader {
  /** The values of these Redis keys by name; a key of another type has none. */
  async function valuesOf(names: readonly string[]): Promise<ReadonlyMap<string, RedisValue>> {
    // What an isolate has yet to learn travels along with its first read.
    // The mark is a command of its own: its shard may be dead while that of the entry lives.
    const mark =
      memory.mark === undefined ? batch.send('GET', keys.cacheMark).then(noteMark, () => undefined) : undefined;
    const reply = batch.send('MGET', names[0] ?? '', ...names.slice(1));
    if (!memory.knowsServerTime) batch.send('TIME').then(noteTime, () => undefined);
    const [values] = await Promise.all([reply, mark]);
    if (!Array.isArray(values) || values.length !== names.length) throw new RedisUnavailable('garbage');
    // Redis gives a string or nothing for each.
    if (!values.every(isTextOrNull)) throw new RedisUnavailable('garbage');
    return new Map(names.map((name, index) => [name, values[index] ?? null]));
  }

  function noteMark(reply: RedisValue): void {
    memory.mark = isNonce(reply) ? reply : undefined;
  }

  function noteTime(reply: RedisValue): void {
    if (!Array.isArray(reply) || reply.length !== 2 || !reply.every(isDigits)) return;
    const [seconds, micros] = reply;
    memory.noteServerTime(Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000));
  }

  /** Nonces in use live on: one command after the response, at most once a day for each in an isolate. */
  function renew(names: readonly string[], nonces: readonly (string | null)[]): void {
    const nowMs = now();
    const aging = names.filter((name, at) => {
      const nonce = nonces[at] ?? null;
      return nonce !== null && isAging(nonce, nowMs) && memory.takeRenewal(name, nowMs);
    });
    // The mark is as old as the oldest of them, or older.
    const due = aging.length > 0 && memory.takeRenewal(keys.cacheMark, nowMs) ? [...aging, keys.cacheMark] : aging;
    for (const name of due) void batch.deferRun(cacheRenew, [name], [NONCE_TTL_MS]);
  }

  /** Loads make the mark with the nonces that they miss. Where none is missing, every read would ask for it. */
  function makeMark(nonces: readonly (string | null)[]): void {
    const isDue = memory.mark === undefined && !nonces.includes(null);
    if (!isDue || !memory.takeRenewal(keys.cacheMark, now())) return;
    batch.aside(['SET', keys.cacheMark, initialNonce(), 'NX', 'PX', NONCE_TTL_MS]).catch(() => undefined);
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
            // Foreign text in the place of a nonce is none: the load's claim replaces it.
            const nonces = key.nonceKeys.map((name) => {
              const nonce = found.get(name);
              return isNonce(nonce) ? nonce : null;
            });
            renew(key.nonceKeys, nonces);
            makeMark(nonces);
            return { ...readSnapshot(key, found.get(key.entryKey) ?? null, nonces, now()), order: nextOrder() };
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

const isTextOrNull = (value: RedisValue): value is string | null => value === null || typeof value === 'string';

const isDigits = (value: RedisValue): value is string => typeof value === 'string' && /^\d{1,12}$/.test(value);
