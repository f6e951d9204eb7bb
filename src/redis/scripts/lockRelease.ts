import { defineScript } from '../script';

/**
 * Releases a lock if this holder has it, and records that the holder has left. An acquisition that this holder no longer
 * waits for may still be in flight, and must not take the lock.
 *
 * KEYS[1] lock   KEYS[2] string, of this holder: it has left   ARGV[1] holder   ARGV[2] how long to refuse late calls (ms)
 * -> 1 freed, 0 it was not this holder's (any more)
 */
export const lockRelease = defineScript(`
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%S+') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
`);
