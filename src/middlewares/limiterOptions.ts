import { AppError } from '../errors';
import { assertUnits } from '../services/rateLimit/limits';
import { identityList } from '../util/identity';
import type { IdentityList } from '../util/identity';

interface Numbers {
  windowMs: number;
  maxRequests: number;
}

/** @throws {AppError} unless the limiter can count with these numbers exactly */
export function assertLimit<T extends Numbers>(numbers: T): T {
  const { maxRequests, windowMs } = numbers;
  const whole = Number.isInteger(maxRequests) && maxRequests >= 1 && Number.isInteger(windowMs) && windowMs >= 1;
  // The arithmetic is exact as long as its products are, and a header's integers have 15 digits (RFC 9651).
  if (!whole || maxRequests >= 1e15 || maxRequests * windowMs > Number.MAX_SAFE_INTEGER / 4) {
    throw wrong('rateLimiter() needs positive integers: maxRequests, windowMs.');
  }
  return numbers;
}

/** @throws {AppError} */
export function assertWindows<T extends Numbers>(windows: readonly T[]): readonly T[] {
  if (windows.length === 0) throw wrong('rateLimiter() needs at least one window.');
  for (const window of windows) assertLimit(window);
  if (new Set(windows.map(({ windowMs }) => windowMs)).size < windows.length) {
    throw wrong('rateLimiter(): two windows of one length.');
  }
  return windows;
}

/** Identities in any spelling. @throws {AppError} for an entry that can match nothing */
export function listOf(option: 'allow' | 'deny', entries: readonly string[] | undefined): IdentityList {
  try {
    return identityList(entries);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw wrong(`rateLimiter(): ${option} has an entry that can match no identity: ${error.message}.`);
  }
}

/** A cost or a charge. @throws {AppError} unless it is a whole number that can be counted, and not negative */
export function unitsOf(units: number, what: 'cost' | 'charge'): number {
  try {
    return assertUnits(units, `rateLimiter(): ${what}`);
  } catch (error) {
    throw wrong(`${(error as RangeError).message}.`);
  }
}

function wrong(detail: string): AppError {
  return new AppError('CONFIG_INVALID', { detail });
}
