import { Ratelimit } from '@upstash/ratelimit';

import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { slidingWindow, slidingWindowRefund } from '../redis/scripts/slidingWindow';
import type { Keys } from '../redis/keys';
import { BoundedMap } from '../redis/boundedMap';
import type { LocalLimiter } from './rateLimit/local';
import { remaining, waitMs } from './rateLimit/window';
import type { WindowLimit, WindowState } from './rateLimit/window';
import { currentServices, facade } from './scope';

/** What decides while Redis is away: this isolate's own counters, everybody passes, or nobody (503). */
export type LimiterFailurePolicy = 'local' | 'open' | 'closed';

/** A named limit. Two limiters of one name and identity share a counter. */
export interface RateLimitPolicy extends WindowLimit {
  /** Appears in keys, headers and metrics. */
  name: string;
}

/** A counter's key in Redis. */
export interface LimitKey {
  readonly key: string;
}

export interface RateLimitRequest {
  policy: RateLimitPolicy;
  /** Who is limited: hashed before it becomes a key. */
  identity: string | LimitKey;
  /** Units that this request consumes. @default 1 */
  cost?: number;
  /** @default 'local' */
  whenUnavailable?: LimiterFailurePolicy;
}

/** A decision. `source` tells who made it: Redis, this isolate's memory, or nobody (`none`, with policy `open`). */
export type RateLimitDecision =
  | {
      allowed: true;
      source: 'redis' | 'local' | 'none';
      remaining: number;
      /** When the current window ends, in milliseconds from now. */
      resetMs: number;
      refund: () => void;
    }
  | { allowed: false; reason: 'limit' | 'blocked'; source: 'redis' | 'local'; retryAfterMs: number }
  | { allowed: false; reason: 'unavailable' };

export interface RateLimitService {
  /** A policy and an identity, as the calls below take them too: whoever asks twice hashes once. */
  keyOf(policy: RateLimitPolicy, identity: string): LimitKey;
  /** Known to this isolate to be refused: until it may pass again, in milliseconds; 0 when Redis must be asked. */
  blockedMs(policy: RateLimitPolicy, identity: string | LimitKey): number;
  /** Consumes, in the request's next pipeline. Never rejects because of Redis. */
  consume(request: RateLimitRequest): Promise<RateLimitDecision>;
  /** What is left, without consuming. @throws {RedisError} */
  peek(policy: RateLimitPolicy, identity: string): Promise<{ remaining: number; resetMs: number }>;
  /** Forgets what was consumed. @throws {RedisError} */
  reset(policy: RateLimitPolicy, identity: string): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    rateLimit: RateLimitService;
  }
}

export const RateLimitService: RateLimitService = facade('rateLimit');

/** A refused caller is refused from memory for at most this long, so that a reset or a raised limit is seen. */
const MAX_BLOCK_MS = 5_000;

export interface RateLimitDeps {
  batch: RedisBatch;
  keys: Keys;
  local: LocalLimiter;
  blocked: BlockList;
  now: () => number;
  degraded: (what: string) => void;
}

/** By key: refused from memory until `untilMs`, and not free before `freeAtMs`. */
export type BlockList = BoundedMap<string, { untilMs: number; freeAtMs: number }>;

export function createBlockList(): BlockList {
  return new BoundedMap(10_000);
}

/** Runs the script. The reply is checked: garbage under the key must not become a decision. */
async function ask(batch: RedisBatch, key: string, limit: WindowLimit, cost: number, nowMs: number) {
  const reply = await batch.run(slidingWindow, [key], [nowMs, limit.windowMs, limit.maxRequests, cost]);
  const [allowed, current, previous, elapsedMs, index] = Array.isArray(reply) ? reply.map(Number) : [];
  const state: WindowState = {
    current: current ?? Number.NaN,
    previous: previous ?? Number.NaN,
    elapsedMs: elapsedMs ?? Number.NaN,
    index: index ?? Number.NaN,
  };
  if (!Object.values(state).every(Number.isSafeInteger)) throw new TypeError('not a window');
  return { allowed: allowed === 1, state };
}

export function createRateLimitService({
  batch,
  keys,
  local,
  blocked,
  now,
  degraded,
}: RateLimitDeps): RateLimitService {
  const keyFor = (policy: RateLimitPolicy, identity: string | LimitKey) =>
    typeof identity === 'string' ? keys.rateLimit(policy.name, identity) : identity.key;

  return {
    keyOf: (policy, identity) => ({ key: keys.rateLimit(policy.name, identity) }),

    blockedMs(policy, identity) {
      const block = blocked.get(keyFor(policy, identity));
      return block === undefined || block.untilMs <= now() ? 0 : block.freeAtMs - now();
    },

    async consume({ policy, identity, cost = 1, whenUnavailable = 'local' }) {
      const key = keyFor(policy, identity);
      let source: 'redis' | 'local' = 'redis';
      let outcome: { allowed: boolean; state: WindowState };
      try {
        outcome = await ask(batch, key, policy, cost, now());
      } catch (error) {
        if (!(error instanceof RedisError) && !(error instanceof TypeError)) throw error;
        degraded(`limiter=${whenUnavailable}`);
        if (whenUnavailable === 'closed') return { allowed: false, reason: 'unavailable' };
        if (whenUnavailable === 'open') {
          return { allowed: true, source: 'none', remaining: 0, resetMs: 0, refund: () => undefined };
        }
        source = 'local';
        outcome = local.consume(key, policy, cost, now());
      }

      const { allowed, state } = outcome;
      if (!allowed) {
        const retryAfterMs = waitMs(state, policy, cost);
        blocked.set(key, { untilMs: now() + Math.min(retryAfterMs, MAX_BLOCK_MS), freeAtMs: now() + retryAfterMs });
        return { allowed, reason: 'limit', source, retryAfterMs };
      }
      return {
        allowed,
        source,
        remaining: remaining(state, policy),
        resetMs: policy.windowMs - state.elapsedMs,
        refund() {
          if (source === 'redis') void batch.deferRun(slidingWindowRefund, [key], [state.index, cost]);
          else local.refund(key, state.index, cost);
        },
      };
    },

    async peek(policy, identity) {
      const { state } = await ask(batch, keys.rateLimit(policy.name, identity), policy, 0, now());
      return { remaining: remaining(state, policy), resetMs: policy.windowMs - state.elapsedMs };
    },

    async reset(policy, identity) {
      const key = keys.rateLimit(policy.name, identity);
      blocked.delete(key);
      local.reset(key);
      await batch.send('UNLINK', key);
    },
  };
}

type RatelimitOptions = ConstructorParameters<typeof Ratelimit>[0];

/**
 * The sliding window as an `Algorithm` of @upstash/ratelimit, for code that speaks its interface. It decides inside a
 * request, in the request's pipeline, whatever Redis the wrapper was given.
 *
 * @example
 * const exports = exactRatelimit({ name: 'exports', maxRequests: 3, windowMs: 3_600_000 });
 * const { success } = await exports.limit(userId);
 */
export function exactSlidingWindow(policy: RateLimitPolicy): RatelimitOptions['limiter'] {
  const limit = policy.maxRequests;
  // The wrapper puts its prefix before the identifier; the guard's counters know only the identity.
  const identityOf = (prefix: string, identifier: string) =>
    identifier.startsWith(`${prefix}:`) ? identifier.slice(prefix.length + 1) : identifier;
  return () => ({
    async limit({ prefix }, identifier, rate = 1) {
      const identity = identityOf(prefix, identifier);
      const decision = await currentServices().rateLimit.consume({ policy, identity, cost: rate });
      const pending = Promise.resolve();
      if (decision.allowed) {
        const { remaining: left, resetMs } = decision;
        return { success: true, limit, remaining: left, reset: Date.now() + resetMs, pending };
      }
      const waitsMs = decision.reason === 'unavailable' ? 0 : decision.retryAfterMs;
      return { success: false, limit, remaining: 0, reset: Date.now() + waitsMs, pending };
    },
    async getRemaining({ prefix }, identifier) {
      const { remaining: left, resetMs } = await currentServices().rateLimit.peek(
        policy,
        identityOf(prefix, identifier),
      );
      return { remaining: left, reset: Date.now() + resetMs, limit };
    },
    async resetTokens({ prefix }, identifier) {
      await currentServices().rateLimit.reset(policy, identityOf(prefix, identifier));
    },
  });
}

/** {@link exactSlidingWindow} in the wrapper, set up so that neither its timeout nor its cache decides anything. */
export function exactRatelimit(policy: RateLimitPolicy): Ratelimit {
  return new Ratelimit({
    // The algorithm uses the request's pipeline; the wrapper needs one only for analytics, which are off.
    redis: {} as RatelimitOptions['redis'],
    limiter: exactSlidingWindow(policy),
    prefix: policy.name,
    timeout: 0,
    ephemeralCache: false,
  });
}
