import { carriedVersions, reserveTagVersions } from './tagReservations';
import type { TagReservation, TagReservationDeps } from './tagReservations';
import type { CacheKey, Snapshot } from './entry';

/** The state of the cache when a request began to load a value itself. */
export interface ManualFill {
  readonly key: CacheKey;
  readonly snapshot: Snapshot;
  readonly tagVersions: readonly string[];
  /** By the wall clock. */
  readonly loadingAtMs: number;
}

/** Redis could not be asked when the load began. */
const UNKNOWN = 'unknown';
/** This request has invalidated the entry since. */
const OVER = 'over';

/** The loads of the request itself, by their entries' keys. */
export type ManualFills = Map<
  string,
  { key: CacheKey; snapshot: Snapshot; reservation: TagReservation; loadingAtMs: number } | typeof UNKNOWN | typeof OVER
>;

export interface ManualFillDeps extends TagReservationDeps {
  /** The current request's. */
  manualFills: () => ManualFills;
}

/** Tracks a request's own loads, from the miss to the value. */
export function createManualFills({ manualFills, ...deps }: ManualFillDeps) {
  return {
    has: (key: CacheKey): boolean => manualFills().has(key.entryKey),

    /**
     * Resolves when the load may begin. The first call for a key counts, because its state is the oldest.
     *
     * @param snapshot `undefined`: Redis was away, so later invalidations would go unnoticed
     */
    async note(key: CacheKey, snapshot: Snapshot | undefined): Promise<void> {
      const manual = manualFills();
      if ((manual.get(key.entryKey) ?? OVER) !== OVER) return;
      if (snapshot === undefined) return void manual.set(key.entryKey, UNKNOWN);
      const missing = key.tagVersionKeys.filter((_, at) => snapshot.tagVersions[at] === null);
      const reservation = reserveTagVersions(missing, deps);
      manual.set(key.entryKey, { key, snapshot, reservation, loadingAtMs: Date.now() });
      await reservation.ready;
    },

    /**
     * `undefined` if no value may be written: Redis was away or has refused the tag versions, or the entry was invalidated.
     */
    async take({ entryKey }: CacheKey): Promise<ManualFill | undefined> {
      const manual = manualFills();
      const manualFill = manual.get(entryKey);
      manual.delete(entryKey);
      if (manualFill === undefined || manualFill === UNKNOWN || manualFill === OVER) return undefined;
      const { key, snapshot, reservation, loadingAtMs } = manualFill;
      const tagVersions = carriedVersions(key, snapshot, await reservation.granted);
      return tagVersions && { key, snapshot, tagVersions, loadingAtMs };
    },
  };
}

/**
 * The request has invalidated these Redis keys (omitted: all). Values of loads that began before this call are not written;
 * those of later loads are.
 */
export function endManualFills(fills: ManualFills, redisKeys: readonly string[] | undefined): void {
  for (const [entryKey, fill] of fills) {
    if (fill === UNKNOWN || fill === OVER) continue;
    const names = [entryKey, ...fill.key.tagVersionKeys];
    if (redisKeys === undefined || names.some((name) => redisKeys.includes(name))) fills.set(entryKey, OVER);
  }
}
