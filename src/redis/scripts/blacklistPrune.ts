/**
 * Lua for scripts whose KEYS[n] is the blacklist hash of a user. Once the hash is large, denials of expired sessions and
 * tokens are removed. The hash itself outlives them, because every write renews its whole TTL.
 */
export const blacklistPrune = (key: `KEYS[${number}]`) => `
if redis.call('HLEN', ${key}) > 256 then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000
  local all = redis.call('HGETALL', ${key})
  for i = 1, #all, 2 do
    local kind = string.sub(all[i], 1, 2)
    if (kind == 's:' or kind == 'j:') and tonumber(all[i + 1]) < now - 60000 then
      redis.call('HDEL', ${key}, all[i])
    end
  end
end`;
