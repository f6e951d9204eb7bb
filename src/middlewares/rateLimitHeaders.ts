import type { Context } from 'hono';

import { AppError } from '../errors';
import type { Quota, RateLimitPolicy } from '../services/rateLimit.service';
import { limitName } from '../services/rateLimit.service';

/**
 * `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers (structured fields, RFC 9651). Stacked
 * limiters append to the same lists.
 */
export function setLimitHeaders(c: Context, quotas: readonly Quota[], legacy: boolean): void {
  for (const quota of quotas) {
    const { name, limit, remaining } = quota;
    c.header('RateLimit-Policy', policyItem(name, limit), { append: true });
    c.header('RateLimit', `"${name}";r=${remaining};t=${resetSeconds(quota)}`, { append: true });
  }
  if (!legacy) return;
  const [tightest] = quotas.toSorted((a, b) => a.remaining - b.remaining);
  if (tightest === undefined) return;
  c.header('X-RateLimit-Limit', String(tightest.limit.maxRequests));
  c.header('X-RateLimit-Remaining', String(tightest.remaining));
  c.header('X-RateLimit-Reset', String(resetSeconds(tightest)));
}

/**
 * Seconds until all units are available again. For a sliding window at most its length: Redis counts leased units from the lease's
 * end, and those of a large limit from the end of their sub-window, so they are available again slightly later than that. A
 * penalty may leave a token bucket with a debt that takes longer than its window.
 */
function resetSeconds({ limit: { algorithm, windowMs }, resetMs }: Quota): number {
  return Math.ceil((algorithm === 'sliding-window' ? Math.min(resetMs, windowMs) : resetMs) / 1_000);
}

/** A limiter's refusal of a request. */
export interface LimitRefusal {
  policy: RateLimitPolicy;
  /** Names of its limits that refused. */
  violated: readonly string[];
  retryAfterMs: number;
}

/**
 * 429 as the draft's problem type `quota-exceeded`, with the exact time to wait, rounded up.
 *
 * @param refusals of all limiters that refuse the request: a client that waits for one of them only is refused by the others
 */
export function limitRefusal(refusals: readonly LimitRefusal[], message: string | undefined): AppError {
  const seconds = secondsOf(Math.max(...refusals.map(({ retryAfterMs }) => retryAfterMs)));
  const refused = refusals.flatMap(({ violated, retryAfterMs }) => {
    const wait = secondsOf(retryAfterMs);
    return wait === undefined ? [] : violated.map((name) => `"${name}";r=0;t=${wait}`);
  });
  const policies = refusals.flatMap(({ policy }) =>
    policy.limits.map((limit) => policyItem(limitName(policy, limit), limit)),
  );
  return new AppError('RATE_LIMITED', {
    ...(message !== undefined && { detail: message }),
    headers: {
      // A request that is larger than the limit never passes, however long it waits.
      ...(seconds !== undefined && { 'Retry-After': String(seconds) }),
      ...(refused.length > 0 && { RateLimit: refused.join(', ') }),
      'RateLimit-Policy': policies.join(', '),
    },
    extensions: { 'violated-policies': [...new Set(refusals.flatMap(({ violated }) => violated))] },
  });
}

const secondsOf = (ms: number) => (Number.isFinite(ms) ? Math.max(1, Math.ceil(ms / 1_000)) : undefined);

function policyItem(name: string, { maxRequests, windowMs }: { maxRequests: number; windowMs: number }): string {
  return `"${name}";q=${maxRequests};w=${Math.ceil(windowMs / 1_000)}`;
}
