import { Ratelimit } from '@upstash/ratelimit';

import { assertPolicyName } from './limits';
import type { Quota, RateLimitPolicy } from '../rateLimit.service';
import { currentScope } from '../scope';

type RatelimitOptions = ConstructorParameters<typeof Ratelimit>[0];

/**
 * A policy as an `Algorithm` of @upstash/ratelimit, for code written for its interface. It decides inside a request, in the
 * request's pipeline, and ignores the wrapper's Redis.
 *
 * @example
 * const exports = exactRatelimit({ name: 'exports', limits: [slidingWindow(3, 3_600_000)] });
 * const { success } = await exports.limit(userId);
 */
export function exactAlgorithm(policy: RateLimitPolicy): RatelimitOptions['limiter'] {
  assertPolicyName(policy.name);
  const limit = Math.min(...policy.limits.map(({ maxRequests }) => maxRequests));
  // The wrapper puts its prefix before the identifier; the guard's counters use only the identity.
  const identityOf = (prefix: string, identifier: string) =>
    identifier.startsWith(`${prefix}:`) ? identifier.slice(prefix.length + 1) : identifier;
  /** The quota that is closest to exhaustion. */
  const tightest = (quotas: readonly Quota[]) => {
    const left = Math.min(...quotas.map((quota) => quota.remaining));
    const reset = Math.max(0, ...quotas.filter((quota) => quota.remaining === left).map((quota) => quota.resetMs));
    return { remaining: Number.isFinite(left) ? left : 0, reset: Date.now() + reset };
  };
  return () => ({
    async limit({ prefix }, identifier, rate = 1) {
      const identity = identityOf(prefix, identifier);
      const decision = await currentScope().services.rateLimit.consume({ policy, identity, cost: rate });
      const pending = Promise.resolve();
      if (decision.allowed) return { success: true, limit, ...tightest(decision.quotas), pending };
      if (decision.reason !== 'limit') return { success: false, limit, remaining: 0, reset: Date.now(), pending };
      const { remaining } = tightest(decision.quotas);
      return { success: false, limit, remaining, reset: Date.now() + decision.retryAfterMs, pending };
    },
    async getRemaining({ prefix }, identifier) {
      return {
        ...tightest(await currentScope().services.rateLimit.peek(policy, identityOf(prefix, identifier))),
        limit,
      };
    },
    async resetTokens({ prefix }, identifier) {
      await currentScope().services.rateLimit.reset(policy, identityOf(prefix, identifier));
    },
  });
}

/** {@link exactAlgorithm} in the wrapper, configured so that neither its timeout nor its cache makes decisions. */
export function exactRatelimit(policy: RateLimitPolicy): Ratelimit {
  return new Ratelimit({
    // The algorithm uses the request's pipeline. The wrapper needs a client only for analytics, which are off.
    redis: {} as RatelimitOptions['redis'],
    limiter: exactAlgorithm(policy),
    prefix: policy.name,
    timeout: 0,
    ephemeralCache: false,
  });
}
