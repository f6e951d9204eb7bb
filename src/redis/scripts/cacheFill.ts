import { defineScript } from '../script';

/**
 * Fills a cache entry only if it has not changed since it was read: compare-and-set on the entry's write id. A delete
 * leaves a tombstone with a new write id, so the fill of a loader that ran before the delete is refused. If there was no
 * entry, and the tombstone has expired, there is no write id to compare: such a fill is refused when it arrives after
 * ARGV[4]. A value that is not an entry of this app (another type, foreign text) counts as none.
 *
 * KEYS[1] entry   ARGV[1] write id seen when reading ('' for none)   ARGV[2] new entry (16-character write id + body)
 * ARGV[3] TTL (ms)   ARGV[4] latest time by the server's clock to fill an absent entry (ms since the epoch; 0: any)
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
