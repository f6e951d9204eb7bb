import { defineScript } from '../script';

/**
 * Writes a value for a lock's holder, unless a later holder has already written. A holder that was suspended past its lease
 * cannot overwrite the later holder's value.
 *
 * KEYS[1] hash: fence, value   ARGV[1] fence of the lock   ARGV[2] value   ARGV[3] TTL (ms)
 * -> 1 written, 0 refused
 */
export const fencedWrite = defineScript(`
local fence = redis.call('HGET', KEYS[1], 'fence')
if fence and tonumber(fence) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'value', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`);
