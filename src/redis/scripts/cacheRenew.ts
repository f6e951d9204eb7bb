import { defineScript } from '../script';

/**
 * Gives a tag version that is in use its whole life again.
 *
 * KEYS[1] tag version   ARGV[1] TTL (ms), never shorter than what it has left
 * -> 1, or 0 when it is gone
 */
export const cacheRenew = defineScript(`return redis.call('PEXPIRE', KEYS[1], ARGV[1])`);
