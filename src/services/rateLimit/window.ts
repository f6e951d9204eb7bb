/** A sliding-window counter's state, and what follows from it. All times in milliseconds. */
export interface WindowState {
  /** Start of the current window divided by its length. */
  index: number;
  /** Consumed in the current window and in the one before. */
  current: number;
  previous: number;
  /** Time since the current window began. */
  elapsedMs: number;
}

export interface WindowLimit {
  maxRequests: number;
  windowMs: number;
}

/** The exact integer test: P·(W - elapsed) + C·W + n·W <= L·W. */
export function admits(state: WindowState, { maxRequests, windowMs }: WindowLimit, cost: number): boolean {
  return state.previous * (windowMs - state.elapsedMs) + (state.current + cost) * windowMs <= maxRequests * windowMs;
}

/** How many requests of cost 1 would be admitted now. */
export function remaining(state: WindowState, { maxRequests, windowMs }: WindowLimit): number {
  const free = maxRequests * windowMs - state.previous * (windowMs - state.elapsedMs) - state.current * windowMs;
  return Math.max(0, Math.floor(free / windowMs));
}

/**
 * The shortest wait after which a request of this cost is admitted, if nothing else consumes: 0 when it is admitted
 * now, `Infinity` when it never is.
 */
export function waitMs(state: WindowState, limit: WindowLimit, cost: number): number {
  const { maxRequests, windowMs } = limit;
  if (cost > maxRequests) return Infinity;
  if (admits(state, limit, cost)) return 0;
  const restMs = windowMs - state.elapsedMs;
  const free = maxRequests - state.current - cost;
  // Within this window the previous one's weight shrinks; else the wait goes on while this one's does.
  if (free >= 0) return restMs - Math.floor((free * windowMs) / state.previous);
  return restMs + windowMs - Math.floor(((maxRequests - cost) * windowMs) / state.current);
}

/** The state `nowMs` sees, given the stored one: windows move on, and a lagging clock does not rewind them. */
export function advance(stored: WindowState | undefined, nowMs: number, windowMs: number): WindowState {
  const index = Math.floor(nowMs / windowMs);
  if (stored === undefined) return { index, current: 0, previous: 0, elapsedMs: nowMs - index * windowMs };
  if (index < stored.index) return { ...stored, elapsedMs: 0 };
  const elapsedMs = nowMs - index * windowMs;
  if (index === stored.index) return { ...stored, elapsedMs };
  return { index, current: 0, previous: index === stored.index + 1 ? stored.current : 0, elapsedMs };
}
