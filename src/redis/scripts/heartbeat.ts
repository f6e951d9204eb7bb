import { defineScript } from '../script';

/**
 * Reads a heartbeat and raises it, unless Redis has gone back in time. A heartbeat below the one that the database knows
 * stays as it is, so that every reader sees the loss until it is repaired.
 *
 * KEYS[1] the heartbeat
 * ARGV[1] the heartbeat that Redis must hold   ARGV[2] the new heartbeat   ARGV[3] TTL (ms)
 * -> the heartbeat found, -1 for none
 */
export const heartbeat = defineScript(`
local found = tonumber(redis.call('GET', KEYS[1]) or '-1')
if found < tonumber(ARGV[1]) then return found end
if found < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return found
`);
