import { defineScript } from '../script';

/**
 * Fills a cache entry only if nothing has changed since it was read: compare-and-set on the entry's write id. A delete
 * leaves a tombstone with a fresh write id, so the fill of a loader that ran before it is refused.
 *
 * KEYS[1] entry   ARGV[1] write id seen when reading ('' for a miss)   ARGV[2] new entry (16-character write id + body)
 * ARGV[3] TTL (ms)
 * -> 1 written, 0 refused
 */
export const cacheFill = defineScript(`
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`);
