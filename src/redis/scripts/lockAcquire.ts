import { defineScript } from '../script';

/**
 * Takes a lock for a limited time, with a fencing token that only grows. Idempotent: a holder that asks again (its reply
 * was lost) gets the same fence, and a lease that starts now. A lease is never shortened: otherwise a late copy of the
 * first call would undo an extension.
 *
 * The fence is at least the server's clock in microseconds, so it grows even after a loss of the data. A lock is not taken
 * more often than once per microsecond, so the fence is ahead of the clock only if the clock was set back. The fence's key
 * lives until the clock has passed the fence by ARGV[3]. Later fences are larger by the clock alone, unless the clock goes
 * back by more than ARGV[3] in one step.
 *
 * KEYS[1] lock, string: `<holder> <fence>`   KEYS[2] hash: fence (the last one)   KEYS[3] exists once this holder has left
 * ARGV[1] holder   ARGV[2] lease (ms)   ARGV[3] how far back the server's clock may be set (ms)
 * -> {1, fence}, or {0, remaining lease (ms)} while another holds it; {0, 0}: this holder has already left; the call came too late
 */
export const lockAcquire = defineScript(`
local held = redis.call('GET', KEYS[1])
if held then
  local holder, fence = string.match(held, '^(%S+) (%d+)$')
  local left = redis.call('PTTL', KEYS[1])
  if holder ~= ARGV[1] then return {0, left} end
  if left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return {1, tonumber(fence)}
end
if redis.call('EXISTS', KEYS[3]) == 1 then return {0, 0} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local fence = math.max(tonumber(redis.call('HGET', KEYS[2], 'fence') or '0') + 1, now)
local text = string.format('%.0f', fence)
redis.call('HSET', KEYS[2], 'fence', text)
redis.call('PEXPIRE', KEYS[2], math.ceil((fence - now) / 1000) + tonumber(ARGV[3]))
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. text, 'PX', ARGV[2])
return {1, fence}
`);
