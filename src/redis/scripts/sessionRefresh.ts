import { defineScript } from '../script';

/**
 * Rotates a session's refresh token. Its MAC was checked before, so the app has issued it. A generation or an epoch ahead
 * of the record therefore means that Redis lost a write, and is adopted.
 *
 * Confirmation by use: presenting the current generation rotates it. Presenting the previous one returns the same
 * successor, until a token of that successor is presented, and for the grace period after that. Any older generation is
 * reuse, and ends the session. The script keeps reporting reuse until `sessionEnd` confirms that the database has recorded
 * it.
 *
 * When a generation is issued again, the access token first issued with it ends: of two clients with the same refresh
 * token, one is refused. From then on both could continue side by side, so the next rotation also ends the newest access
 * token.
 *
 * KEYS[1] session hash   KEYS[2] blacklist hash of its user
 * ARGV[1] sid   ARGV[2] generation presented   ARGV[3] epoch of the token   ARGV[4] grace (ms)   ARGV[5] idle TTL (ms)
 * ARGV[6] time to its absolute end (ms)   ARGV[7] its absolute end (ms since the epoch)   ARGV[8] blacklist TTL (ms)
 * ARGV[9] jti of the access token that will be issued   ARGV[10] value of the denial of an ended token
 * -> {'ok', generation, epoch, access version, role}, and the jti of the access token that was ended, if any
 *    {'stale', access version} the record's role is older than the user's access version: read it from D1
 *    {'unknown'} Redis has lost the record or the user's epoch: ask D1   {'revoked'}   {'reuse'}
 */
export const sessionRefresh = defineScript(`
local denied = redis.call('HMGET', KEYS[2], 'ep', 'av', 's:' .. ARGV[1])
local record = redis.call('HMGET', KEYS[1], 'g', 'c', 'ct', 'ep', 'av', 'ro', 'dead', 'j', 'f')
if record[7] == 'unrecorded' then return {'reuse'} end
if denied[3] or record[7] then return {'revoked'} end
if denied[1] and tonumber(denied[1]) > tonumber(ARGV[3]) then return {'revoked'} end
if not denied[1] or not record[1] then return {'unknown'} end
-- A token of before a renewal is outdated. It is no reuse: the renewed session goes on.
if tonumber(record[4]) > tonumber(ARGV[3]) then return {'revoked'} end
if tonumber(denied[2] or '0') > tonumber(record[5]) then return {'stale', tonumber(denied[2])} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local presented = tonumber(ARGV[2])
local current = tonumber(record[1])
local confirmed = tonumber(record[2])
local confirmedAt = tonumber(record[3])

-- The epoch is as genuine as the generation. A larger one comes from a renewal whose write was lost; the record of the
-- former epoch no longer counts.
local renewed = tonumber(ARGV[3]) > tonumber(record[4])
local epoch = math.max(tonumber(record[4]), tonumber(ARGV[3]))

local newest, ended = record[8], nil
local function supersede()
  if not newest or newest == '' or newest == ARGV[9] then return end
  redis.call('HSET', KEYS[2], 'j:' .. newest, ARGV[10])
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[8]) then redis.call('PEXPIRE', KEYS[2], ARGV[8]) end
  ended = newest
end

if presented >= current or renewed then
  if record[9] == record[1] then supersede() end
  if presented > confirmed or renewed then redis.call('HSET', KEYS[1], 'c', presented, 'ct', now) end
  current = presented + 1
  redis.call('HSET', KEYS[1], 'g', current, 'ls', now)
elseif presented == current - 1 and (confirmed < current or now - confirmedAt <= tonumber(ARGV[4])) then
  redis.call('HSET', KEYS[1], 'ls', now)
  -- Skip this if the same call runs a second time.
  if newest ~= ARGV[9] then redis.call('HSET', KEYS[1], 'f', current) end
  supersede()
else
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'dead', 'unrecorded')
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call('HSET', KEYS[2], 's:' .. ARGV[1], ARGV[7])
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[8]) then redis.call('PEXPIRE', KEYS[2], ARGV[8]) end
  return {'reuse'}
end
local ttl = math.min(tonumber(ARGV[5]), tonumber(ARGV[6]))
if redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
redis.call('HSET', KEYS[1], 'ep', epoch, 'j', ARGV[9])
return {'ok', current, epoch, tonumber(record[5]), record[6], ended}
`);
