import { defineScript } from '../script';

/**
 * Extends a lease that has not ended. An ended lease is not renewed, even if no other holder took the lock since: its
 * holder can no longer rely on it.
 *
 * KEYS[1] lock   ARGV[1] holder   ARGV[2] lease from now on (ms); a longer remaining lease stays
 * -> 1 extended, 0 lost
 */
export const lockExtend = defineScript(`
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%S+') ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
`);
