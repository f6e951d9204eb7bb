import { defineScript } from '../script';
import { rateLimitState } from './rateLimitState';

/**
 * Changes the record of one counter without a decision: adds units that were spent elsewhere, or cost more than expected
 * (positive), and removes units given back (negative). Each item is recorded at the time when the units were spent. Items
 * that have already left the window have no effect.
 *
 * An item with an id is applied once: the counter remembers the id. If another call may charge under the same id (a request
 * whose reply was lost), only one of the two is applied. Units given back may name the id of their request. If the counter
 * does not know that id, it gives nothing back, and skips the charge if it arrives late. With `?` behind the id, an unknown
 * request's units are given back from entries that are not later than they: it may be one that the counter no longer
 * remembers, or Redis has lost the counter, and later entries are those of other requests. With 0 units, the request's
 * reservation becomes final.
 *
 * KEYS[1] the counter
 * ARGV[1] the caller's time (ms), for servers that forbid TIME   ARGV[2] number of limits
 * ARGV[3…] for each limit: `s` or `g`, W (ms), L, step (ms); then for each item: time, units, id, the request's
 *          id where units are given back (ids may be empty)   time: the counter's (ms) when positive; else in ms from now
 * -> 1
 */
export const rateLimitRecord = defineScript(`${rateLimitState}
local counter = read(KEYS[1], clock(ARGV[1]))
local now, limits, arg = counter.now, {}, 3
for i = 1, tonumber(ARGV[2]) do
  local limit = limitOf(counter, ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2]))
  limits[i] = {limit = limit, step = tonumber(ARGV[arg + 3])}
  arg = arg + 4
end

local function entriesOf(limit)
  local entries, at, from = {}, limit.first, 1
  if limit.total == 0 then return entries end
  while true do
    local units, gap, after = string.match(limit.log, ENTRY, from)
    if not units then break end
    entries[#entries + 1] = {at = at, units = units == '' and 1 or tonumber(units)}
    at, from = at + gap, after
  end
  entries[#entries + 1] = {at = limit.last, units = limit.units}
  return entries
end

local function rebuild(limit, entries)
  local before = limit.before
  limit.total = 0
  for i, entry in ipairs(entries) do
    if entry.units > 0 then append(limit, entry.units, entry.at)
    elseif before and limit.total == 0 and entries[i + 1] then
      before = math.max(0, before - (entries[i + 1].at - entry.at) * limit.L)
    end
  end
  limit.before = before
end

-- The bucket's present debt if it had been charged with these entries.
local function replay(limit, entries)
  local debt, at = limit.before, entries[1] and math.min(entries[1].at, now) or now
  for _, entry in ipairs(entries) do
    local when = math.min(entry.at, now)
    debt = math.max(0, debt - (when - at) * limit.L) + entry.units * limit.W
    at = when
  end
  return math.max(0, debt - (now - at) * limit.L)
end

local function charge(to, at, units)
  local limit = to.limit
  at = recordedAt(at, to.step)
  if at + limit.W <= now then return end
  to.entries = to.entries or entriesOf(limit)
  local entries = to.entries
  if limit.debt then
    -- The largest debt that the bucket can have had just before, according to its later entries.
    if #entries > 0 and at < entries[1].at then limit.before = limit.before + (entries[1].at - at) * limit.L
    elseif #entries == 0 then limit.before = limit.a == 0 and 0 or debtAt(limit, at) end
  end
  local before = #entries
  while before > 0 and entries[before].at > at do before = before - 1 end
  if before > 0 and entries[before].at == at then entries[before].units = entries[before].units + units
  else table.insert(entries, before + 1, {at = at, units = units}) end
  if limit.debt then
    local debt = debtAt(limit, now)
    owe(limit, math.max(debt, math.min(debt + units * limit.W, replay(limit, entries))), now)
  end
end

local function giveBack(to, at, units, isKnown)
  local limit = to.limit
  at = recordedAt(at, to.step)
  if at + limit.W <= now then return end
  to.entries = to.entries or entriesOf(limit)
  local entries, asked = to.entries, units
  local newest = #entries
  while newest > 0 and entries[newest].at > at do newest = newest - 1 end
  local function take(entry)
    local taken = math.min(entry.units, units)
    entry.units, units = entry.units - taken, units - taken
  end
  -- Take from the newest entry that is not later than the spending. Entries after it come last: they were recorded late,
  -- behind entries ahead of now.
  for i = newest, 1, -1 do take(entries[i]) end
  if isKnown then
    for i = newest + 1, #entries do take(entries[i]) end
  end
  if limit.debt then
    local debt = debtAt(limit, now)
    owe(limit, math.max(0, debt - (asked - units) * limit.W, math.min(debt, replay(limit, entries))), now)
  end
end

local ttl = 1
local function rememberLonger(id)
  remember(counter, id)
  -- Longer than a call can be in flight.
  ttl = 60000
end

-- Returns whether there was a reservation.
local function settleReservation(id)
  local found = false
  counter.reserved = string.gsub(counter.reserved, '([^,:]+):%d+:%d+,', function(of)
    if of == id then
      found = true
      return ''
    end
  end)
  return found
end

for i = arg, #ARGV, 4 do
  local time, units, id, of = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local at = time > 0 and time or now + time
  if units == 0 then settleReservation(id)
  elseif id == '' or not knows(counter, id) then
    if id ~= '' then rememberLonger(id) end
    local mayBeForgotten = string.sub(of, -1) == '?'
    if mayBeForgotten then of = string.sub(of, 1, -2) end
    local isKnown = of == '' or settleReservation(of) or knows(counter, of)
    if not isKnown and not mayBeForgotten then rememberLonger(of)
    else
      for _, to in ipairs(limits) do
        if units > 0 then charge(to, math.min(at, now), units) else giveBack(to, at, -units, isKnown) end
      end
    end
  end
end
for _, to in ipairs(limits) do
  if to.entries then rebuild(to.limit, to.entries) end
end
write(KEYS[1], counter, ttl)
return 1
`);
