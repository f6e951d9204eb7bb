import { carriedVersions, reserveTagVersions } from './tagReservations';
import type { TagReservation, TagReservationDeps } from './tagReservations';
import type { CacheKey, Snapshot } from './entry';

/** The state of the cache when a request began to load a value by itself. */
export interface ManualFill {
  readonly key: CacheKey;
  readonly snapshot: Snapshot;
  readonly tagVersions: readonly string[];
  /** By the wall clock. */
  readonly loadingAtMs: number;
}

/** Redis could not be asked when the load began. */
const UNKNOWN = 'unknown';
/** This request has invalidated it since. */
const OVER = 'over';

/** Loads of a request's own, by their entries' keys. */
export type ManualFills = Map<
  string,
  { key: CacheKey; snapshot: Snapshot; reservation: TagReservation; loadingAtMs: number } | typeof UNKNOWN | typeof OVER
>;

export interface ManualFillDeps extends TagReservationDeps {
  /** The current request's. */
  manualFills: () => ManualFills;
}

/** A request's own loads: from the miss at which they begin to the value with which they end. */
export function createManualFills({ manualFills, ...deps }: ManualFillDeps) {
  return {
    has: (key: CacheKey): boolean => manualFills().has(key.entryKey),

    /**
     * Resolves when the load may begin. The first one counts: it is the oldest.
     *
     * @param snapshot `undefined`: Redis was away, so later invalidations cannot be noticed
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

    /** `undefined` when nothing may be written: Redis was away, has not taken the tag versions, or it was invalidated. */
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
 * The request has invalidated these Redis keys (left out: all). Values that it has loaded before are not written; loads that it
 * begins after this are.
 */
export function endManualFills(fills: ManualFills, redisKeys: readonly string[] | undefined): void {
  for (const [entryKey, fill] of fills) {
    if (fill === UNKNOWN || fill === OVER) continue;
    const names = [entryKey, ...fill.key.tagVersionKeys];
    if (redisKeys === undefined || names.some((name) => redisKeys.includes(name))) fills.set(entryKey, OVER);
  }
}
