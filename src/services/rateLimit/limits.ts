import { AppError } from '../../errors';
import type { Argument } from '../../redis/client';

/** What needs no escaping in a structured field (RFC 9651), a Redis key or a metric's label. */
const POLICY_NAME = /^[A-Za-z0-9._-]{1,100}$/;

/** @throws {AppError} `CONFIG_INVALID` */
export function assertPolicyName(name: string): void {
  if (POLICY_NAME.test(name)) return;
  const detail = `A limit's name has 1 to 100 letters, digits, ".", "_" and "-", unlike ${JSON.stringify(name)}.`;
  throw new AppError('CONFIG_INVALID', { detail });
}

/**
 * `sliding-window`: at most `maxRequests` in any window, wherever it starts. `token-bucket` (GCRA): a burst of
 * `maxRequests`, then an even flow of as many a window.
 */
export type LimitAlgorithm = 'sliding-window' | 'token-bucket';

/** At most `maxRequests` units in `windowMs`. Both positive integers, their product exact. */
export interface Limit {
  algorithm: LimitAlgorithm;
  maxRequests: number;
  windowMs: number;
}

/**
 * Named limits. Two limiters of one name and identity share a counter; several limits of one policy are decided together:
 * a request that one of them rejects consumes nothing of any.
 */
export interface RateLimitPolicy {
  /** Appears in keys, headers and metrics. */
  name: string;
  limits: readonly Limit[];
}

/** What a limiter says of one of its limits. */
export interface LimitVerdict {
  admitted: boolean;
  /** Units that are left, after the request where it was charged. */
  remaining: number;
  /** When all of them are available again, in milliseconds from now. */
  resetMs: number;
  /** The shortest wait after which the request is admitted if nothing else consumes: 0 now, `Infinity` never. */
  waitMs: number;
}

/** Up to this many units a limit's log holds each request's own time. */
export const EXACT_UP_TO = 100;

/**
 * Above, a unit counts as spent at the end of its sub-window, of which a window has this many: what the log holds stays
 * small, and at most 1/100 of the limit is refused too early.
 */
export const SUB_WINDOWS = 100;

/** Times in a limit's log are rounded up to multiples of this. */
export function stepMs({ maxRequests, windowMs }: Limit): number {
  return maxRequests <= EXACT_UP_TO ? 1 : Math.ceil(windowMs / SUB_WINDOWS);
}

/** When a unit that is spent at `atMs` counts as spent. */
export function recordedAtMs(limit: Limit, atMs: number): number {
  const step = stepMs(limit);
  return Math.ceil(atMs / step) * step;
}

const scriptArguments = new WeakMap<readonly Limit[], Argument[]>();

/** Limits as the scripts take them, after their number. */
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

/** A limit as policies hold it. */
export function slidingWindow(maxRequests: number, windowMs: number): Limit {
  return { algorithm: 'sliding-window', maxRequests, windowMs };
}

/** The name of one limit of a policy, as headers and refusals show it: `api`, or `api-10s` where there are several. */
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

/** More than this in one call is a mistake, and would make sums inexact. */
const MAX_UNITS = 1_000_000_000;

/** @throws {RangeError} unless it is a whole number that a counter can hold, and not negative */
export function assertUnits(units: number, what: string): number {
  if (!Number.isInteger(units) || units < 0 || units > MAX_UNITS) {
    throw new RangeError(`${what} must be a whole number from 0 to ${MAX_UNITS}, not ${String(units)}`);
  }
  return units;
}
