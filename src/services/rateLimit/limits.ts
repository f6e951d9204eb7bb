import { AppError } from '../../errors';
import type { Argument } from '../../redis/client';

/** Characters that need no escaping in a structured field (RFC 9651), a Redis key or a metric's label. */
const POLICY_NAME = /^[A-Za-z0-9._-]{1,100}$/;

/** @throws {AppError} `CONFIG_INVALID` */
export function assertPolicyName(name: string): void {
  if (POLICY_NAME.test(name)) return;
  const detail = `A limit's name has 1 to 100 letters, digits, ".", "_" and "-", unlike ${JSON.stringify(name)}.`;
  throw new AppError('CONFIG_INVALID', { detail });
}

/**
 * `sliding-window`: at most `maxRequests` in any window, wherever it starts. `token-bucket` (GCRA): a burst of
 * `maxRequests`, then a steady rate of the same number per window.
 */
export type LimitAlgorithm = 'sliding-window' | 'token-bucket';

/** At most `maxRequests` units in `windowMs`. Both positive integers, their product exact. */
export interface Limit {
  algorithm: LimitAlgorithm;
  maxRequests: number;
  windowMs: number;
}

/**
 * Named limits. Limiters with the same name and identity share a counter. Several limits of one policy are decided
 * together: a request that one of them refuses consumes no units of any.
 */
export interface RateLimitPolicy {
  /** Appears in keys, headers and metrics. */
  name: string;
  limits: readonly Limit[];
}

/** The verdict of one limit. */
export interface LimitVerdict {
  admitted: boolean;
  /** The remaining units, after the request if it was charged. */
  remaining: number;
  /** When all units are available again, in milliseconds from now. */
  resetMs: number;
  /** The shortest wait after which the request is admitted if nothing else consumes: 0 now, `Infinity` never. */
  waitMs: number;
}

/** Limits of at most this many units log the exact time of each request. */
export const EXACT_UP_TO = 100;

/**
 * Larger limits count a unit as spent at the end of its sub-window; a window has this many sub-windows. This keeps the log
 * small, and refuses at most 1/100 of the limit too early.
 */
export const SUB_WINDOWS = 100;

/** Times in a limit's log are rounded up to multiples of this. */
export function stepMs({ maxRequests, windowMs }: Limit): number {
  return maxRequests <= EXACT_UP_TO ? 1 : Math.ceil(windowMs / SUB_WINDOWS);
}

/** The recorded time of a unit spent at `atMs`. */
export function recordedAtMs(limit: Limit, atMs: number): number {
  const step = stepMs(limit);
  return Math.ceil(atMs / step) * step;
}

/** Whether both are the same limits, in the same order. */
export function areSame(a: readonly Limit[], b: readonly Limit[]): boolean {
  if (a === b) return true;
  return (
    a.length === b.length &&
    a.every((limit, index) => {
      const other = b[index]!;
      return (
        limit.algorithm === other.algorithm &&
        limit.maxRequests === other.maxRequests &&
        limit.windowMs === other.windowMs
      );
    })
  );
}

const scriptArguments = new WeakMap<readonly Limit[], Argument[]>();

/** The limits as arguments of the scripts, after their number. */
export function argumentsOf(limits: readonly Limit[]): Argument[] {
  let args = scriptArguments.get(limits);
  if (args === undefined) {
    args = [limits.length];
    for (const limit of limits) {
      args.push(limit.algorithm === 'token-bucket' ? 'g' : 's', limit.windowMs, limit.maxRequests, stepMs(limit));
    }
    scriptArguments.set(limits, args);
  }
  return args;
}

/** A sliding window for a policy's `limits`. */
export function slidingWindow(maxRequests: number, windowMs: number): Limit {
  return { algorithm: 'sliding-window', maxRequests, windowMs };
}

/** The name of one limit of a policy in headers and refusals: `api`, or `api-10s` if the policy has several. */
export function limitName({ name, limits }: RateLimitPolicy, limit: Limit): string {
  return limits.length === 1 ? name : `${name}-${windowLabel(limit.windowMs)}`;
}

function windowLabel(windowMs: number): string {
  for (const [unit, ms] of [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1_000],
  ] as const) {
    if (windowMs % ms === 0) return `${windowMs / ms}${unit}`;
  }
  return `${windowMs}ms`;
}

/** A larger number in one call is a mistake, and would make sums inexact. */
const MAX_UNITS = 1_000_000_000;

/** @throws {RangeError} unless it is a whole number that a counter can hold, and not negative */
export function assertUnits(units: number, what: string): number {
  if (!Number.isInteger(units) || units < 0 || units > MAX_UNITS) {
    throw new RangeError(`${what} must be a whole number from 0 to ${MAX_UNITS}, not ${String(units)}`);
  }
  return units;
}
