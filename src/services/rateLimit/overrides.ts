import type { RedisValue } from '../../redis/client';
import type { Limit, LimitAlgorithm } from './limits';

/** The limit of one window, set by an administrator. */
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

/** An isolate reads D1 at most once in this time, even if a read is slow or has failed. */
const READ_PAUSE_MS = 1_000;

/**
 * An isolate's memory of the limits that administrators have set in place of the app's own. A policy's limits stay the same
 * array until they change: other memories use it as a key.
 */
export class OverrideMemory {
  #known = new Map<string, Known>();
  #version = -1;
  #repliedAtMs = -Infinity;
  #readAtMs = -Infinity;

  limits(policy: string, algorithm: LimitAlgorithm): readonly Limit[] | undefined {
    return this.#known.get(policy)?.limits[algorithm];
  }

  isOld(ageMs: number, nowMs: number): boolean {
    return nowMs - this.#repliedAtMs >= ageMs;
  }

  /** Whether the caller should read D1 now: `true` for only one of many requests, whether D1 replies or not. */
  takeTurn(nowMs: number): boolean {
    const sinceMs = nowMs - this.#readAtMs;
    if (sinceMs >= 0 && sinceMs < READ_PAUSE_MS) return false;
    this.#readAtMs = nowMs;
    return true;
  }

  learn({ version, policies }: OverrideTable, nowMs: number): void {
    this.#repliedAtMs = nowMs;
    if (version === this.#version) return;
    this.#version = version;
    const known = new Map<string, Known>();
    for (const [policy, windows] of Object.entries(policies)) {
      const text = JSON.stringify(windows);
      const before = this.#known.get(policy);
      known.set(policy, before?.text === text ? before : { text, limits: limitsOf(windows) });
    }
    this.#known = known;
  }
}

function limitsOf(windows: readonly OverrideWindow[]): Known['limits'] {
  const made = (algorithm: LimitAlgorithm) =>
    windows.map(({ maxRequests, windowMs }): Limit => ({ algorithm, maxRequests, windowMs }));
  return { 'sliding-window': made('sliding-window'), 'token-bucket': made('token-bucket') };
}

/** Parses Redis's copy; `undefined` if it is missing or invalid. */
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
