/**
 * How long this isolate was blocked by computing (password hashes take a quarter of a second), so that the time is not
 * held against Redis.
 */
let totalMs = 0;

/** Milliseconds of blocking so far; the difference of two readings is what fell between them. */
export function blockedMs(): number {
  return totalMs;
}

/** Called by whoever blocked the isolate, once its clock has moved on. */
export function noteBlocked(ms: number): void {
  totalMs += Math.max(0, ms);
}
