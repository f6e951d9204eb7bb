import { defineScript } from '../script';
import { rateLimitState } from './rateLimitState';

/**
 * Decides a request under several limits of one or more counters at once, all or nothing. If every limit admits it, all of
 * them are charged; otherwise none is. A counter that remembers the request's id does not charge it again, so the call may
 * be repeated.
 *
 * Sliding window (`s`): admits a request if its units and those recorded later than W ago are at most L. Token bucket (`g`,
 * the generic cell rate algorithm of ITU-T I.371): a debt in units of 1/L ms, paid off by time; admits a request if debt +
 * n·W <= W·L. Exact integer arithmetic throughout.
 *
 * KEYS the key of each counter; a key may occur more than once
 * ARGV[1] the caller's time (ms), for servers that forbid TIME   ARGV[2] the request's id
 * ARGV[3] how long the charge may be taken back (ms): until then no other request is refused because of it; 0: it is final
 * ARGV[4…] for each key: n, ms ahead of now at which it is recorded (the end of a lease), number of limits, and for each
 *          limit: `s` or `g`, W (ms), L, step (ms): times are rounded up to its multiples
 * -> {0 refused | 1 admitted | 2 undecided: depends on charges that may be taken back,
 *     then for each key: the counter's time (ms), and for each limit: 0 | 1 | 2, units left, ms until all are, ms to wait
 *     (-1: never)}
 */
export const rateLimit = defineScript(`${rateLimitState}
local now = clock(ARGV[1])
local id, reserveMs, arg = ARGV[2], tonumber(ARGV[3]), 4
local counters, charges, verdict = {}, {}, 1

-- Milliseconds until this many units have left the window.
local function waitFor(limit, units, now)
  local at, from = limit.first, 1
  while true do
    local count, gap, after = string.match(limit.log, ENTRY, from)
    if not count then return limit.last + limit.W - now end
    units = units - (count == '' and 1 or count)
    if units <= 0 then return at + limit.W - now end
    at, from = at + gap, after
  end
end

for k, key in ipairs(KEYS) do
  local counter = counters[key]
  if not counter then
    counter = read(key, now)
    counter.known = knows(counter, id)
    counters[key] = counter
  end
  local n, ahead, count = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local back = counter.reserved == '' and 0 or takenBack(counter)
  if n > 0 then counter.units = (counter.units or 0) + n end
  arg = arg + 3
  for _ = 1, count do
    local kind, W, L = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
    local limit = limitOf(counter, kind, W, L)
    local charge = {k = k, counter = counter, limit = limit, n = n, L = L, fits = 1, wait = 0}
    local debt = kind == 'g' and debtAt(limit, counter.now)
    charge.at = recordedAt(counter.now + ahead, tonumber(ARGV[arg + 3]))
    if not counter.known then
      local over
      if kind == 's' then over = limit.total + limit.added + n - L
      else over = math.ceil((debt + (limit.added + n - L) * limit.W) / limit.W) end
      if limit.added + n > L then charge.fits, charge.wait = 0, -1
      elseif over > 0 then
        charge.fits = over <= back and 2 or 0
        if charge.fits == 2 then charge.wait = 0
        elseif kind == 's' then charge.wait = waitFor(limit, over - back, counter.now)
        else charge.wait = math.ceil((debt + (limit.added + n - L - back) * limit.W) / L) end
      end
      if charge.fits == 0 then verdict = 0 elseif charge.fits == 2 and verdict == 1 then verdict = 2 end
      limit.added = limit.added + n
    end
    charges[#charges + 1] = charge
    arg = arg + 4
  end
end

if verdict == 1 then
  for _, charge in ipairs(charges) do
    if charge.n > 0 and not charge.counter.known then
      local limit, time = charge.limit, charge.counter.now
      if limit.debt then
        if limit.total == 0 then limit.before = debtAt(limit, time) end
        owe(limit, debtAt(limit, time) + charge.n * limit.W, time)
      end
      append(limit, charge.n, charge.at)
    end
  end
  for key, counter in pairs(counters) do
    if counter.units and not counter.known then
      remember(counter, id)
      if reserveMs > 0 then
        -- Charges that can no longer be taken back are final: drop them from this list.
        counter.reserved = string.gsub(counter.reserved, '[^,]-:(%d+),', function(till)
          if tonumber(till) <= counter.now then return '' end
        end) .. string.format('%s:%.0f:%.0f,', id, counter.units, counter.now + reserveMs)
      end
      write(key, counter, 1)
      counter.written = true
    end
  end
end

for key, counter in pairs(counters) do
  if counter.rebased and not counter.written then write(key, counter, 1) end
end

local reply, k = {verdict}, 0
for _, charge in ipairs(charges) do
  if charge.k ~= k then
    k = charge.k
    reply[#reply + 1] = charge.counter.now
  end
  local limit = charge.limit
  local left = limit.kind == 's' and charge.L - limit.total or math.floor((charge.L * limit.W - debtAt(limit, charge.counter.now)) / limit.W)
  local row = #reply
  reply[row + 1], reply[row + 2], reply[row + 3], reply[row + 4] =
    charge.fits, math.max(0, left), resetMs(limit, charge.counter.now), charge.wait
end
return reply
`);
