import { describeError, log } from '../../config/log';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import { isAnswer, isOutage } from './deadline';
import type { CacheKey, Entry, Snapshot } from './entry';
import type { Loaded } from './flights';
import { freshnessOf } from './freshness';
import { createLoads, decodeEntry } from './loads';
import type { KnownValue, LoadAll, LoadsDeps, Miss, Wanted } from './loads';
import type { CacheResult } from './options';
import { decode } from './schema';

export interface ReadThroughDeps extends LoadsDeps {
  /** Runs work that outlives the request, with services and a batch of its own. */
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  /** The current request loads anew, before it serves them, entries that are fresh for less than this. */
  refreshWithinMs: () => number | undefined;
}

/** What is made of one entry: an answer, perhaps with a refresh behind it, or a load. */
type Verdict = { result: CacheResult<unknown>; refresh: boolean } | { result?: never; fallback?: CacheResult<unknown> };

/** Cache-aside for any number of entries at a time: one read of the cache, one call of the loader. */
export function createReadThrough(deps: ReadThroughDeps) {
  const { reader, flights, memory, waitUntil, background, now, random, refreshWithinMs, degraded } = deps;
  const loads = createLoads(deps);

  /** `undefined` when Redis cannot be asked: the caller goes on without a cache. */
  async function snapshotsOf(keys: readonly CacheKey[]): Promise<Snapshot[] | undefined> {
    try {
      return await Promise.all(reader.read(keys));
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('cache=bypass');
      return undefined;
    }
  }

  async function resolve<W extends Wanted>(
    wanted: readonly W[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const snapshots = await snapshotsOf(wanted.map(({ key }) => key));
    if (snapshots === undefined) return withoutRedis(wanted, load);
    const misses: Miss<W>[] = [];
    const refreshes: Miss<W>[] = [];
    const answers = wanted.map((one, at): CacheResult<unknown> | Miss<W> => {
      const snapshot = snapshots[at] ?? never();
      const miss = { wanted: one, snapshot, flight: loads.flightOf(one.key, snapshot) };
      const verdict = judge(one, snapshot.entry);
      if (verdict.result !== undefined) {
        if (verdict.refresh) refreshes.push(miss);
        return verdict.result;
      }
      const known = one.known?.(snapshot.order);
      if (known !== undefined) {
        loads.adopt(miss, known);
        return resultOfKnown(miss, known);
      }
      const missed = verdict.fallback === undefined ? miss : { ...miss, fallback: verdict.fallback };
      misses.push(missed);
      return missed;
    });
    if (refreshes.length > 0) refresh(refreshes, load);
    if (misses.length === 0) return answers as CacheResult<unknown>[];
    const loaded = await loadAll(misses, load);
    return answers.map((answer) => ('wanted' in answer ? (loaded[misses.indexOf(answer)] ?? never()) : answer));
  }

  /** Everything from the loader, or as this request has read it already. */
  async function withoutRedis<W extends Wanted>(
    wanted: readonly W[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const all = wanted.map((one) => ({
      miss: { wanted: one, snapshot: undefined, flight: '' },
      known: one.known?.(undefined),
    }));
    const misses = all.flatMap(({ miss, known }) => (known === undefined ? [miss] : []));
    const loading = loads.loadFresh(misses, load);
    return Promise.all(
      all.map(async ({ miss, known }) => {
        if (known !== undefined) return resultOfKnown(miss, known);
        const { loaded, joined } = await (loading[misses.indexOf(miss)] ?? never());
        return resultOf(miss, loaded, joined);
      }),
    );
  }

  function judge({ key, windows, schema }: Wanted, entry: Entry | undefined): Verdict {
    const decoded = entry === undefined ? undefined : decodeEntry(entry, schema);
    const isDue = entry !== undefined && entry.softExpiryMs - now() < (refreshWithinMs() ?? -Infinity);
    if (entry === undefined || decoded?.ok !== true || isDue) return {};
    const found = (from: 'hit' | 'stale' | 'fallback'): CacheResult<unknown> => ({
      value: decoded.value,
      from,
      expired: from !== 'hit',
      createdAtMs: entry.createdAtMs,
      freshUntilMs: entry.softExpiryMs,
    });
    switch (freshnessOf(entry, windows, now(), random)) {
      case 'fresh':
        return { result: found('hit'), refresh: false };
      case 'early':
        return { result: found('hit'), refresh: true };
      case 'stale':
        return { result: found('stale'), refresh: true };
      case 'fallback':
        // Where the loader has just failed, nobody need wait for it to fail again.
        if (!memory.isBackedOff(key.entryKey, now())) return { fallback: found('fallback') };
        degraded('cache=stale');
        return { result: found('fallback'), refresh: false };
      case 'expired':
        return {};
    }
  }

  /** Joins the loads that are under way, and loads the rest together. */
  async function loadAll<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const led = misses.filter(({ flight }) => !flights.has(flight));
    const own = led.length > 0 ? loads.lead(led, load) : [];
    const outcomes = await Promise.allSettled(
      misses.map(async (miss): Promise<CacheResult<unknown>> => {
        const loading = own[led.indexOf(miss)];
        const loaded = await (loading ?? flights.follow(miss.flight));
        // Its leader died, or ended a moment ago: out with its flight.
        if (loaded === undefined || loaded === 'lost') return (await loadAll([miss], load))[0] ?? never();
        return resultOf(miss, loaded, loading === undefined);
      }),
    );
    return outcomes.map((outcome, index) => {
      if (outcome.status === 'fulfilled') return outcome.value;
      const error: unknown = outcome.reason;
      const fallback = misses[index]?.fallback;
      if (fallback === undefined || !isOutage(error)) throw error;
      degraded('cache=stale');
      return fallback;
    });
  }

  function resultOf({ wanted, snapshot }: Miss<Wanted>, { json }: Loaded, joined: boolean): CacheResult<unknown> {
    const createdAtMs = now();
    const decoded = json === undefined ? { ok: true as const, value: null } : decode(json, wanted.schema);
    if (!decoded.ok) throw new TypeError('the loader returned what its own schema refuses');
    return {
      value: decoded.value,
      from: snapshot === undefined ? 'bypass' : joined ? 'joined' : 'loaded',
      expired: snapshot?.entry !== undefined,
      createdAtMs,
      freshUntilMs: createdAtMs + wanted.windows.ttlMs,
    };
  }

  /** As if it had been loaded: after a turn through JSON. */
  function resultOfKnown(miss: Miss<Wanted>, { value }: KnownValue): CacheResult<unknown> {
    return resultOf(miss, { json: JSON.stringify(value) }, false);
  }

  /** Loads again what was answered already: in `waitUntil`, by one request of the isolate. */
  function refresh<W extends Wanted>(stale: readonly Miss<W>[], load: LoadAll<W>): void {
    const due = stale.filter(
      ({ flight, wanted }) => !flights.has(flight) && !memory.isBackedOff(wanted.key.entryKey, now()),
    );
    if (due.length === 0) return;
    waitUntil(
      background((batch) => loads.refresh(due, load, batch)).catch((error: unknown) => {
        // What was stale stays so until it is too old, and nobody tries again at once.
        if (!isAnswer(error)) log('warn', 'cache.refresh_failed', { entries: due.length, ...describeError(error) });
      }),
    );
  }

  return { resolve, snapshotsOf, fills: loads.fills };
}

function never(): never {
  throw new Error('unreachable');
}
