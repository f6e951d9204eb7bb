import type { Context } from 'hono';

import { AppError } from '../errors';
import type { Quota, RateLimitPolicy } from '../services/rateLimit.service';
import { limitName } from '../services/rateLimit.service';

/**
 * `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers (structured fields, RFC 9651). Stacked
 * limiters append to the same lists.
 */
export function setLimitHeaders(c: Context, quotas: readonly Quota[], legacy: boolean): void {
  for (const { name, limit, remaining, resetMs } of quotas) {
    c.header('RateLimit-Policy', policyItem(name, limit), { append: true });
    c.header('RateLimit', `"${name}";r=${remaining};t=${Math.ceil(resetMs / 1_000)}`, { append: true });
  }
  if (!legacy) return;
  const [tightest] = quotas.toSorted((a, b) => a.remaining - b.remaining);
  if (tightest === undefined) return;
  c.header('X-RateLimit-Limit', String(tightest.limit.maxRequests));
  c.header('X-RateLimit-Remaining', String(tightest.remaining));
  c.header('X-RateLimit-Reset', String(Math.ceil(tightest.resetMs / 1_000)));
}

/** 429 as the draft's problem type `quota-exceeded`, with the exact time to wait, rounded up. */
export function limitRefusal(
  policy: RateLimitPolicy,
  retryAfterMs: number,
  violated: readonly string[],
  message: string | undefined,
): AppError {
  const seconds = Number.isFinite(retryAfterMs) ? Math.max(1, Math.ceil(retryAfterMs / 1_000)) : undefined;
  const named = policy.limits.map((limit) => ({ name: limitName(policy, limit), limit }));
  return new AppError('RATE_LIMITED', {
    ...(message !== undefined && { detail: message }),
    headers: {
      // A request that is larger than the limit never passes, however long it waits.
      ...(seconds !== undefined && {
        'Retry-After': String(seconds),
        RateLimit: named
          .filter(({ name }) => violated.includes(name))
          .map(({ name }) => `"${name}";r=0;t=${seconds}`)
          .join(', '),
      }),
      'RateLimit-Policy': named.map(({ name, limit }) => policyItem(name, limit)).join(', '),
    },
    extensions: { 'violated-policies': violated },
  });
}

function policyItem(name: string, { maxRequests, windowMs }: { maxRequests: number; windowMs: number }): string {
  return `"${name}";q=${maxRequests};w=${Math.ceil(windowMs / 1_000)}`;
}
