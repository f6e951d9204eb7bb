import type { Entry } from './entry';

/** How long a value may be served, in milliseconds, in this order. */
export interface Windows {
  /** Fresh. */
  readonly ttlMs: number;
  /** Then stale: served at once, and refreshed after the response. */
  readonly staleMs: number;
  /** Then served only when the loader fails. */
  readonly staleIfErrorMs: number;
}

/**
 * `fresh`; `early`: fresh, but this reader already refreshes it; `stale`: served and refreshed; `fallback`: served only
 * when the loader fails; `expired`: not served.
 */
export type Freshness = 'fresh' | 'early' | 'stale' | 'fallback' | 'expired';

/** Values above 1 refresh earlier. 1 is optimal for exponential gaps between reads. */
const BETA = 1;

/** Lifetimes are up to a tenth shorter, so that entries written together do not expire together. */
const JITTER = 0.1;

/**
 * Early refresh is XFetch: each reader decides at random whether to refresh. The probability grows towards the expiry, and
 * with the loader's duration (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB
 * 2015).
 *
 * @param random uniform in [0, 1)
 */
export function freshnessOf(
  { softExpiryMs, hardExpiryMs, costMs, negative }: Entry,
  { staleMs, staleIfErrorMs }: Omit<Windows, 'ttlMs'>,
  nowMs: number,
  random: () => number,
): Freshness {
  if (nowMs >= hardExpiryMs) return 'expired';
  if (nowMs < softExpiryMs) {
    // 1 - random() is never 0: the logarithm of 0 is infinite.
    return nowMs - costMs * BETA * Math.log(1 - random()) >= softExpiryMs ? 'early' : 'fresh';
  }
  if (negative) return 'expired';
  if (nowMs < softExpiryMs + staleMs) return 'stale';
  return nowMs < softExpiryMs + staleIfErrorMs ? 'fallback' : 'expired';
}

/** When a value loaded now stops being fresh, and when its entry expires. */
export function expiriesOf(
  { ttlMs, staleMs, staleIfErrorMs }: Windows,
  nowMs: number,
  random: () => number,
): { softExpiryMs: number; hardExpiryMs: number } {
  const softExpiryMs = nowMs + Math.ceil(ttlMs * (1 - JITTER * random()));
  return { softExpiryMs, hardExpiryMs: softExpiryMs + Math.ceil(Math.max(staleMs, staleIfErrorMs)) };
}
