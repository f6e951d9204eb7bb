import { describeError, log } from '../../config/log';
import { unreachable } from '../../util/unreachable';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import { isResult, isOutage } from './deadline';
import type { CacheKey, Snapshot } from './entry';
import type { Loaded } from './singleFlight';
import { freshnessOf } from './freshness';
import { createLoaderRunner, decodeEntry } from './loaderRunner';
import type { KnownValue, LoadAll, LoaderRunnerDeps, Miss, Wanted } from './loaderRunner';
import type { CacheResult } from './options';
import { decode } from './schema';

export interface ReadThroughDeps extends LoaderRunnerDeps {
  /** Runs work that outlives the request, with its own services and batch. */
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  /** Entries that are fresh for less than this are loaded again before the current request is served. */
  refreshWithinMs: () => number | undefined;
}

/** The decision for one entry: serve it (and perhaps refresh it later), or load it. */
type ServeDecision =
  | { result: CacheResult<unknown>; refresh: boolean }
  | { result?: never; fallback?: CacheResult<unknown> };

/** Cache-aside for any number of entries: one read of the cache, one call of the loader. */
export function createReadThrough(deps: ReadThroughDeps) {
  const { reader, singleFlight, memory, waitUntil, background, now, random, refreshWithinMs, degraded } = deps;
  const { cacheRequests } = deps.instruments;
  const loads = createLoaderRunner(deps);

  const counted = ({ namespace = 'user' }: CacheKey, outcome: string) => cacheRequests.count(namespace, outcome);

  /** `undefined` if Redis cannot be asked: the caller continues without a cache. */
  async function snapshotsOf(keys: readonly CacheKey[], withinMs = 0): Promise<Snapshot[] | undefined> {
    try {
      return await Promise.all(reader.read(keys, withinMs));
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
    let longestMs = 0;
    for (const { key, withinMs = 0 } of wanted) {
      longestMs = Math.max(longestMs, withinMs);
      if (withinMs > 0) reader.recall([key], withinMs)?.();
    }
    const snapshots = await snapshotsOf(
      wanted.map(({ key }) => key),
      longestMs,
    );
    if (snapshots === undefined) return withoutRedis(wanted, load);
    const misses: Miss<W>[] = [];
    const refreshes: Miss<W>[] = [];
    const answers = wanted.map((one, at): CacheResult<unknown> | Miss<W> => {
      const snapshot = snapshots[at] ?? unreachable();
      const verdict = judge(one, snapshot);
      if (verdict.result !== undefined && !verdict.refresh) return verdict.result;
      const miss = { wanted: one, snapshot, flight: loads.flightOf(one.key, snapshot) };
      if (verdict.result !== undefined) {
        refreshes.push(miss);
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
    return answers.map((answer) => ('wanted' in answer ? (loaded[misses.indexOf(answer)] ?? unreachable()) : answer));
  }

  /** Loads all entries, or reuses values that this request has already read. */
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
        const { loaded, joined } = await (loading[misses.indexOf(miss)] ?? unreachable());
        return resultOf(miss, loaded, joined);
      }),
    );
  }

  function judge({ key, windows, schema }: Wanted, { entry, remembered = false }: Snapshot): ServeDecision {
    const decoded = entry === undefined ? undefined : decodeEntry(entry, schema);
    const isDue = entry !== undefined && entry.softExpiryMs - now() < (refreshWithinMs() ?? -Infinity);
    if (entry === undefined || decoded?.ok !== true || isDue) return {};
    const served = (from: 'hit' | 'stale' | 'fallback') => {
      counted(key, entry.negative ? 'negative' : from);
      return found(from);
    };
    const found = (from: 'hit' | 'stale' | 'fallback'): CacheResult<unknown> => ({
      value: decoded.value,
      from,
      expired: from !== 'hit',
      createdAtMs: entry.createdAtMs,
      freshUntilMs: entry.softExpiryMs,
      ...(remembered && { remembered }),
    });
    switch (freshnessOf(entry, windows, now(), random)) {
      case 'fresh':
        return { result: served('hit'), refresh: false };
      case 'early':
        return { result: served('hit'), refresh: true };
      case 'stale':
        return { result: served('stale'), refresh: true };
      case 'fallback':
        // The loader has just failed: do not wait until it fails again.
        if (!memory.isBackedOff(key.entryKey, now())) return { fallback: found('fallback') };
        degraded('cache=stale');
        return { result: served('fallback'), refresh: false };
      case 'expired':
        return {};
    }
  }

  /** Joins loads in progress, and loads the other entries together. */
  async function loadAll<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const led = misses.filter(({ flight, snapshot }) => !singleFlight.has(flight, snapshot));
    const own = led.length > 0 ? loads.lead(led, load) : [];
    const outcomes = await Promise.allSettled(
      misses.map(async (miss): Promise<CacheResult<unknown>> => {
        const loading = own[led.indexOf(miss)];
        const loaded = await (loading ?? singleFlight.follow(miss.flight, miss.snapshot));
        // The leader died, or its load ended a moment ago: start a new load.
        if (loaded === undefined || loaded === 'lost') return (await loadAll([miss], load))[0] ?? unreachable();
        return resultOf(miss, loaded, loading === undefined);
      }),
    );
    return outcomes.map((outcome, index) => {
      if (outcome.status === 'fulfilled') return outcome.value;
      const error: unknown = outcome.reason;
      const { fallback, wanted } = misses[index] ?? unreachable();
      if (fallback === undefined || !isOutage(error)) throw error;
      degraded('cache=stale');
      counted(wanted.key, 'fallback');
      return fallback;
    });
  }

  function resultOf({ wanted, snapshot }: Miss<Wanted>, { json }: Loaded, joined: boolean): CacheResult<unknown> {
    const createdAtMs = now();
    const decoded = json === undefined ? { ok: true as const, value: null } : decode(json, wanted.schema);
    if (!decoded.ok) throw new TypeError('the loader returned a value that its schema refuses');
    counted(wanted.key, snapshot === undefined ? 'bypass' : joined ? 'joined' : 'miss');
    return {
      value: decoded.value,
      from: snapshot === undefined ? 'bypass' : joined ? 'joined' : 'loaded',
      expired: snapshot?.entry !== undefined,
      createdAtMs,
      freshUntilMs: createdAtMs + wanted.windows.ttlMs,
    };
  }

  /** Converts the value to JSON and back, as after a load. */
  function resultOfKnown(miss: Miss<Wanted>, { value }: KnownValue): CacheResult<unknown> {
    return resultOf(miss, { json: JSON.stringify(value) }, false);
  }

  /** Refreshes served entries: in `waitUntil`, by one request of the isolate. */
  function refresh<W extends Wanted>(stale: readonly Miss<W>[], load: LoadAll<W>): void {
    const due = stale.filter(
      ({ flight, snapshot, wanted }) =>
        !singleFlight.has(flight, snapshot) && !memory.isBackedOff(wanted.key.entryKey, now()),
    );
    if (due.length === 0) return;
    waitUntil(
      background((batch) => loads.refresh(due, load, batch)).catch((error: unknown) => {
        // The entry stays stale until it expires; the next refresh waits for the back-off.
        if (!isResult(error)) log('warn', 'cache.refresh_failed', { entries: due.length, ...describeError(error) });
      }),
    );
  }

  return { resolve, snapshotsOf, fills: loads.fills };
}
