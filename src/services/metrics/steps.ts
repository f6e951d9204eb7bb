/** The ranges of the time series. */
export const RANGES = ['15m', '1h', '24h'] as const;
export type Range = (typeof RANGES)[number];

/** A time series in Redis: one hash per chunk of steps. */
export interface Ring {
  readonly stepMs: number;
  readonly stepsInChunk: number;
  /** How long its steps are kept. */
  readonly keptMs: number;
}

/** Steps of 10 s are kept for an hour, steps of a minute for a day. */
export const FINE: Ring = { stepMs: 10_000, stepsInChunk: 30, keptMs: 3_600_000 };
export const COARSE: Ring = { stepMs: 60_000, stepsInChunk: 60, keptMs: 86_400_000 };

/** Until the last step of a chunk has reached its age limit, and some minutes for clocks that differ. */
export const ttlMsOf = ({ stepMs, stepsInChunk, keptMs }: Ring) => keptMs + stepsInChunk * stepMs + 120_000;

/** The chunk of a time, and its step in the chunk. */
export function placeOf({ stepMs, stepsInChunk }: Ring, atMs: number): { chunk: number; step: number } {
  const at = Math.floor(atMs / stepMs);
  return { chunk: Math.floor(at / stepsInChunk), step: at % stepsInChunk };
}

/** How a range is shown: its time series, and how many steps are combined into one. */
export const SHOWN: Readonly<Record<Range, { ring: Ring; rangeMs: number; together: number }>> = {
  '15m': { ring: FINE, rangeMs: 900_000, together: 1 },
  '1h': { ring: FINE, rangeMs: 3_600_000, together: 1 },
  '24h': { ring: COARSE, rangeMs: 86_400_000, together: 5 },
};
