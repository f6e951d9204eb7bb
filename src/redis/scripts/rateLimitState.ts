/**
 * Lua shared by the limiter's scripts: parses a counter's text into tables, and writes it back.
 *
 * A counter is one string. Its first line is `<time> <ids> <reservations>`: the counter's time in ms, which never goes
 * back; the ids of the last charged requests, {@link ID_LENGTH} characters each; `<id>:<units>:<until ms>,` for each charge
 * that may still be taken back. One line for each limit follows:
 *
 *     s<W> <total> <first> <last> <units> <log>                       sliding window
 *     g<W> <total> <first> <last> <units> <log, as above> after `<a> <debt> <debt at first> <L> `: token bucket
 *
 * `first` and `last` are the times of the oldest and newest entry, `units` the units of the newest. The log holds the other
 * entries, oldest first, each as `<units, if not 1>:<ms until the next entry>,`. Taking from the front and adding to the
 * end leaves the rest unchanged, so a decision costs the same for a short and a long log.
 */
export const rateLimitState = `
-- All isolates share Redis's clock. If a server forbids TIME in scripts, the caller's clock is used.
local function clock(given)
  local time = redis.pcall('TIME')
  if time.err then return tonumber(given) end
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local ENTRY = '^(%d*):(%d+),()'

local function read(key, now)
  -- The ids stay in text, from idsFrom to idsTo: copying them would cost more than the decision.
  local counter = {now = now, text = '', idsFrom = 1, idsTo = 0, newIds = '', reserved = '', limits = {}}
  local text = redis.call('GET', key)
  if not text then return counter end
  local time, idsFrom = string.match(text, '^(%d+) ()')
  if not time then return counter end
  -- Plain searches: a pattern would look at each character of the ids.
  local lineEnd, idsEnd = string.find(text, '\\n', idsFrom, true), string.find(text, ' ', idsFrom, true)
  if not lineEnd or not idsEnd or idsEnd > lineEnd then return counter end
  counter.text, counter.idsFrom, counter.idsTo = text, idsFrom, idsEnd - 1
  counter.reserved = string.sub(text, idsEnd + 1, lineEnd - 1)
  local span, from = 0, lineEnd + 1
  while true do
    local kind, W, total, first, last, units, log =
      string.match(text, '^([sg])(%d+) (%d+) (%d+) (%d+) (%d+) ()', from)
    if not kind then break end
    local limit = {kind = kind, W = tonumber(W), total = tonumber(total), first = tonumber(first),
      last = tonumber(last), units = tonumber(units), added = 0}
    if kind == 'g' then
      local a, debt, before, L
      a, debt, before, L, log = string.match(text, '^(%d+) (%d+) (%d+) (%d+) ()', log)
      limit.a, limit.debt, limit.before, limit.L = tonumber(a), tonumber(debt), tonumber(before), tonumber(L)
    end
    local ends = string.find(text, '\\n', log, true)
    limit.log = string.sub(text, log, ends - 1)
    from = ends + 1
    span = math.max(span, limit.W)
    counter.limits[kind .. W] = limit
  end
  local behind = tonumber(time) - now
  if behind > span then
    -- This clock is far behind the one that wrote. Shift the counter to this clock, and always write it: otherwise the
    -- shift would repeat with each call, and time would never pass for the counter.
    counter.reserved, counter.rebased = '', true
    for _, limit in pairs(counter.limits) do
      limit.first, limit.last = limit.first - behind, limit.last - behind
      if limit.a and limit.a > 0 then limit.a = limit.a - behind end
    end
  elseif behind > 0 then
    -- This clock is a little behind. The counter's time stands still until the clock has caught up.
    counter.now = tonumber(time)
  end
  return counter
end

-- Drops entries that have left the window.
local function prune(limit, now)
  local due = now - limit.W
  if limit.total == 0 then return end
  if limit.last <= due then
    limit.total, limit.log = 0, ''
    return
  end
  local from = 1
  while limit.first <= due do
    local units, gap, after = string.match(limit.log, ENTRY, from)
    units = units == '' and 1 or tonumber(units)
    limit.total, limit.first, from = limit.total - units, limit.first + gap, after
    if limit.before then limit.before = math.max(0, limit.before + units * limit.W - gap * limit.L) end
  end
  if from > 1 then limit.log = string.sub(limit.log, from) end
end

-- The limit of this kind and window, with its present state.
local function limitOf(counter, kind, W, L)
  local limit = counter.limits[kind .. W]
  if not limit then
    limit = {kind = kind, W = tonumber(W), total = 0, first = 0, last = 0, units = 0, log = '', added = 0}
    if kind == 'g' then limit.a, limit.debt, limit.before = 0, 0, 0 end
    counter.limits[kind .. W] = limit
  end
  if kind == 'g' then limit.L = L end
  prune(limit, counter.now)
  return limit
end

-- A bucket's debt at a time that is not before its last charge.
local function debtAt(limit, at)
  return math.max(0, limit.debt - (at - limit.a) * limit.L)
end

-- A debt of centuries is cut off: larger numbers are not exact, and Redis takes no such TTL.
local function owe(limit, debt, now)
  limit.a, limit.debt = now, math.min(debt, 9007199254740991)
end

-- Sub-windows: an entry is recorded at the end of its sub-window.
local function recordedAt(at, step)
  return math.ceil(at / step) * step
end

local function append(limit, units, at)
  if limit.total == 0 then
    limit.first, limit.last, limit.units, limit.log = at, at, units, ''
  elseif at <= limit.last then
    limit.units = limit.units + units
  else
    local count = limit.units == 1 and '' or string.format('%.0f', limit.units)
    limit.log = limit.log .. count .. ':' .. string.format('%.0f', at - limit.last) .. ','
    limit.last, limit.units = at, units
  end
  limit.total = limit.total + units
end

-- Whether one of the ids from first to last is this one.
local function holds(text, first, last, id)
  local from = first
  while true do
    local at = string.find(text, id, from, true)
    if not at or at > last then return false end
    if (at - first) % 6 == 0 then return true end
    from = at + 1
  end
end

-- Whether a request with this id was charged here.
local function knows(counter, id)
  return holds(counter.text, counter.idsFrom, counter.idsTo, id) or holds(counter.newIds, 1, #counter.newIds, id)
end

local function remember(counter, id)
  counter.newIds = counter.newIds .. id
end

-- Units of other requests that may still be taken back.
local function takenBack(counter)
  local sum = 0
  for units, till in string.gmatch(counter.reserved, ':(%d+):(%d+),') do
    if tonumber(till) > counter.now then sum = sum + units end
  end
  return sum
end

local function resetMs(limit, now)
  if limit.kind == 'g' then return math.ceil(debtAt(limit, now) / limit.L) end
  return limit.total == 0 and 0 or limit.last + limit.W - now
end

local function write(key, counter, atLeastMs)
  local parts, ttl, most = {string.format('%.0f ', counter.now), '', counter.newIds, ' ', counter.reserved, '\\n'}, atLeastMs, 0
  for name, limit in pairs(counter.limits) do
    local left = limit.total > 0 and limit.last + limit.W - counter.now or 0
    if limit.kind == 'g' then left = math.max(left, resetMs(limit, counter.now)) end
    -- Keep the counts of other limiters with this name until they have expired.
    if left > 0 then
      ttl, most = math.max(ttl, left), math.max(most, limit.total)
      local at = #parts
      parts[at + 1] = name
      parts[at + 2] = string.format(' %.0f %.0f %.0f %.0f ', limit.total, limit.first, limit.last, limit.units)
      parts[at + 3] = limit.kind == 'g'
        and string.format('%.0f %.0f %.0f %.0f ', limit.a, limit.debt, limit.before, limit.L) or ''
      parts[at + 4], parts[at + 5] = limit.log, '\\n'
    end
  end
  -- Keep the ids of all requests whose units count, and some more for requests that were settled lately.
  local keep = 6 * math.min(128, most + 32) - #counter.newIds
  parts[2] = string.sub(counter.text, math.max(counter.idsFrom, counter.idsTo + 1 - keep), counter.idsTo)
  redis.call('SET', key, table.concat(parts), 'PX', ttl)
end
`;

/** Characters of a request's id. */
export const ID_LENGTH = 6;
