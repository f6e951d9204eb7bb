import type { Config } from '../../config/env';
import type { RedisBatch } from '../../redis/batch';
import type { RedisValue } from '../../redis/client';
import type { Keys } from '../../redis/keys';
import { unreachable } from '../../util/unreachable';
import { cacheFill } from '../../redis/scripts/cacheFill';
import { carriedVersions, reserveTagVersions } from './tagReservations';
import { encodeEntry, isInitial, tombstone } from './entry';
import type { CacheKey, Entry, Snapshot } from './entry';
import { expiriesOf } from './freshness';
import type { Windows } from './freshness';
import type { CacheMemory } from './memory';

/** An entry to fill, with its state from before the loader ran. */
export interface Fillable {
  readonly key: CacheKey;
  readonly snapshot: Snapshot | undefined;
}

/** The fills of one call of a loader. */
export interface Filling {
  /** The loader must not start before this resolves. */
  readonly ready: Promise<void>;
  /**
   * Call when the loader starts, or with the time at which it started by the wall clock: its value is at least that new.
   */
  loading(atWallMs?: number): void;
  /** @param entry `undefined`: there is no value to cache, and the cached one is removed */
  fill(index: number, entry: Entry | undefined): void;
  /** The loader failed. @param over the error is the loader's result, so the cached value is removed */
  cancel(over: boolean): void;
  /** Settles when the fill is done, or certain not to happen. */
  done(index: number): Promise<unknown>;
  /**
   * Whether a later miss still shows the tag versions that this load goes by. It does not if Redis has lost them meanwhile,
   * perhaps together with an invalidation that came after the load had begun.
   */
  isCurrent(index: number, later: Snapshot): boolean;
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

/**
 * Guarded writes: each carries the state of the cache from before the loader ran. Redis refuses it if that state has
 * changed.
 */
export function createFills({ batch, keys, memory, settings, waitUntil, now, random, degraded }: FillDeps) {
  function entryOf(json: string, windows: Windows, costMs: number, negative: boolean): Entry {
    const createdAtMs = now();
    return { json, createdAtMs, costMs, negative, ...expiriesOf(windows, createdAtMs, random) };
  }

  /** Reads the script's reply: the server's time, negative for a refusal. Any other reply is garbage. */
  const noteTime = (reply: RedisValue): 'filled' | 'refused' | 'garbage' => {
    if (typeof reply !== 'number' || !Number.isSafeInteger(reply) || reply === 0) return 'garbage';
    memory.noteServerTime(Math.abs(reply));
    return reply > 0 ? 'filled' : 'refused';
  };

  /**
   * Arguments of the script. @param loadingAtMs by the wall clock. A tombstone set since then lives at least until the
   * computed time
   */
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

  function begin(fillables: readonly Fillable[], when: 'after the response' | RedisBatch): Filling {
    const through = when === 'after the response' ? batch : when;
    const missing = fillables.flatMap(
      ({ key, snapshot }) =>
        snapshot?.tagVersions.flatMap((version, at) => (version === null ? [key.tagVersionKeys[at] ?? ''] : [])) ?? [],
    );
    const reservation = reserveTagVersions([...new Set(missing)], { batch: through, keys, memory, degraded });
    const ends = fillables.map(() => Promise.withResolvers<unknown>());
    // A failed fill does no harm, and the caller may not be waiting for it.
    for (const { promise } of ends) promise.catch(() => undefined);
    let loadingAtMs = Date.now();
    /** The versions that Redis has for the missing ones, and the number of the isolate's reads before that was known. */
    let reserved: { versions: ReadonlyMap<string, string>; reads: number } | undefined;
    reservation.granted.then(
      (versions) => (reserved = { versions, reads: memory.reads }),
      () => undefined,
    );

    /** Whether a later read may find this in place of a tag version that was missing when this load began. */
    const mayFollowMissing = (name: string, found: string | null, read: number): boolean => {
      if (reserved === undefined) return found === null || isInitial(found);
      // A read that was sent earlier may have overtaken the reservation.
      return found === null ? read <= reserved.reads : found === reserved.versions.get(name);
    };

    /** Sends the fill once Redis has its tag versions. */
    async function send(
      index: number,
      bodyOf: (tagVersions: readonly string[]) => string,
      lifeMs: number,
    ): Promise<void> {
      const fillable = fillables[index];
      if (fillable?.snapshot === undefined) return;
      const tagVersions = carriedVersions(fillable.key, fillable.snapshot, await reservation.granted);
      if (tagVersions === undefined) return;
      const args = fillArguments(fillable, bodyOf(tagVersions), lifeMs, loadingAtMs);
      const sent = when === 'after the response' ? batch.deferRun(cacheFill, ...args) : when.run(cacheFill, ...args);
      ends[index]?.resolve(sent.then(noteTime));
    }

    const start = (index: number, bodyOf: (tagVersions: readonly string[]) => string, lifeMs: number) => {
      // A fill that was sent is done with Redis's reply; otherwise it is done now.
      const end = () => ends[index]?.resolve(undefined);
      waitUntil(send(index, bodyOf, lifeMs).then(end, end));
    };

    /** Removes the cached value, so that no request uses it as a fallback. */
    const drop = (index: number) => {
      if (fillables[index]?.snapshot?.entry === undefined) ends[index]?.resolve(undefined);
      else start(index, tombstone, settings.tombstoneSeconds * 1_000);
    };

    return {
      ready: reservation.ready,
      loading: (atWallMs = Date.now()) => (loadingAtMs = atWallMs),
      fill(index, entry) {
        const key = fillables[index]?.key;
        if (entry === undefined || key === undefined) return drop(index);
        start(index, (tagVersions) => encodeEntry(key, tagVersions, entry), entry.hardExpiryMs - now());
      },
      cancel(over) {
        for (const [index, end] of ends.entries()) {
          if (over) drop(index);
          else end.resolve(undefined);
        }
      },
      done: (index) => ends[index]?.promise ?? Promise.resolve(),
      isCurrent(index, { tagVersions, read = 0 }) {
        const { key, snapshot } = fillables[index] ?? unreachable();
        return key.tagVersionKeys.every((name, at) => {
          const [before, found] = [snapshot?.tagVersions[at] ?? null, tagVersions[at] ?? null];
          return before === null ? mayFollowMissing(name, found, read) : found === before;
        });
      },
    };
  }

  return { begin, entryOf, fillArguments, noteTime };
}
