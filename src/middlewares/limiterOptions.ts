import { AppError } from '../errors';
import { assertUnits } from '../services/rateLimit/limits';

interface Numbers {
  windowMs: number;
  maxRequests: number;
}

/** @throws {AppError} unless the limiter can count with these numbers exactly */
export function assertLimit<T extends Numbers>(numbers: T): T {
  const { maxRequests, windowMs } = numbers;
  const whole = Number.isInteger(maxRequests) && maxRequests >= 1 && Number.isInteger(windowMs) && windowMs >= 1;
  // The arithmetic is exact as long as its products are.
  if (!whole || maxRequests * windowMs > Number.MAX_SAFE_INTEGER / 4) {
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

/** A name becomes a part of keys and headers. @throws {AppError} */
export function assertName(name: string): void {
  if (!/^[\x20-\x7e]{1,256}$/.test(name) || /["\\{}]/.test(name)) {
    throw wrong(
      'rateLimiter(): a name is 1 to 256 printable ASCII characters, without quotes, backslashes and braces.',
    );
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
