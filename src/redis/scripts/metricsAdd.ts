import { defineScript } from '../script';

/** The most series in the totals. Values of further series are counted as left out. */
export const MAX_SERIES = 2_000;

/**
 * Adds the counts of an isolate's lot to the totals and to two time series, exactly once, even if the lot arrives
 * repeatedly. A whole hash of numbers is read or written with one command.
 *
 * The totals are a hash: a series' name -> JSON `[number of the series, value, …]`; `i:<isolate>` -> `<last number> <time
 * (ms)>`; `g:<gauge>` -> its value; `#` -> the number of series; `!` -> values left out. A field of a time series is a step
 * -> JSON `{number of the series: [value, …]}`.
 *
 * KEYS[1] totals   KEYS[2] steps of 10 s   KEYS[3] steps of a minute
 * ARGV[1] isolate   ARGV[2] the lot's number   ARGV[3] time (ms)   ARGV[4], ARGV[5] the step in KEYS[2], KEYS[3]
 * ARGV[6] TTL of KEYS[1], ARGV[7] of KEYS[2], ARGV[8] of KEYS[3] (ms)   ARGV[9] how long to remember an isolate (ms)
 * ARGV[10] limit of series   ARGV[11] JSON {name: [value, …]}   then name and value of each gauge
 * -> 1 added, 0 it was already added
 */
export const metricsAdd = defineScript(`
local fields = {'i:' .. ARGV[1], '#', '!'}
local counts = cjson.decode(ARGV[11])
local names = {}
for name in pairs(counts) do
  names[#names + 1] = name
  fields[#fields + 1] = name
end
local found = redis.call('HMGET', KEYS[1], unpack(fields))
if found[1] and tonumber(ARGV[2]) <= tonumber(string.match(found[1], '^%d+')) then return 0 end
local known, left_out = tonumber(found[2] or '0'), tonumber(found[3] or '0')

local function add(to, values, from)
  for at = 1, #values do to[at + from] = (to[at + from] or 0) + values[at] end
  return to
end

local ids = {}
local written = {'i:' .. ARGV[1], ARGV[2] .. ' ' .. ARGV[3]}
for at = 1, #names do
  local values, text = counts[names[at]], found[at + 3]
  local total
  if text then
    total = cjson.decode(text)
  elseif known < tonumber(ARGV[10]) then
    known = known + 1
    total = {known}
  end
  if total then
    ids[tostring(total[1])] = values
    written[#written + 1] = names[at]
    written[#written + 1] = cjson.encode(add(total, values, 1))
  else
    left_out = left_out + 1
  end
end
written[#written + 1] = '#'
written[#written + 1] = tostring(known)
if left_out > 0 then
  written[#written + 1] = '!'
  written[#written + 1] = tostring(left_out)
end
for at = 12, #ARGV, 2 do
  written[#written + 1] = 'g:' .. ARGV[at]
  written[#written + 1] = ARGV[at + 1]
end
redis.call('HSET', KEYS[1], unpack(written))

local function add_step(key, step, ttl)
  local text = redis.call('HGET', key, step)
  local sums = text and cjson.decode(text) or {}
  for id, values in pairs(ids) do sums[id] = add(sums[id] or {}, values, 0) end
  if next(sums) then redis.call('HSET', key, step, cjson.encode(sums)) end
  if not text then redis.call('PEXPIRE', key, ttl) end
  return not text
end
add_step(KEYS[2], ARGV[4], ARGV[7])
if add_step(KEYS[3], ARGV[5], ARGV[8]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  -- Once an hour, forget isolates that ended long ago.
  if redis.call('HLEN', KEYS[3]) == 1 then
    local all, ended = redis.call('HGETALL', KEYS[1]), {}
    for at = 1, #all, 2 do
      local time = string.sub(all[at], 1, 2) == 'i:' and string.match(all[at + 1], '%d+$')
      if time and tonumber(time) < tonumber(ARGV[3]) - tonumber(ARGV[9]) then ended[#ended + 1] = all[at] end
    end
    for at = 1, #ended, 1000 do
      redis.call('HDEL', KEYS[1], unpack(ended, at, math.min(at + 999, #ended)))
    end
  end
end
return 1
`);
