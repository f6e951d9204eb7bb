import { defineScript } from '../script';

/**
 * Records last seen, and confirms the generation of the presented access token. The client has received that token, so it
 * no longer needs the previous refresh token for a retry. A larger epoch comes from a renewal whose write was lost.
 *
 * KEYS[1] session hash   ARGV[1] generation   ARGV[2] epoch of the token
 * -> 1 touched, 0 no live record (Redis lost it, or it is dead)
 */
export const sessionSeen = defineScript(`
local record = redis.call('HMGET', KEYS[1], 'g', 'c', 'dead', 'ep')
if not record[1] or record[3] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local shown = tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'ls', now)
if shown > tonumber(record[2]) then redis.call('HSET', KEYS[1], 'c', shown, 'ct', now) end
if shown > tonumber(record[1]) then redis.call('HSET', KEYS[1], 'g', shown) end
if tonumber(ARGV[2]) > tonumber(record[4]) then redis.call('HSET', KEYS[1], 'ep', ARGV[2]) end
return 1
`);
