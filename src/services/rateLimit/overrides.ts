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

/** How long an isolate waits for what D1 says, or after a read that failed, before it reads again. */
const READ_PAUSE_MS = 1_000;

/**
 * What an isolate knows of the numbers that administrators have put in place of the app's own. The limits of a policy are
 * one array until they change: other memories use it as a key.
 */
export class OverrideMemory {
  #known = new Map<string, Known>();
  #version = -1;
  #answeredAtMs = -Infinity;
  #readAtMs = -Infinity;

  limits(policy: string, algorithm: LimitAlgorithm): readonly Limit[] | undefined {
    return this.#known.get(policy)?.limits[algorithm];
  }

  isOld(ageMs: number, nowMs: number): boolean {
    return nowMs - this.#answeredAtMs >= ageMs;
  }

  /** Whether it is time to read D1; then the caller does so. Not each of many requests, whether D1 replies or not. */
  takeTurn(nowMs: number): boolean {
    const sinceMs = nowMs - this.#readAtMs;
    if (sinceMs >= 0 && sinceMs < READ_PAUSE_MS) return false;
    this.#readAtMs = nowMs;
    return true;
  }

  learn({ version, policies }: OverrideTable, nowMs: number): void {
    this.#answeredAtMs = nowMs;
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
