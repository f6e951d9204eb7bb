import { defineScript } from '../script';
import { blacklistPrune } from './blacklistPrune';

/**
 * Delivers revocations. Idempotent and monotone: values only grow, fields are only added, the TTL only gets longer.
 * Deliveries may therefore repeat and overtake each other.
 *
 * `ep` means that the hash holds every denial, so only a write that includes all denials may create it. A message that
 * knows only the epoch sets `least`, which raises an existing `ep`, or one that is created later.
 *
 * KEYS[1] blacklist hash of a user
 * ARGV[1] TTL (ms), longer than any token lives
 * ARGV[2…] field and value in turn: `ep`, `least` and `av` are versions; the value of `s:<sid>` and `j:<jti>` is when the denied
 *          session or token expires (ms since the epoch), by which a large hash is pruned
 * -> {epoch, access version} of the hash after the write; 0 for one that it does not have
 */
export const blacklistMerge = defineScript(`
for i = 2, #ARGV, 2 do
  local current = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '')
  if not current or current < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
local versions = redis.call('HMGET', KEYS[1], 'ep', 'least', 'av')
if versions[1] and versions[2] and tonumber(versions[1]) < tonumber(versions[2]) then
  redis.call('HSET', KEYS[1], 'ep', versions[2])
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
${blacklistPrune('KEYS[1]')}
return {
  math.max(tonumber(versions[1] or '0'), tonumber(versions[2] or '0')),
  tonumber(versions[3] or '0'),
}
`);
