import { defineScript } from '../script';

/**
 * Frees a lock if this holder has it, and notes that the holder has left: a call of its own that is still on its way
 * (the holder stopped waiting for it) must not take the lock for nobody.
 *
 * KEYS[1] lock   KEYS[2] hash of its fence   ARGV[1] holder   ARGV[2] for how long late calls are refused (ms)
 * -> 1 freed, 0 it was not this holder's (any more)
 */
export const lockRelease = defineScript(`
redis.call('HSET', KEYS[2], 'over', ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%S+') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
`);
