import type { Limit, LimitVerdict, RateLimitPolicy } from './limits';
import { limitName } from './limits';

/** The remaining units of one limit. */
export interface Quota {
  /** The policy's name, with the window if the policy has several. */
  name: string;
  limit: Limit;
  remaining: number;
  /** When all units are available again, in milliseconds from now. */
  resetMs: number;
}

/**
 * A decision. `source`: Redis, units leased to this isolate, this isolate's memory, or none (with policy `open`).
 * `together`: this limit would admit the request, but another limit of the same request refuses it. Nothing was charged.
 */
export type RateLimitDecision =
  | {
      allowed: true;
      source: 'redis' | 'lease' | 'local' | 'none';
      quotas: readonly Quota[];
      /** After the response: adds to the request's cost; a negative number gives units back. */
      settle: (cost: number) => void;
      /** Gives all units back now, at the time of their charge, so that the request can be decided again. */
      undo?: () => Promise<void>;
    }
  | {
      allowed: false;
      reason: 'limit';
      source: 'redis' | 'local';
      quotas: readonly Quota[];
      /** Names of the limits that refused. */
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
