import type { Config } from '../config/env';
import { TOO_LARGE, isCountable, limit } from '../config/fields';
import type { LimitSettings } from '../config/fields';
import { AppError } from '../errors';
import { assertUnits } from '../services/rateLimit/limits';
import { identityList } from '../util/identity';
import type { IdentityList } from '../util/identity';

interface Numbers {
  windowMs: number;
  maxRequests: number;
}

/**
 * The numbers of a limiter from a setting of your own, a variable such as `LIMIT_QUOTES = "10/1m"`.
 *
 * @example
 * rateLimiter({ name: 'quotes', ...limitFrom('LIMIT_QUOTES', '10/1m') })
 *
 * @param fallback where the setting is missing
 * @throws {AppError} `CONFIG_INVALID`, here for a wrong fallback, and in each request of the limiter for a wrong setting
 */
export function limitFrom(setting: `LIMIT_${string}`, fallback: string) {
  const field = limit(fallback);
  const parse = (value: unknown): LimitSettings => {
    const { data, error } = field.safeParse(value);
    if (data === undefined) throw wrong(`Configuration wrong: ${setting} (${error?.issues[0]?.message})`);
    return data;
  };
  parse(fallback);
  return { limit: (_: Config['limits'], { ownLimits }: Config) => parse(ownLimits[setting]) };
}

/** @throws {AppError} unless the limiter can count with these numbers exactly */
export function assertLimit<T extends Numbers>(numbers: T, name = 'a limiter without a name'): T {
  const { maxRequests, windowMs } = numbers;
  const whole = Number.isInteger(maxRequests) && maxRequests >= 1 && Number.isInteger(windowMs) && windowMs >= 1;
  const given = `${name} has maxRequests ${maxRequests}, windowMs ${windowMs}`;
  if (!whole) throw wrong(`rateLimiter() needs positive integers; ${given}.`);
  // A header's integers have 15 digits (RFC 9651).
  if (maxRequests >= 1e15) throw wrong(`rateLimiter() needs maxRequests below 10^15; ${given}.`);
  if (!isCountable(numbers)) throw wrong(`rateLimiter(): ${given}, which ${TOO_LARGE}.`);
  return numbers;
}

/** @throws {AppError} */
export function assertWindows<T extends Numbers>(windows: readonly T[], name?: string): readonly T[] {
  if (windows.length === 0) throw wrong('rateLimiter() needs at least one window.');
  for (const window of windows) assertLimit(window, name);
  if (new Set(windows.map(({ windowMs }) => windowMs)).size < windows.length) {
    throw wrong('rateLimiter(): two windows of one length.');
  }
  return windows;
}

/** Identities in any spelling. @throws {AppError} for an entry that can match no client */
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
