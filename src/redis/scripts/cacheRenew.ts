import { defineScript } from '../script';

/**
 * Renews the whole TTL of a tag version that is in use.
 *
 * KEYS[1] tag version   ARGV[1] TTL (ms), never shorter than its remaining TTL
 * -> 1, or 0 when it is gone
 */
export const cacheRenew = defineScript(`return redis.call('PEXPIRE', KEYS[1], ARGV[1])`);
