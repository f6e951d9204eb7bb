import { defineScript } from '../script';

/**
 * Decides over a request under several limits at once, all or nothing: it is admitted when every limit admits it, and a
 * rejected request writes nothing. Exact integer arithmetic throughout.
 *
 * Sliding window (`s`): admitted when P·(W - elapsed) + (C + n)·W <= L·W, where P and C count the previous and the
 * current window. Token bucket (`g`, the generic cell rate algorithm of ITU-T I.371): a debt in units of 1/L ms that
 * time pays off; admitted when debt + n·W <= W·L.
 *
 * KEYS[1] for each limit "<s|g> <W> <a> <b> <c>": a window index, b C, c P; or a time of the debt (ms), b debt, c 0
 * ARGV[1] now (ms)   ARGV[2] n   ARGV[3] `ask`, or `settle`, which adds n (it may be negative) without asking, to what was
 *         charged at   ARGV[4] (ms), never below zero
 * ARGV[5…] for each limit: `s` or `g`, W (ms), L
 * -> {admitted 0|1, then for each limit: admitted by it 0|1, a, b, c, elapsed (ms; 0 for `g`)}; b is the state before n
 */
export const rateLimit = defineScript(`
local now, n, settle, chargedAt = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == 'settle', tonumber(ARGV[4])
local stored = {}
local value = redis.call('GET', KEYS[1])
if value then
  for kind, w, a, b, c in string.gmatch(value, '([sg]) (%d+) (%d+) (%d+) (%d+)') do
    stored[kind .. w] = {tonumber(a), tonumber(b), tonumber(c)}
  end
end
local admitted, replies, parts, ttl, mine = 1, {}, {}, 1, {}
for i = 5, #ARGV, 3 do
  local kind, W, L = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local state = stored[kind .. ARGV[i + 1]]
  mine[kind .. ARGV[i + 1]] = true
  local a, b, c, elapsed, fits, after
  if kind == 's' then
    a, b, c = math.floor(now / W), 0, 0
    elapsed = now - a * W
    if state then
      -- An isolate whose clock lags must not rewind the window: its time is the window's start.
      if a < state[1] then a, elapsed = state[1], 0 end
      if a == state[1] then b, c = state[2], state[3]
      elseif a == state[1] + 1 then c = state[2] end
    end
    fits = c * (W - elapsed) + (b + n) * W <= L * W
    after = b + n
    if settle then
      local charged = math.floor(chargedAt / W)
      after = b
      if charged >= a then after = math.max(0, b + n)
      elseif charged == a - 1 then c = math.max(0, c + n) end
    end
    ttl = math.max(ttl, 2 * W - elapsed)
  else
    a, b, c, elapsed = now, 0, 0, 0
    if state then
      a = math.max(now, state[1])
      b = math.max(0, state[2] - (a - state[1]) * L)
    end
    fits = b + n * W <= W * L
    after = math.max(0, b + n * W)
    ttl = math.max(ttl, math.ceil(after / L))
  end
  if not fits then admitted = 0 end
  parts[#parts + 1] = string.format('%s %.0f %.0f %.0f %.0f', kind, W, a, after, c)
  for _, reply in ipairs({fits and 1 or 0, a, b, c, elapsed}) do replies[#replies + 1] = reply end
end
if n ~= 0 and (settle or admitted == 1) then
  -- Another limiter of this name may have other windows: they stay as they are.
  for id, state in pairs(stored) do
    if not mine[id] then
      parts[#parts + 1] = string.format('%s %s %.0f %.0f %.0f', string.sub(id, 1, 1), string.sub(id, 2), unpack(state))
      ttl = math.max(ttl, redis.call('PTTL', KEYS[1]))
    end
  end
  redis.call('SET', KEYS[1], table.concat(parts, ';'), 'PX', ttl)
end
table.insert(replies, 1, admitted)
return replies
`);
