import type { Config } from '../../config/env';
import { maybeInSpan } from '../../util/spans';
import type { InSpan } from '../../util/spans';
import { unreachable } from '../../util/unreachable';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import type { FreshSingleFlight } from '../freshSingleFlight';
import type { LockService } from '../lock.service';
import type { Lookups } from '../lookups';
import type { Refresher } from '../memory/refresher';
import { isResult, isOutage, withDeadline } from './deadline';
import { isInitial } from './entry';
import type { CacheKey, Entry, Snapshot } from './entry';
import type { EntryMemory } from './entryMemory';
import { createFills } from './fills';
import type { Filling } from './fills';
import type { SingleFlight, Loaded } from './singleFlight';
import type { Windows } from './freshness';
import { takeLoadLease } from './loadLease';
import type { CacheMemory } from './memory';
import { NegativeEntry } from './options';
import type { CacheResult, LoaderContext } from './options';
import { createReader } from './reader';
import type { CacheReader, CacheReads } from './reader';
import { decode } from './schema';
import type { CacheSchema, Decoded } from './schema';

/** One entry that a request wants. */
export interface Wanted {
  readonly key: CacheKey;
  readonly windows: Windows;
  readonly schema?: CacheSchema<unknown> | undefined;
  /** For how long the isolate may serve a fresh value without asking Redis again; 0: never. */
  readonly withinMs?: number | undefined;
  /** Single flight across all isolates. */
  readonly lease?: boolean | undefined;
  /** The loader reads D1: while Redis is away it counts as one of the isolate's lookups. */
  readonly readsDatabase?: boolean | undefined;
  /**
   * A value that this request has already read, if it is at least as new as the request's read of the cache.
   *
   * @param since the order of that read; `undefined`: Redis is away, and no entry is filled
   */
  readonly known?: ((since: number | undefined) => KnownValue | undefined) | undefined;
}

/** A value that was read at or after this time (by the wall clock). */
export interface KnownValue {
  readonly value: unknown;
  readonly readAtWallMs: number;
}

/** A wanted entry to load, and the state of the cache when it was missed. */
export interface Miss<W> {
  readonly wanted: W;
  /** `undefined`: Redis could not be asked. */
  readonly snapshot: Snapshot | undefined;
  readonly flight: string;
  /** Served if the load fails. */
  readonly fallback?: CacheResult<unknown>;
}

/** The result of a load while Redis is away. `joined`: another request has loaded it. */
export interface FreshlyLoaded {
  readonly loaded: Loaded;
  readonly joined: boolean;
}

/** Loads missing entries. Returns their values in the same order. */
export type LoadAll<W extends Wanted> = (wanted: readonly W[], context: LoaderContext) => Promise<readonly unknown[]>;

export interface LoaderRunnerDeps {
  reader: CacheReader;
  batch: RedisBatch;
  /** Makes a batch with its own deadline. */
  freshBatch: () => RedisBatch;
  keys: Keys;
  singleFlight: SingleFlight;
  /** Loads while Redis is away. */
  freshLoads: FreshSingleFlight<Loaded>;
  lookups: Lookups;
  memory: CacheMemory;
  entries: EntryMemory;
  refresher: Refresher;
  nextOrder: () => number;
  locks: Pick<LockService, 'acquire'>;
  settings: Config['cache'];
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  random: () => number;
  degraded: (what: string) => void;
  spans: () => InSpan | undefined;
  instruments: Pick<Instruments, 'cacheRequests'>;
}

/** Followers wait this much longer than the loader's deadline: for Redis before the load, and some slack. */
const LEADER_SLACK_MS = 1_500;
/** How long an isolate waits for another isolate's load before it loads itself. */
const LEASE_WAIT_MS = 5_000;
/** How long an isolate leaves a refresh to another isolate before it checks again. */
const REFRESH_PAUSE_MS = 1_000;

/** Runs loaders. Requests for the same entry join one run; each run has a deadline, and guarded fills. */
export function createLoaderRunner(deps: LoaderRunnerDeps) {
  const { reader, freshBatch, singleFlight, freshLoads, lookups, memory, locks, settings } = deps;
  const { waitUntil, now, random, spans } = deps;
  const fills = createFills(deps);
  const leaseMs = settings.loaderDeadlineMs + LEADER_SLACK_MS;
  const leaseWaitMs = Math.min(LEASE_WAIT_MS, settings.loaderDeadlineMs);

  const flightOf = (key: CacheKey, snapshot: Snapshot): string =>
    `${singleFlight.generationOf([key.entryKey, ...key.tagVersionKeys])} ${stateOf(key, snapshot)}`;

  /** Calls the loader once for all of these, for a request that waits. Other requests may join. */
  function lead<W extends Wanted>(misses: readonly Miss<W>[], load: LoadAll<W>): Promise<Loaded>[] {
    const [first] = misses;
    const leased = misses.length === 1 && first?.wanted.lease === true && first.snapshot !== undefined;
    if (!leased) {
      const filling = fills.begin(misses.map(fillable), 'after the response');
      return share(misses, run(misses, load, filling, false), filling, 0);
    }
    // Other isolates wait for the fill, so send it before this request's response.
    const filling = fills.begin([fillable(first)], freshBatch());
    return share(misses, runLeased(first, load, filling), filling, leaseWaitMs);
  }

  /**
   * Loads while Redis is away. Without tag versions it is unknown whether a running load is recent enough. Each caller
   * therefore gets the result of a load that begins after this call.
   */
  function loadFresh<W extends Wanted>(misses: readonly Miss<W>[], load: LoadAll<W>): Promise<FreshlyLoaded>[] {
    const followed = misses.map(({ wanted }) => freshLoads.follow(wanted.key.entryKey));
    const led = misses.filter((_, index) => followed[index] === undefined);
    const work = () => run(led, load, fills.begin(led.map(fillable), 'after the response'), false);
    const bounded = led.some(({ wanted }) => wanted.readsDatabase) ? () => lookups.run(work) : work;
    const names = led.map(({ wanted }) => wanted.key.entryKey);
    const own = led.length > 0 ? freshLoads.lead(names, bounded, { waitUntil, lostAfterMs: leaseMs }) : [];
    return misses.map(async (miss, index) => {
      const following = followed[index];
      if (following === undefined) return { loaded: (await own[led.indexOf(miss)]) ?? unreachable(), joined: false };
      const outcome = await following;
      // The leader died.
      return outcome === 'lost'
        ? (loadFresh([miss], load)[0] ?? unreachable())
        : { loaded: outcome.value, joined: true };
    });
  }

  /** Caches a value that the request has already read, if that is as safe as after a load. */
  function adopt({ wanted, snapshot }: Miss<Wanted>, { value, readAtWallMs }: KnownValue): void {
    if (snapshot === undefined) return;
    // Without a flush sentinel, missing tag versions must be created before the value is read.
    if (memory.flushSentinel === undefined && snapshot.tagVersions.includes(null)) return;
    const entry = encode(value, wanted, 0);
    const filling = fills.begin([{ key: wanted.key, snapshot }], 'after the response');
    filling.loading(readAtWallMs);
    filling.fill(0, entry);
    if (entry !== undefined) reader.replace(wanted.key, { ...snapshot, entry });
  }

  /** Loads entries again that were served stale. Fills are sent at once. */
  async function refresh<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
    through: RedisBatch,
  ): Promise<void> {
    const refreshAll = async () => {
      const filling = fills.begin(misses.map(fillable), through);
      await Promise.all(share(misses, run(misses, load, filling, true), filling, 0));
      await Promise.allSettled(misses.map((_, index) => filling.done(index)));
    };
    const [first] = misses;
    if (misses.length > 1 || first?.wanted.lease !== true) return refreshAll();
    memory.pause(first.wanted.key.entryKey, now(), REFRESH_PAUSE_MS);
    const times = { leaseMs, waitMs: 0, reread: () => newerOf(first), now };
    const lease = await takeLoadLease(stateOf(first.wanted.key, first.snapshot), locks, times);
    if (lease.outcome !== 'load') return;
    try {
      await refreshAll();
    } finally {
      await lease.release();
    }
  }

  function share(
    misses: readonly Miss<Wanted>[],
    work: Promise<Loaded[]>,
    filling: Filling,
    waitMs: number,
  ): Promise<Loaded>[] {
    waitUntil(work.catch(() => undefined));
    const lostAfterMs = waitMs + settings.loaderDeadlineMs + LEADER_SLACK_MS;
    return misses.map(({ flight }, index) => {
      const loaded = work.then((all) => all[index] ?? { json: undefined });
      const isCurrent = (later: Snapshot) => filling.isCurrent(index, later);
      singleFlight.lead(flight, { loaded, filled: filling.done(index), lostAfterMs, isCurrent });
      return loaded;
    });
  }

  /** Loads one entry unless another isolate is loading it; else returns that isolate's result. */
  async function runLeased<W extends Wanted>(miss: Miss<W>, load: LoadAll<W>, filling: Filling): Promise<Loaded[]> {
    const times = { leaseMs, waitMs: leaseWaitMs, reread: () => newerOf(miss), now };
    const lease = await takeLoadLease(stateOf(miss.wanted.key, miss.snapshot), locks, times);
    if (lease.outcome === 'found') {
      filling.cancel(false);
      return [loadedOf(lease.entry)];
    }
    const loading = run([miss], load, filling, false);
    if (lease.outcome === 'load') {
      // Release once waiting isolates can find the entry. The response does not wait for that.
      waitUntil(loading.then(() => filling.done(0)).then(lease.release, lease.release));
    }
    return loading;
  }

  /** The current entry, if it was written after this miss. */
  async function newerOf({ wanted, snapshot }: Miss<Wanted>): Promise<Entry | undefined> {
    const fresh: CacheReads = new Map();
    try {
      const [found] = await Promise.all(
        createReader({ ...deps, batch: freshBatch(), reads: () => fresh }).read([wanted.key]),
      );
      const entry = found?.writeId === snapshot?.writeId ? undefined : found?.entry;
      if (entry === undefined || entry.softExpiryMs <= now()) return undefined;
      return decodeEntry(entry, wanted.schema).ok ? entry : undefined;
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return undefined;
    }
  }

  async function run<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
    filling: Filling,
    refresh: boolean,
  ): Promise<Loaded[]> {
    const { generation } = singleFlight;
    const wanted = misses.map((miss) => miss.wanted);
    try {
      await filling.ready;
      const startMs = now();
      filling.loading();
      const notFound = (ttlSeconds?: number) => new NegativeEntry(ttlSeconds);
      const attributes = {
        'gatehouse.namespace': wanted[0]?.key.namespace ?? 'user',
        'gatehouse.entries': wanted.length,
      };
      const values = await maybeInSpan(spans(), 'cache.load', attributes, () =>
        withDeadline((signal) => load(wanted, { signal, refresh, notFound }), settings.loaderDeadlineMs),
      );
      if (values.length !== misses.length) throw new TypeError('a loader must return one value for each key');
      const costMs = Math.max(0, now() - startMs);
      const entries = wanted.map((one, index) => encode(values[index], one, costMs));
      for (const [index, { snapshot }] of misses.entries()) {
        const entry = entries[index];
        const { key } = wanted[index] as W;
        memory.noteSuccess(key.entryKey);
        filling.fill(index, entry);
        // The request need not read this entry again, unless it has invalidated something since.
        if (entry === undefined || snapshot === undefined || generation !== singleFlight.generation) continue;
        reader.replace(key, { ...snapshot, entry });
      }
      return entries.map((entry) => (entry === undefined ? { json: undefined } : loadedOf(entry)));
    } catch (error) {
      filling.cancel(isResult(error));
      if (isOutage(error)) for (const { key } of wanted) memory.noteFailure(key.entryKey, now(), random);
      throw error;
    }
  }

  /** Converts a loader's value to an entry; `undefined` if it must not be cached. */
  function encode(value: unknown, { windows, schema }: Wanted, costMs: number): Entry | undefined {
    if (value === null || value === undefined) return undefined;
    if (value instanceof NegativeEntry) {
      const ttlSeconds = value.ttlSeconds ?? Math.min(windows.ttlMs / 1_000, settings.negativeTtlSeconds);
      return fills.entryOf('null', { ttlMs: ttlSeconds * 1_000, staleMs: 0, staleIfErrorMs: 0 }, costMs, true);
    }
    const json = JSON.stringify(value) as string | undefined;
    if (json === undefined) throw new TypeError('the loader returned a value without a JSON form');
    if (!decode(json, schema).ok) throw new TypeError('the loader returned a value that its schema refuses');
    return fills.entryOf(json, windows, costMs, false);
  }

  return { lead, loadFresh, adopt, refresh, flightOf, fills };
}

/**
 * Names the state of the cache when an entry was missed. A request that has seen a later invalidation gets another name. A
 * missing tag version and the one that a load created for it give the same name.
 */
export function stateOf(
  { entryKey }: CacheKey,
  snapshot: Pick<Snapshot, 'writeId' | 'tagVersions'> | undefined,
): string {
  if (snapshot === undefined) return entryKey;
  return `${entryKey} ${snapshot.writeId} ${snapshot.tagVersions.map((version) => (version === null || isInitial(version) ? '+' : version)).join(' ')}`;
}

/** A negative entry passes every schema. */
export function decodeEntry({ json, negative }: Entry, schema: CacheSchema<unknown> | undefined): Decoded {
  return negative ? { ok: true, value: null } : decode(json, schema);
}

function loadedOf({ json, negative }: Entry): Loaded {
  return { json: negative ? undefined : json };
}

function fillable({ wanted, snapshot }: Miss<Wanted>) {
  return { key: wanted.key, snapshot };
}
