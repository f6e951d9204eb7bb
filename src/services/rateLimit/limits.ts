/** `sliding-window` counts exactly; `token-bucket` (GCRA) lets a burst of `maxRequests` and then an even flow. */
export type LimitAlgorithm = 'sliding-window' | 'token-bucket';

/** At most `maxRequests` in any window. Both positive integers, their product exact. */
export interface Limit {
  algorithm: LimitAlgorithm;
  maxRequests: number;
  windowMs: number;
}

/**
 * A limit's state at a moment. Sliding window: window index, consumed in it, consumed in the one before. Token bucket:
 * time of the debt (ms), debt in units of 1/maxRequests ms, 0.
 */
export interface LimitState {
  a: number;
  b: number;
  c: number;
  /** Time since the current window began (ms); 0 for a token bucket. */
  elapsedMs: number;
}

/** The stored state as `nowMs` sees it: windows move on, debts are paid off, and a lagging clock rewinds nothing. */
export function advance(
  limit: Limit,
  stored: Pick<LimitState, 'a' | 'b' | 'c'> | undefined,
  nowMs: number,
): LimitState {
  const { windowMs, maxRequests } = limit;
  if (limit.algorithm === 'token-bucket') {
    if (stored === undefined) return { a: nowMs, b: 0, c: 0, elapsedMs: 0 };
    const a = Math.max(nowMs, stored.a);
    return { a, b: Math.max(0, stored.b - (a - stored.a) * maxRequests), c: 0, elapsedMs: 0 };
  }
  const index = Math.floor(nowMs / windowMs);
  const elapsedMs = nowMs - index * windowMs;
  if (stored === undefined) return { a: index, b: 0, c: 0, elapsedMs };
  if (index < stored.a) return { a: stored.a, b: stored.b, c: stored.c, elapsedMs: 0 };
  if (index === stored.a) return { a: index, b: stored.b, c: stored.c, elapsedMs };
  return { a: index, b: 0, c: index === stored.a + 1 ? stored.b : 0, elapsedMs };
}

/** What has been used up, in units of 1/windowMs requests (window) or 1/maxRequests ms (bucket), and how much there is. */
function usage({ algorithm, maxRequests, windowMs }: Limit, state: LimitState): { used: number; all: number } {
  const all = maxRequests * windowMs;
  if (algorithm === 'token-bucket') return { used: state.b, all };
  return { used: state.c * (windowMs - state.elapsedMs) + state.b * windowMs, all };
}

export function admits(limit: Limit, state: LimitState, cost: number): boolean {
  const { used, all } = usage(limit, state);
  return used + cost * limit.windowMs <= all;
}

/** The state after a request of this cost. */
export function consumed(limit: Limit, state: LimitState, cost: number): LimitState {
  return { ...state, b: state.b + (limit.algorithm === 'token-bucket' ? cost * limit.windowMs : cost) };
}

/** How many requests of cost 1 would be admitted now. */
export function remaining(limit: Limit, state: LimitState): number {
  const { used, all } = usage(limit, state);
  return Math.max(0, Math.floor((all - used) / limit.windowMs));
}

/** When everything is available again, or a window's share of it: the `t` of the RateLimit header, in milliseconds. */
export function resetMs(limit: Limit, state: LimitState): number {
  return limit.algorithm === 'token-bucket' ? Math.ceil(state.b / limit.maxRequests) : limit.windowMs - state.elapsedMs;
}

/**
 * The shortest wait after which a request of this cost is admitted, if nothing else consumes: 0 when it is admitted
 * now, `Infinity` when it never is.
 */
export function waitMs(limit: Limit, state: LimitState, cost: number): number {
  const { algorithm, maxRequests, windowMs } = limit;
  if (cost > maxRequests) return Infinity;
  if (admits(limit, state, cost)) return 0;
  if (algorithm === 'token-bucket') {
    return Math.ceil((state.b + cost * windowMs - windowMs * maxRequests) / maxRequests);
  }
  const restMs = windowMs - state.elapsedMs;
  const free = maxRequests - state.b - cost;
  // Within this window the previous one's weight shrinks; else the wait goes on while this one's does.
  if (free >= 0) return restMs - Math.floor((free * windowMs) / state.c);
  return restMs + windowMs - Math.floor(((maxRequests - cost) * windowMs) / state.b);
}

/** The state once `cost` (it may be negative) was added to what was charged at `chargedAtMs`; never below zero. */
export function settled(limit: Limit, state: LimitState, cost: number, chargedAtMs: number): LimitState {
  if (limit.algorithm === 'token-bucket') return { ...state, b: Math.max(0, state.b + cost * limit.windowMs) };
  const charged = Math.floor(chargedAtMs / limit.windowMs);
  if (charged >= state.a) return { ...state, b: Math.max(0, state.b + cost) };
  if (charged === state.a - 1) return { ...state, c: Math.max(0, state.c + cost) };
  return state;
}
