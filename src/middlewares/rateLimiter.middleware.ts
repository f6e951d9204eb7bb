import type { Context } from 'hono';
import { routePath } from 'hono/route';

import type { Config, Limit } from '../config/env';
import { configOf } from '../config/env';
import { AppError, unavailable } from '../errors';
import { RateLimitService } from '../services/rateLimit.service';
import type { LimitKey, LimiterFailurePolicy, RateLimitDecision, RateLimitPolicy } from '../services/rateLimit.service';
import { authOf } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import { clientAddress } from './clientAddress';
import type { AppEnv } from './services.middleware';

/** Options of {@link rateLimiter}. */
export interface RateLimiterOptions {
  /** Window length in milliseconds. @default 60_000 */
  windowMs?: number;
  /** Requests admitted per identity in any window. A positive integer. */
  maxRequests: number;
  /** Said to whoever is refused. */
  message?: string;
  /**
   * Limiters of one name share their counters. By default each place where a limiter is mounted counts for itself.
   */
  name?: string;
  /** Who is counted. @default the authenticated user, else the client's address */
  identity?: (c: Context<AppEnv>) => string | Promise<string>;
  /** What decides while Redis is away. @default 'local' */
  whenUnavailable?: LimiterFailurePolicy;
}

/** A limiter whose numbers come from the settings. */
export interface ConfiguredLimit extends Omit<RateLimiterOptions, 'windowMs' | 'maxRequests'> {
  name: string;
  limit: (limits: Config['limits']) => Limit;
}

/** The user where the request is authenticated, else the address. */
export function callerIdentity(c: Context<AppEnv>): string {
  const auth = authOf(c);
  return auth === undefined ? `address:${clientAddress(c)}` : `user:${auth.userId}`;
}

/**
 * Limits requests per identity in a sliding window. Works alone and in `guard(…)`, where it costs no round trip of its
 * own; one that a later check makes pointless is given back.
 *
 * @example
 * app.use('/api/*', rateLimiter({ windowMs: 60 * 1000, maxRequests: 10, message: 'Too many requests' }));
 */
export function rateLimiter(options: RateLimiterOptions | ConfiguredLimit): Check {
  const { name, message, identity = callerIdentity, whenUnavailable = 'local' } = options;
  if (!('limit' in options)) assertLimit(options.maxRequests, options.windowMs ?? 60_000);

  /** What a request has to do with this limiter: who it is, and how to give back what it consumed. */
  const states = new WeakMap<Context, LimiterState>();

  const policyOf = (c: Context<AppEnv>): RateLimitPolicy => {
    const { maxRequests, windowMs = 60_000 } = 'limit' in options ? options.limit(configOf(c.env).limits) : options;
    return { name: name ?? `${maxRequests}-${windowMs}-${slug(routePath(c))}`, maxRequests, windowMs };
  };

  const stateOf = (c: Context<AppEnv>, who: string): LimiterState => {
    const policy = policyOf(c);
    const state: LimiterState = { policy, key: RateLimitService.keyOf(policy, who) };
    states.set(c, state);
    return state;
  };

  return check({
    name: 'rateLimiter()',
    ...(options.identity !== undefined && {
      async local(c: Context<AppEnv>) {
        stateOf(c, await identity(c));
      },
    }),
    known(c) {
      // Only now is it known whether the caller is authenticated.
      const { policy, key } = states.get(c) ?? stateOf(c, callerIdentity(c));
      const blockedMs = RateLimitService.blockedMs(policy, key);
      if (blockedMs > 0) throw refusal(policy, blockedMs, message);
    },
    prepare(c) {
      const state = states.get(c) ?? stateOf(c, callerIdentity(c));
      const { policy, key } = state;
      const decision = RateLimitService.consume({ policy, identity: key, whenUnavailable });
      return async () => {
        const made = await decision;
        if (made.allowed) state.refund = made.refund;
        announce(c, policy, made, message);
      };
    },
    undo(c) {
      states.get(c)?.refund?.();
    },
  });
}

interface LimiterState {
  policy: RateLimitPolicy;
  key: LimitKey;
  refund?: () => void;
}

function assertLimit(maxRequests: number, windowMs: number): void {
  const whole = Number.isInteger(maxRequests) && maxRequests >= 1 && Number.isInteger(windowMs) && windowMs >= 1;
  // The window's arithmetic is exact as long as its products are.
  if (whole && maxRequests * windowMs <= Number.MAX_SAFE_INTEGER / 4) return;
  throw new AppError('CONFIG_INVALID', { detail: 'rateLimiter() needs positive integers: maxRequests, windowMs.' });
}

/** Headers of draft-ietf-httpapi-ratelimit-headers (structured fields, RFC 9651); throws for whoever is refused. */
function announce(c: Context, policy: RateLimitPolicy, decision: RateLimitDecision, message: string | undefined): void {
  if (!decision.allowed) {
    throw decision.reason === 'unavailable'
      ? unavailable('The rate limiter')
      : refusal(policy, decision.retryAfterMs, message);
  }
  // No quota for a decision that nobody made.
  if (decision.source === 'none') return;
  append(c, 'RateLimit-Policy', policyItem(policy));
  append(c, 'RateLimit', limitItem(policy, decision.remaining, decision.resetMs));
}

function append(c: Context, name: string, value: string): void {
  c.header(name, value, { append: true });
}

function policyItem({ name, maxRequests, windowMs }: RateLimitPolicy): string {
  return `"${name}";q=${maxRequests};w=${Math.ceil(windowMs / 1_000)}`;
}

function limitItem({ name }: RateLimitPolicy, remaining: number, resetMs: number): string {
  return `"${name}";r=${remaining};t=${Math.ceil(resetMs / 1_000)}`;
}

function refusal(policy: RateLimitPolicy, waitMs: number, message: string | undefined): AppError {
  return new AppError('RATE_LIMITED', {
    ...(message !== undefined && { detail: message }),
    headers: {
      'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1_000))),
      'RateLimit-Policy': policyItem(policy),
      RateLimit: limitItem(policy, 0, waitMs),
    },
    extensions: { 'violated-policies': [policy.name] },
  });
}

/** A route's pattern as part of a name: `/v1/users/:id` -> `v1-users-id`. */
function slug(path: string): string {
  return (
    path
      .replaceAll(/[^A-Za-z0-9]+/g, '-')
      .replaceAll(/^-|-$/g, '')
      .slice(0, 64) || 'all'
  );
}
