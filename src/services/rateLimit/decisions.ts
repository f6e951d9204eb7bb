import type { Limit, LimitVerdict, RateLimitPolicy } from './limits';
import { limitName } from './limits';

/** What one limit has left. */
export interface Quota {
  /** The policy's name, with the window where it has several. */
  name: string;
  limit: Limit;
  remaining: number;
  /** When all of it is available again, in milliseconds from now. */
  resetMs: number;
}

/**
 * A decision. `source` tells what made it: Redis, units that Redis has leased to this isolate, this isolate's memory, or
 * nothing (`none`, with policy `open`). `together`:
 * this limit would admit the request, another one that was asked together with it does not; nothing was charged.
 */
export type RateLimitDecision =
  | {
      allowed: true;
      source: 'redis' | 'lease' | 'local' | 'none';
      quotas: readonly Quota[];
      /** After the response: adds to what this request cost; a negative number gives back. */
      settle: (cost: number) => void;
    }
  | {
      allowed: false;
      reason: 'limit';
      source: 'redis' | 'local';
      quotas: readonly Quota[];
      /** Names of the limits that rejected. */
      violated: readonly string[];
      retryAfterMs: number;
    }
  | { allowed: false; reason: 'together' }
  | { allowed: false; reason: 'unavailable' };

export function quotasOf(policy: RateLimitPolicy, states: readonly { remaining: number; resetMs: number }[]): Quota[] {
  return policy.limits.map((limit, index) => ({
    name: limitName(policy, limit),
    limit,
    remaining: states[index]?.remaining ?? 0,
    resetMs: states[index]?.resetMs ?? 0,
  }));
}

export function refusalOf(
  policy: RateLimitPolicy,
  verdicts: readonly LimitVerdict[],
  source: 'redis' | 'local',
): RateLimitDecision & { reason: 'limit' } {
  const refused = policy.limits.filter((_, index) => verdicts[index]?.admitted === false);
  return {
    allowed: false,
    reason: 'limit',
    source,
    quotas: quotasOf(policy, verdicts),
    violated: refused.map((limit) => limitName(policy, limit)),
    retryAfterMs: Math.max(0, ...verdicts.filter(({ admitted }) => !admitted).map(({ waitMs }) => waitMs)),
  };
}
