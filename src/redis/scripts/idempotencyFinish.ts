import { defineScript } from '../script';

/**
 * Ends a claim: the request was executed, or it was not and may be retried.
 *
 * KEYS[1] as in `idempotencyClaim`
 * ARGV[1] fingerprint of the request   ARGV[2] holder   ARGV[3] how long to remember `done` (ms); 0: not executed
 * -> 1 written or removed, 0 the claim belongs to another request
 */
export const idempotencyFinish = defineScript(`
if ARGV[3] ~= '0' then
  redis.call('SET', KEYS[1], 'done ' .. ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
  return 1
end
if redis.call('GET', KEYS[1]) ~= 'running ' .. ARGV[1] .. ' ' .. ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
`);
