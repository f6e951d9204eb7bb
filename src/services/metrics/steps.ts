/** Ranges of the time series that can be read. */
export const RANGES = ['15m', '1h', '24h'] as const;
export type Range = (typeof RANGES)[number];

/** A time series in Redis: a hash for each chunk of so many steps. */
export interface Ring {
  readonly stepMs: number;
  readonly stepsInChunk: number;
  /** How far back it can be read. */
  readonly keptMs: number;
}

/** 10 s for an hour, a minute for a day. */
export const FINE: Ring = { stepMs: 10_000, stepsInChunk: 30, keptMs: 3_600_000 };
export const COARSE: Ring = { stepMs: 60_000, stepsInChunk: 60, keptMs: 86_400_000 };

/** Until the last step of a chunk is as old as it is kept, and some minutes for clocks that differ. */
export const ttlMsOf = ({ stepMs, stepsInChunk, keptMs }: Ring) => keptMs + stepsInChunk * stepMs + 120_000;

/** Where a time has its place: which chunk, and which step of it. */
export function placeOf({ stepMs, stepsInChunk }: Ring, atMs: number): { chunk: number; step: number } {
  const at = Math.floor(atMs / stepMs);
  return { chunk: Math.floor(at / stepsInChunk), step: at % stepsInChunk };
}

/** How a range is shown: from which time series, and how many of its steps make one. */
export const SHOWN: Readonly<Record<Range, { ring: Ring; rangeMs: number; together: number }>> = {
  '15m': { ring: FINE, rangeMs: 900_000, together: 1 },
  '1h': { ring: FINE, rangeMs: 3_600_000, together: 1 },
  '24h': { ring: COARSE, rangeMs: 86_400_000, together: 5 },
};
