import { defineScript } from '../script';

/**
 * Writes a session's record with D1's data: at login, and again after Redis has lost it. Refuses a session that is denied,
 * dead or older than its user's epoch, so a restore that races a revocation never revives it. A larger generation than the
 * recorded one is adopted (a failover lost a rotation). A generation of a newer epoch always is, because tokens of former
 * epochs no longer count. A smaller one changes nothing. A role is stored with the access version that it was read with,
 * never with a newer one.
 *
 * KEYS[1] session hash   KEYS[2] blacklist hash of its user
 * ARGV[1] sid   ARGV[2] data (JSON)   ARGV[3] generation   ARGV[4] confirmed generation   ARGV[5] epoch of the session
 * ARGV[6] role   ARGV[7] epoch of the user   ARGV[8] access version of the user
 * ARGV[9] idle TTL (ms)   ARGV[10] time to its absolute end (ms)   ARGV[11] TTL of the blacklist (ms)
 * ARGV[12] 1: the data and their TTL replace the recorded ones; 0: only fill a gap, or write data with a newer access version
 * ARGV[13] 1: the denials that follow are all recent ones of the user, so a lost hash may be recreated; 0: leave it lost
 * ARGV[14] jti of the newest access token that a refresh has issued with that generation, '' if unknown
 * ARGV[15…] field and value in turn: `s:<sid>`, and when the denied session expires (ms since the epoch)
 * Fields: d data, g generation, c confirmed generation, ct when it was confirmed (ms), ep, av, ro role, ls last seen (ms),
 * j jti of the newest access token issued with g, f the newest generation that was issued more than once, dead reason, or
 * `unrecorded` for a reuse that the database may not have recorded yet
 * -> 1 written or unchanged, 0 refused
 */
export const sessionWrite = defineScript(`
local state = redis.call('HMGET', KEYS[2], 'ep', 'av', 's:' .. ARGV[1], 'least')
local epoch = math.max(tonumber(state[1] or '0'), tonumber(state[4] or '0'), tonumber(ARGV[7]))
if state[1] or ARGV[13] == '1' then
  redis.call('HSET', KEYS[2], 'ep', epoch, 'av', math.max(tonumber(state[2] or '0'), tonumber(ARGV[8])))
  if not state[1] then
    for i = 15, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
  end
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[11]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[11])
  end
end
if state[3] or epoch > tonumber(ARGV[5]) then return 0 end
local record = redis.call('HMGET', KEYS[1], 'g', 'av', 'dead', 'ep')
if record[3] then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if not record[1] or tonumber(record[1]) < tonumber(ARGV[3]) or tonumber(record[4]) < tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[1], 'g', ARGV[3], 'c', ARGV[4], 'ct', now, 'j', ARGV[14])
end
if not record[1] then redis.call('HSET', KEYS[1], 'ls', now) end
local versions = tonumber(record[2] or '-1')
if versions < tonumber(ARGV[8]) or (versions == tonumber(ARGV[8]) and ARGV[12] == '1') then
  redis.call('HSET', KEYS[1], 'd', ARGV[2], 'av', ARGV[8], 'ro', ARGV[6])
end
redis.call('HSET', KEYS[1], 'ep', ARGV[5])
local ttl = math.min(tonumber(ARGV[9]), tonumber(ARGV[10]))
if ARGV[12] == '1' or redis.call('PTTL', KEYS[1]) < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
return 1
`);
