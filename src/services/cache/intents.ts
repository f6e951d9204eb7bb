import { carried, claim } from './claims';
import type { Claim, ClaimDeps } from './claims';
import type { CacheKey, Snapshot } from './entry';

/** What the cache looked like when somebody began to load a value by themselves. */
export interface Intent {
  readonly key: CacheKey;
  readonly snapshot: Snapshot;
  readonly nonces: readonly string[];
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
  { key: CacheKey; snapshot: Snapshot; claimed: Claim; loadingAtMs: number } | typeof UNKNOWN | typeof OVER
>;

export interface IntentDeps extends ClaimDeps {
  /** The current request's. */
  manualFills: () => ManualFills;
}

/** A request's own loads: from the miss that they began with to the value that they end with. */
export function createIntents({ manualFills, ...deps }: IntentDeps) {
  return {
    has: (key: CacheKey): boolean => manualFills().has(key.entryKey),

    /**
     * Resolves when the load may begin. The first one counts: it is the oldest.
     *
     * @param snapshot `undefined`: Redis could not be asked, and what was invalidated since nobody can tell
     */
    async note(key: CacheKey, snapshot: Snapshot | undefined): Promise<void> {
      const intents = manualFills();
      if ((intents.get(key.entryKey) ?? OVER) !== OVER) return;
      if (snapshot === undefined) return void intents.set(key.entryKey, UNKNOWN);
      const missing = key.nonceKeys.filter((_, at) => snapshot.nonces[at] === null);
      const claimed = claim(missing, deps);
      intents.set(key.entryKey, { key, snapshot, claimed, loadingAtMs: Date.now() });
      await claimed.ready;
    },

    /** `undefined` when nothing may be written: Redis was away, has not taken the nonces, or it was invalidated. */
    async take({ entryKey }: CacheKey): Promise<Intent | undefined> {
      const intents = manualFills();
      const intent = intents.get(entryKey);
      intents.delete(entryKey);
      if (intent === undefined || intent === UNKNOWN || intent === OVER) return undefined;
      const { key, snapshot, claimed, loadingAtMs } = intent;
      const nonces = carried(key, snapshot, await claimed.granted);
      return nonces && { key, snapshot, nonces, loadingAtMs };
    },
  };
}

/**
 * The request has invalidated these Redis keys (left out: any): values that it has loaded until now are not written, and a
 * load that it begins from now on counts anew.
 */
export function endManualFills(fills: ManualFills, redisKeys: readonly string[] | undefined): void {
  for (const [entryKey, fill] of fills) {
    if (fill === UNKNOWN || fill === OVER) continue;
    const names = [entryKey, ...fill.key.nonceKeys];
    if (redisKeys === undefined || names.some((name) => redisKeys.includes(name))) fills.set(entryKey, OVER);
  }
}
