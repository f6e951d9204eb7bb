import { defineScript } from '../script';
import { blacklistPrune } from './blacklistPrune';

/**
 * Ends a session: denies it, and leaves a dead record until its absolute end, so that it cannot be restored.
 *
 * KEYS[1] session hash   KEYS[2] blacklist hash of its user
 * ARGV[1] sid   ARGV[2] reason   ARGV[3] time to its absolute end (ms)   ARGV[4] its absolute end (ms since the epoch)
 * ARGV[5] TTL of the blacklist (ms)
 * -> 1
 */
export const sessionEnd = defineScript(`
redis.call('HSET', KEYS[2], 's:' .. ARGV[1], ARGV[4])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
local ttl = math.max(tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'dead', ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.max(ttl, 1))
${blacklistPrune('KEYS[2]')}
return 1
`);
