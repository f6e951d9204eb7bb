import { defineScript } from '../script';

/**
 * Claims an idempotency key for one execution, unless another request has claimed it. Idempotent: a holder that asks again
 * (its response was lost) keeps its claim.
 *
 * KEYS[1] string: `running <fingerprint> <holder>` or `done <fingerprint> <holder>`
 * ARGV[1] fingerprint of the request   ARGV[2] holder   ARGV[3] lease (ms)
 * -> {'claimed', fingerprint}, {'running', fingerprint} or {'done', fingerprint}
 */
export const idempotencyClaim = defineScript(`
local held = redis.call('GET', KEYS[1])
if held then
  local state, fingerprint, holder = string.match(held, '^(%a+) (%S+) (%S+)$')
  if holder ~= ARGV[2] then return {state, fingerprint} end
end
redis.call('SET', KEYS[1], 'running ' .. ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return {'claimed', ARGV[1]}
`);
