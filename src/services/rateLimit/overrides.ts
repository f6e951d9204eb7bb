import type { RedisValue } from '../../redis/client';
import type { Limit, LimitAlgorithm } from './limits';

/** Numbers of one window, as an administrator sets them. */
export interface OverrideWindow {
  maxRequests: number;
  windowMs: number;
}

/** All overrides by policy, and the version of the table that they were read from. */
export interface OverrideTable {
  version: number;
  policies: Readonly<Record<string, readonly OverrideWindow[]>>;
}

interface Known {
  text: string;
  limits: Readonly<Record<LimitAlgorithm, readonly Limit[]>>;
}

/** An isolate that has not asked for longer than this asks in each request, until it has the numbers. */
const MAX_AGE_FACTOR = 2;

/**
 * What an isolate knows of the numbers that administrators have put in place of the app's own. The limits of a policy are
 * one array until they change: other memories use it as a key.
 */
export class OverrideMemory {
  #known = new Map<string, Known>();
  #version = -1;
  #answeredAtMs = -Infinity;
  #askedAtMs = -Infinity;

  limits(policy: string, algorithm: LimitAlgorithm): readonly Limit[] | undefined {
    return this.#known.get(policy)?.limits[algorithm];
  }

  isOld(ageMs: number, nowMs: number): boolean {
    return nowMs - this.#answeredAtMs >= ageMs;
  }

  /** Whether it is time to ask; then the caller does so. */
  takeTurn(ageMs: number, nowMs: number): boolean {
    // One at a time, unless what is known is so old that no request may be decided by it.
    const isAsking = nowMs - this.#askedAtMs < ageMs;
    const isTooOld = nowMs - this.#answeredAtMs >= MAX_AGE_FACTOR * ageMs;
    if (!this.isOld(ageMs, nowMs) || (isAsking && !isTooOld)) return false;
    this.#askedAtMs = nowMs;
    return true;
  }

  /** @returns whether anything has changed */
  learn({ version, policies }: OverrideTable, nowMs: number): boolean {
    this.#answeredAtMs = nowMs;
    if (version === this.#version) return false;
    this.#version = version;
    const known = new Map<string, Known>();
    let changed = this.#known.size !== Object.keys(policies).length;
    for (const [policy, windows] of Object.entries(policies)) {
      const text = JSON.stringify(windows);
      const before = this.#known.get(policy);
      if (before?.text !== text) changed = true;
      known.set(policy, before?.text === text ? before : { text, limits: limitsOf(windows) });
    }
    this.#known = known;
    return changed;
  }
}

function limitsOf(windows: readonly OverrideWindow[]): Known['limits'] {
  const made = (algorithm: LimitAlgorithm) =>
    windows.map(({ maxRequests, windowMs }): Limit => ({ algorithm, maxRequests, windowMs }));
  return { 'sliding-window': made('sliding-window'), 'token-bucket': made('token-bucket') };
}

/** What Redis holds; `undefined` when it holds nothing, or something else. */
export function parseOverrides(reply: RedisValue): OverrideTable | undefined {
  if (typeof reply !== 'string') return undefined;
  try {
    const table = JSON.parse(reply) as OverrideTable;
    const windows = Object.values(table.policies).flat();
    const isWhole = (value: number) => Number.isSafeInteger(value) && value > 0;
    const isSound = windows.every(({ maxRequests, windowMs }) => isWhole(maxRequests) && isWhole(windowMs));
    return Number.isSafeInteger(table.version) && isSound ? table : undefined;
  } catch {
    return undefined;
  }
}
