import type { RedisValue } from '../redis/client';

/**
 * The forms of values that the app's scripts write to Redis. A reply in another form counts as no reply: it neither allows
 * nor denies, and is not remembered.
 */

/** Versions and generations count from 1. */
const VERSION = /^[1-9]\d{0,15}$/;
/** Milliseconds since the epoch. */
const TIME_MS = /^[1-9]\d{12,15}$/;

export const isVersion = (value: RedisValue | undefined): value is string =>
  typeof value === 'string' && VERSION.test(value);

export const isTimeMs = (value: RedisValue | undefined): value is string =>
  typeof value === 'string' && TIME_MS.test(value);

export const isCount = (value: RedisValue | undefined): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0;

/** Accepts null as well, for fields that may be missing. */
export const orNull =
  <T extends RedisValue>(is: (value: RedisValue | undefined) => value is T) =>
  (value: RedisValue | undefined): value is T | null =>
    value === null || is(value);
