import { defineScript } from '../script';

/**
 * Fills a cache entry only if nothing has changed since it was read: compare-and-set on the entry's write id. A delete
 * leaves a tombstone with a fresh write id, so the fill of a loader that ran before it is refused. Where there was no
 * entry there is nothing to compare once the tombstone has gone: such a fill is refused by the clock, however long it
 * was on its way. What is not an entry of ours (another type, foreign text) counts as none.
 *
 * KEYS[1] entry   ARGV[1] write id seen when reading ('' for none)   ARGV[2] new entry (16-character write id + body)
 * ARGV[3] TTL (ms)   ARGV[4] latest time by the server's clock to fill where there is none (ms since the epoch; 0: any)
 * -> the server's time (ms since the epoch), negative when refused
 */
export const cacheFill = defineScript(`
local time = redis.pcall('TIME')
local now = 1
if time[1] then now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) end
local seen = redis.pcall('GETRANGE', KEYS[1], 0, 16)
if type(seen) == 'string' and #seen == 17 and string.match(seen, '^[%w_-]+[T%[]$') then
  seen = string.sub(seen, 1, 16)
else
  seen = ''
end
local latest = tonumber(ARGV[4])
if seen ~= ARGV[1] or (seen == '' and latest > 0 and now >= latest) then return -now end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return now
`);
