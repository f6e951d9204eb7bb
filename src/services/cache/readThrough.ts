import type { Config } from '../../config/env';
import { describeError, log } from '../../config/log';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { withDeadline, isAnswer } from './deadline';
import type { CacheKey, Entry, Snapshot } from './entry';
import { createFills } from './fills';
import type { Fillable } from './fills';
import type { Flights, Loaded } from './flights';
import { freshnessOf } from './freshness';
import type { Windows } from './freshness';
import type { CacheMemory } from './memory';
import { Nothing } from './options';
import type { CacheResult, LoaderContext } from './options';
import type { CacheReader } from './reader';
import { decode } from './schema';
import type { CacheSchema } from './schema';

/** One entry that somebody wants. */
export interface Wanted {
  readonly key: CacheKey;
  readonly windows: Windows;
  readonly schema?: CacheSchema<unknown> | undefined;
}

/** Loads what the cache does not have: values in the order of what it is given. */
export type LoadAll<W extends Wanted> = (wanted: readonly W[], context: LoaderContext) => Promise<readonly unknown[]>;

export interface ReadThroughDeps {
  reader: CacheReader;
  batch: RedisBatch;
  keys: Keys;
  flights: Flights;
  memory: CacheMemory;
  settings: Config['cache'];
  waitUntil: (promise: Promise<unknown>) => void;
  /** Runs work that outlives the request, with services and a batch of its own. */
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  now: () => number;
  random: () => number;
  degraded: (what: string) => void;
  refreshWithinMs?: number;
}

/** Something to load: what is wanted, and the state of the cache that it was missed in. */
interface Miss<W> {
  readonly wanted: W;
  /** `undefined`: Redis could not be asked. */
  readonly snapshot: Snapshot | undefined;
  readonly flight: string;
  /** What may be served should the load fail. */
  readonly fallback: CacheResult<unknown> | undefined;
}

/** Followers believe in a leader for the loader's deadline, what Redis may take before it, and a moment. */
const LEADER_SLACK_MS = 1_500;

/** Cache-aside for any number of entries at a time: one read of the cache, one call of the loader. */
export function createReadThrough(deps: ReadThroughDeps) {
  const { reader, flights, memory, settings, waitUntil, background, now, random, degraded } = deps;
  const { refreshWithinMs = -Infinity } = deps;
  const fills = createFills(deps);

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

  /** The state that an entry was missed in: whoever has seen an invalidation since has another name for it. */
  const flightOf = ({ entryKey }: CacheKey, snapshot: Snapshot | undefined): string =>
    snapshot === undefined
      ? `${entryKey} ${flights.generation}`
      : `${entryKey} ${flights.generation} ${snapshot.writeId} ${snapshot.nonces.map((nonce) => nonce ?? '?').join(' ')}`;

  async function resolve<W extends Wanted>(
    wanted: readonly W[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const snapshots = await snapshotsOf(wanted.map(({ key }) => key));
    const results: (CacheResult<unknown> | undefined)[] = [];
    const misses: { at: number; miss: Miss<W> }[] = [];
    const refreshes: Miss<W>[] = [];
    for (const [at, one] of wanted.entries()) {
      const snapshot = snapshots?.[at];
      const entry = snapshot?.entry;
      const decoded = entry === undefined ? undefined : decodeEntry(entry, one.schema);
      const miss = { wanted: one, snapshot, flight: flightOf(one.key, snapshot) };
      const isDue = entry !== undefined && entry.softExpiryMs - now() < refreshWithinMs;
      if (entry === undefined || decoded?.ok !== true || isDue) {
        misses.push({ at, miss: { ...miss, fallback: undefined } });
        continue;
      }
      const found = (from: 'hit' | 'stale' | 'fallback'): CacheResult<unknown> => ({
        value: decoded.value,
        from,
        expired: from !== 'hit',
        createdAtMs: entry.createdAtMs,
        freshUntilMs: entry.softExpiryMs,
      });
      switch (freshnessOf(entry, one.windows, now(), random)) {
        case 'fresh':
          results[at] = found('hit');
          break;
        case 'early':
          results[at] = found('hit');
          refreshes.push({ ...miss, fallback: undefined });
          break;
        case 'stale':
          results[at] = found('stale');
          refreshes.push({ ...miss, fallback: undefined });
          break;
        case 'fallback':
          // The loader has just failed: nobody need wait for it to fail again.
          if (memory.isBackedOff(one.key.entryKey, now())) {
            results[at] = found('fallback');
            degraded('cache=stale');
          } else misses.push({ at, miss: { ...miss, fallback: found('fallback') } });
          break;
        case 'expired':
          misses.push({ at, miss: { ...miss, fallback: undefined } });
      }
    }
    if (refreshes.length > 0) refresh(refreshes, load);
    if (misses.length > 0) {
      const loaded = await loadAll(
        misses.map(({ miss }) => miss),
        load,
      );
      for (const [index, { at }] of misses.entries()) results[at] = loaded[index];
    }
    return results.map((result) => {
      if (result === undefined) throw new Error('unreachable');
      return result;
    });
  }

  /** Joins the loads that are under way, and loads the rest together. */
  async function loadAll<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
  ): Promise<readonly CacheResult<unknown>[]> {
    const led = misses.filter(({ flight }) => !flights.has(flight));
    const loads = led.length > 0 ? lead(led, load, 'after the answer') : [];
    const outcomes = await Promise.allSettled(
      misses.map(async (miss): Promise<CacheResult<unknown>> => {
        const index = led.indexOf(miss);
        const own = loads[index];
        const loaded = await (own ?? flights.follow(miss.flight));
        // Its leader died, or ended a moment ago: out with its flight.
        if (loaded === undefined || loaded === 'lost') return (await loadAll([miss], load))[0] as CacheResult<unknown>;
        return resultOf(miss, loaded, own === undefined);
      }),
    );
    return outcomes.map((outcome, index) => {
      if (outcome.status === 'fulfilled') return outcome.value;
      const error: unknown = outcome.reason;
      const fallback = misses[index]?.fallback;
      if (fallback === undefined || isAnswer(error)) throw error;
      degraded('cache=stale');
      return fallback;
    });
  }

  function resultOf(miss: Miss<Wanted>, { json }: Loaded, joined: boolean): CacheResult<unknown> {
    const { wanted, snapshot } = miss;
    const createdAtMs = now();
    const common = {
      from: snapshot === undefined ? 'bypass' : joined ? 'joined' : 'loaded',
      expired: snapshot?.entry !== undefined,
      createdAtMs,
      freshUntilMs: createdAtMs + wanted.windows.ttlMs,
    } as const;
    if (json === undefined) return { value: null, ...common };
    const decoded = decode(json, wanted.schema);
    if (!decoded.ok) throw new TypeError('the loader returned what its own schema refuses');
    return { value: decoded.value, ...common };
  }

  /** Loads again what was answered already: in `waitUntil`, by one request of the isolate. */
  function refresh<W extends Wanted>(stale: readonly Miss<W>[], load: LoadAll<W>): void {
    const due = stale.filter(
      ({ flight, wanted }) => !flights.has(flight) && !memory.isBackedOff(wanted.key.entryKey, now()),
    );
    if (due.length === 0) return;
    waitUntil(
      background(async (batch) => {
        await Promise.all(lead(due, load, batch));
      }).catch((error: unknown) => {
        // What was stale stays so until it is too old; `lead` has seen to it that nobody tries again at once.
        if (!isAnswer(error)) log('warn', 'cache.refresh_failed', { entries: due.length, ...describeError(error) });
      }),
    );
  }

  /**
   * One call of the loader for all of these, which others may join from now on.
   *
   * @param when fills leave after the request's answer, or at once through a batch of their own
   */
  function lead<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
    when: 'after the answer' | RedisBatch,
  ): Promise<Loaded>[] {
    const { generation } = flights;
    const filling = fills.begin(
      misses.map((miss) => fillable(miss)),
      when,
    );
    const work = run(misses, load, filling, generation);
    waitUntil(work.catch(() => undefined));
    return misses.map((miss, index) => {
      const loaded = work.then((all) => all[index] ?? { json: undefined });
      const { snapshot, wanted, flight } = miss;
      const filled = filling.done(index);
      // Those who come once the nonces are there must find it too.
      const nonces = filling.noncesOf(index);
      const names = snapshot && nonces ? [flight, flightOf(wanted.key, { ...snapshot, nonces })] : [flight];
      flights.lead(names, loaded, filled, settings.loaderDeadlineMs + LEADER_SLACK_MS);
      return loaded;
    });
  }

  async function run<W extends Wanted>(
    misses: readonly Miss<W>[],
    load: LoadAll<W>,
    filling: ReturnType<typeof fills.begin>,
    generation: number,
  ): Promise<Loaded[]> {
    try {
      await filling.ready;
      const startMs = now();
      filling.loading();
      const values = await withDeadline(
        (signal) =>
          load(
            misses.map(({ wanted }) => wanted),
            { signal, notFound: (ttlSeconds) => new Nothing(ttlSeconds) },
          ),
        settings.loaderDeadlineMs,
      );
      if (values.length !== misses.length) throw new TypeError('a loader must return one value for each key');
      const costMs = Math.max(0, now() - startMs);
      const encoded = misses.map((miss, index) => encode(values[index], miss.wanted, costMs));
      for (const [index, miss] of misses.entries()) {
        const entry = encoded[index];
        memory.noteSuccess(miss.wanted.key.entryKey);
        filling.fill(index, entry);
        // What this request has loaded it need not ask for again; unless it has invalidated something since.
        const nonces = filling.noncesOf(index);
        if (
          entry !== undefined &&
          miss.snapshot !== undefined &&
          nonces !== undefined &&
          generation === flights.generation
        ) {
          reader.replace(miss.wanted.key, { ...miss.snapshot, nonces, entry });
        }
      }
      return encoded.map((entry) => ({ json: entry === undefined || entry.nothing ? undefined : entry.json }));
    } catch (error) {
      filling.cancel(isAnswer(error));
      if (!isAnswer(error)) for (const { wanted } of misses) memory.noteFailure(wanted.key.entryKey, now(), random);
      throw error;
    }
  }

  /** The entry that a loader's value becomes; `undefined` when it is not to be cached. */
  function encode(value: unknown, wanted: Wanted, costMs: number): Entry | undefined {
    if (value === null || value === undefined) return undefined;
    if (value instanceof Nothing) {
      const ttlSeconds = value.ttlSeconds ?? Math.min(wanted.windows.ttlMs / 1_000, settings.negativeTtlSeconds);
      return fills.entryOf('null', { ttlMs: ttlSeconds * 1_000, staleMs: 0, staleIfErrorMs: 0 }, costMs, true);
    }
    const json = JSON.stringify(value) as string | undefined;
    if (json === undefined) throw new TypeError('what the loader returned has no JSON form');
    if (!decode(json, wanted.schema).ok) throw new TypeError('the loader returned what its own schema refuses');
    return fills.entryOf(json, wanted.windows, costMs, false);
  }

  return { resolve, snapshotsOf, fills };
}

function fillable({ wanted, snapshot }: Miss<Wanted>): Fillable {
  return { key: wanted.key, snapshot };
}

/** A negative entry passes every schema. */
function decodeEntry({ json, nothing }: Entry, schema: CacheSchema<unknown> | undefined) {
  return nothing ? ({ ok: true, value: null } as const) : decode(json, schema);
}
