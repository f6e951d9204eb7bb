import { defineScript } from '../script';

/**
 * Sliding-window counter in exact integer arithmetic: a request of cost n is admitted when
 * P·(W - elapsed) + C·W + n·W <= L·W, where P and C count the previous and the current window. Rejects before it
 * writes: a rejected request consumes nothing.
 *
 * KEYS[1] "<window index> <C> <P>"
 * ARGV[1] now (ms)   ARGV[2] W (ms)   ARGV[3] L   ARGV[4] n (0 looks without consuming)
 * -> {admitted 0|1, C after, P, elapsed (ms), window index}
 */
export const slidingWindow = defineScript(`
local now, W, L, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local value = redis.call('GET', KEYS[1])
local index, C, P = math.floor(now / W), 0, 0
if value then
  local w, c, p = string.match(value, '^(%d+) (%d+) (%d+)$')
  w = tonumber(w)
  if w then
    -- An isolate whose clock lags must not rewind the window: its time is the window's start.
    if index < w then
      index = w
      now = w * W
    end
    if index == w then
      C, P = tonumber(c), tonumber(p)
    elseif index == w + 1 then
      P = tonumber(c)
    end
  end
end
local elapsed = now - index * W
if P * (W - elapsed) + (C + n) * W > L * W then return {0, C, P, elapsed, index} end
if n > 0 then
  C = C + n
  redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', index, C, P), 'PX', 2 * W - elapsed)
end
return {1, C, P, elapsed, index}
`);

/**
 * Gives back what a request consumed, in the window in which it did; never below zero.
 *
 * KEYS[1] as above   ARGV[1] window index of the charge   ARGV[2] cost
 * -> 1 refunded, 0 that window has passed
 */
export const slidingWindowRefund = defineScript(`
local value = redis.call('GET', KEYS[1])
if not value then return 0 end
local w, c, p = string.match(value, '^(%d+) (%d+) (%d+)$')
w = tonumber(w)
local charged, n = tonumber(ARGV[1]), tonumber(ARGV[2])
if w == charged then
  c = math.max(0, tonumber(c) - n)
elseif w == charged + 1 then
  p = math.max(0, tonumber(p) - n)
else
  return 0
end
redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', w, c, p), 'KEEPTTL')
return 1
`);
