import type { Entry } from './entry';

/** How long a value may be served, in milliseconds. */
export interface Windows {
  /** Fresh. */
  readonly ttlMs: number;
  /** Then stale: served at once, and refreshed after the response. */
  readonly staleMs: number;
  /** Then served only when the loader fails. */
  readonly staleIfErrorMs: number;
}

/**
 * `fresh`; `early`: fresh, and this reader refreshes it already; `stale`: served, and refreshed; `fallback`: only when
 * the loader fails; `expired`: not served.
 */
export type Freshness = 'fresh' | 'early' | 'stale' | 'fallback' | 'expired';

/** Above 1 refreshes earlier. 1 is optimal for exponential gaps between reads. */
const BETA = 1;

/** Up to a tenth shorter, so that entries written together do not expire together. */
const JITTER = 0.1;

/**
 * Early refresh is XFetch: a reader takes it upon itself with a probability that grows towards the expiry, and with what
 * the loader takes (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015).
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
    // 1 - random() is never 0, whose logarithm is infinite.
    return nowMs - costMs * BETA * Math.log(1 - random()) >= softExpiryMs ? 'early' : 'fresh';
  }
  if (negative) return 'expired';
  if (nowMs < softExpiryMs + staleMs) return 'stale';
  return nowMs < softExpiryMs + staleIfErrorMs ? 'fallback' : 'expired';
}

/** When a value that was loaded now stops being fresh, and being there. */
export function expiriesOf(
  { ttlMs, staleMs, staleIfErrorMs }: Windows,
  nowMs: number,
  random: () => number,
): { softExpiryMs: number; hardExpiryMs: number } {
  const softExpiryMs = nowMs + Math.ceil(ttlMs * (1 - JITTER * random()));
  return { softExpiryMs, hardExpiryMs: softExpiryMs + Math.ceil(Math.max(staleMs, staleIfErrorMs)) };
}
