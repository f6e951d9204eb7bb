import { defineScript } from '../script';

/**
 * Records last seen, and confirms the generation of the presented access token. The client has received that token, so it
 * no longer needs the previous refresh token for a retry.
 *
 * KEYS[1] session hash   ARGV[1] generation
 * -> 1 touched, 0 no live record (Redis lost it, or it is dead)
 */
export const sessionSeen = defineScript(`
local record = redis.call('HMGET', KEYS[1], 'g', 'c', 'dead')
if not record[1] or record[3] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local shown = tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'ls', now)
if shown > tonumber(record[2]) then redis.call('HSET', KEYS[1], 'c', shown, 'ct', now) end
if shown > tonumber(record[1]) then redis.call('HSET', KEYS[1], 'g', shown) end
return 1
`);
