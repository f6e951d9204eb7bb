import type { Config } from '../../config/env';
import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import type { Keys } from '../../redis/keys';
import { cacheFill } from '../../redis/scripts/cacheFill';
import { carried, claim } from './claims';
import { encodeEntry, tombstone } from './entry';
import type { CacheKey, Entry, Snapshot } from './entry';
import { expiriesOf } from './freshness';
import type { Windows } from './freshness';
import type { CacheMemory } from './memory';

/** An entry to fill, as it was before the loader ran. */
export interface Fillable {
  readonly key: CacheKey;
  readonly snapshot: Snapshot | undefined;
}

/** The fills of one call of a loader. */
export interface Filling {
  /** Before it the loader must not run. */
  readonly ready: Promise<void>;
  /** The loader runs from now on, or ran at a time by the wall clock: what it reads is at least as new as this. */
  loading(atWallMs?: number): void;
  /** @param entry `undefined`: there is nothing to cache, and what was cached is over */
  fill(index: number, entry: Entry | undefined): void;
  /** The loader failed. @param over its error says that what was cached is over */
  cancel(over: boolean): void;
  /** Settles when the fill has been, or will not be, done. */
  done(index: number): Promise<unknown>;
}

export interface FillDeps {
  batch: RedisBatch;
  keys: Keys;
  memory: CacheMemory;
  settings: Config['cache'];
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  random: () => number;
  degraded: (what: string) => void;
}

/** Guarded writes: each carries what the cache looked like before the loader ran, and Redis refuses it otherwise. */
export function createFills({ batch, keys, memory, settings, waitUntil, now, random, degraded }: FillDeps) {
  function entryOf(json: string, windows: Windows, costMs: number, nothing: boolean): Entry {
    const createdAtMs = now();
    return { json, createdAtMs, costMs, nothing, ...expiriesOf(windows, createdAtMs, random) };
  }

  /** What the script has said: its time, negative for a refusal. Anything else says nothing. */
  const noteTime = (reply: RedisValue): 'filled' | 'refused' | 'garbage' => {
    if (typeof reply !== 'number' || !Number.isSafeInteger(reply) || reply === 0) return 'garbage';
    memory.noteServerTime(Math.abs(reply));
    return reply > 0 ? 'filled' : 'refused';
  };

  /** Arguments of the script. @param loadingAtMs by the wall clock: a tombstone set since lives at least until … */
  const fillArguments = ({ key, snapshot }: Fillable, body: string, lifeMs: number, loadingAtMs: number) =>
    [
      [key.entryKey],
      [
        snapshot?.writeId ?? '',
        body,
        Math.max(1, Math.ceil(lifeMs)),
        memory.serverTime(loadingAtMs + settings.tombstoneSeconds * 1_000),
      ],
    ] as const;

  function begin(fillables: readonly Fillable[], when: 'after the answer' | RedisBatch): Filling {
    const through = when === 'after the answer' ? batch : when;
    const missing = fillables.flatMap(
      ({ key, snapshot }) =>
        snapshot?.nonces.flatMap((nonce, at) => (nonce === null ? [key.nonceKeys[at] ?? ''] : [])) ?? [],
    );
    const claimed = claim([...new Set(missing)], { batch: through, keys, memory, degraded });
    const ends = fillables.map(() => Promise.withResolvers<unknown>());
    let loadingAtMs = Date.now();

    /** Once the nonces that it carries are Redis's. */
    async function send(index: number, bodyOf: (nonces: readonly string[]) => string, lifeMs: number): Promise<void> {
      const fillable = fillables[index];
      if (fillable?.snapshot === undefined) return;
      const nonces = carried(fillable.key, fillable.snapshot, await claimed.granted);
      if (nonces === undefined) return;
      const args = fillArguments(fillable, bodyOf(nonces), lifeMs, loadingAtMs);
      const sent = when === 'after the answer' ? batch.deferRun(cacheFill, ...args) : when.run(cacheFill, ...args);
      ends[index]?.resolve(sent.then(noteTime));
    }

    const start = (index: number, bodyOf: (nonces: readonly string[]) => string, lifeMs: number) => {
      // A fill that was sent ends when Redis has answered it; one that was not ends now.
      const end = () => ends[index]?.resolve(undefined);
      waitUntil(send(index, bodyOf, lifeMs).then(end, end));
    };

    /** What was cached is over: nobody must fall back on it. */
    const drop = (index: number) => {
      if (fillables[index]?.snapshot?.entry === undefined) ends[index]?.resolve(undefined);
      else start(index, tombstone, settings.tombstoneSeconds * 1_000);
    };

    return {
      ready: claimed.ready,
      loading: (atWallMs = Date.now()) => (loadingAtMs = atWallMs),
      fill(index, entry) {
        const key = fillables[index]?.key;
        if (entry === undefined || key === undefined) return drop(index);
        start(index, (nonces) => encodeEntry(key, nonces, entry), entry.hardExpiryMs - now());
      },
      cancel(over) {
        for (const [index, end] of ends.entries()) {
          if (over) drop(index);
          else end.resolve(undefined);
        }
      },
      done: (index) => ends[index]?.promise ?? Promise.resolve(),
    };
  }

  return { begin, entryOf, fillArguments, noteTime };
}
