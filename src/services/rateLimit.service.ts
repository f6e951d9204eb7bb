import type { RedisBatch } from '../redis/batch';
import { BoundedMap } from '../redis/boundedMap';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { rateLimit } from '../redis/scripts/rateLimit';
import type { Argument } from '../redis/client';
import { remaining, resetMs, consumed, waitMs } from './rateLimit/limits';
import type { Limit } from './rateLimit/limits';
import type { LimitVerdict, LocalLimiter } from './rateLimit/local';
import { facade } from './scope';

export type { Limit, LimitAlgorithm } from './rateLimit/limits';

/** What decides while Redis is away: this isolate's own counters, everybody passes, or nobody (503). */
export type LimiterFailurePolicy = 'local' | 'open' | 'closed';

/**
 * Named limits. Two limiters of one name and identity share a counter; several limits of one policy are decided together:
 * a request that one of them rejects consumes nothing of any.
 */
export interface RateLimitPolicy {
  /** Appears in keys, headers and metrics. */
  name: string;
  limits: readonly Limit[];
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

/** What one limit has left. */
export interface Quota {
  /** The policy's name, with the window where it has several. */
  name: string;
  limit: Limit;
  remaining: number;
  /** When its window ends, or its bucket is full again, in milliseconds from now. */
  resetMs: number;
}

/** A decision. `source` tells who made it: Redis, this isolate's memory, or nobody (`none`, with policy `open`). */
export type RateLimitDecision =
  | {
      allowed: true;
      source: 'redis' | 'local' | 'none';
      quotas: readonly Quota[];
      /** After the answer: adds to what this request cost; a negative number gives back. */
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
  | { allowed: false; reason: 'unavailable' };

export interface RateLimitService {
  /** A policy and an identity, as the calls below take them too: whoever asks twice hashes once. */
  keyOf(policy: RateLimitPolicy, identity: string): LimitKey;
  /** Whether this isolate knows by itself that the caller is refused; `undefined` when Redis must be asked. */
  block(policy: RateLimitPolicy, identity: string | LimitKey, cost?: number): Block | undefined;
  /** Consumes, in the request's next pipeline. Never rejects because of Redis. */
  consume(request: RateLimitRequest): Promise<RateLimitDecision>;
  /** What is left, without consuming. @throws {RedisError} */
  peek(policy: RateLimitPolicy, identity: string): Promise<Quota[]>;
  /** Forgets what was consumed. @throws {RedisError} */
  reset(policy: RateLimitPolicy, identity: string): Promise<void>;
  /** Charges `points` more, whatever the limit says. @throws {RedisError} */
  penalty(policy: RateLimitPolicy, identity: string, points: number): Promise<void>;
  /** Gives `points` back; nobody gets below zero. @throws {RedisError} */
  reward(policy: RateLimitPolicy, identity: string, points: number): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    rateLimit: RateLimitService;
  }
}

export const RateLimitService: RateLimitService = facade('rateLimit');

/** A refused caller is refused from memory for at most this long, so that a reset or a raised limit is seen. */
const MAX_BLOCK_MS = 5_000;

/** A refusal that is known without asking. */
export interface Block {
  violated: readonly string[];
  retryAfterMs: number;
}

/** By key: refused from memory until `untilMs`, and not free before `freeAtMs`, for a request of that cost or more. */
export type BlockList = BoundedMap<
  string,
  { cost: number; untilMs: number; freeAtMs: number; violated: readonly string[] }
>;

export function createBlockList(): BlockList {
  return new BoundedMap(10_000);
}

/** The name of one limit of a policy, as headers and refusals show it: `api`, or `api-10s` where there are several. */
export function limitName({ name, limits }: RateLimitPolicy, limit: Limit): string {
  return limits.length === 1 ? name : `${name}-${windowLabel(limit.windowMs)}`;
}

function windowLabel(windowMs: number): string {
  for (const [unit, ms] of [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1_000],
  ] as const) {
    if (windowMs % ms === 0) return `${windowMs / ms}${unit}`;
  }
  return `${windowMs}ms`;
}

export interface RateLimitDeps {
  batch: RedisBatch;
  keys: Keys;
  local: LocalLimiter;
  blocked: BlockList;
  now: () => number;
  degraded: (what: string) => void;
}

export function createRateLimitService(deps: RateLimitDeps): RateLimitService {
  const { batch, keys, local, blocked, now, degraded } = deps;

  const keyFor = (policy: RateLimitPolicy, identity: string | LimitKey) =>
    typeof identity === 'string' ? keys.rateLimit(policy.name, identity) : identity.key;

  const argumentsOf = (limits: readonly Limit[], cost: number, mode: 'ask' | 'settle', chargedAtMs = 0): Argument[] => [
    now(),
    cost,
    mode,
    chargedAtMs,
    ...limits.flatMap(({ algorithm, windowMs, maxRequests }) => [
      algorithm === 'token-bucket' ? 'g' : 's',
      windowMs,
      maxRequests,
    ]),
  ];

  /** Runs the script. The reply is checked: garbage must not become a decision. */
  async function ask(key: string, limits: readonly Limit[], cost: number): Promise<LimitVerdict[]> {
    const reply = await batch.run(rateLimit, [key], argumentsOf(limits, cost, 'ask'));
    const numbers = Array.isArray(reply) ? reply.map(Number) : [];
    if (numbers.length !== 1 + 5 * limits.length || !numbers.every(Number.isSafeInteger)) {
      throw new RedisUnavailable('garbage');
    }
    return limits.map((_, index) => {
      const [fits, a = 0, b = 0, c = 0, elapsedMs = 0] = numbers.slice(1 + 5 * index, 6 + 5 * index);
      return { admitted: fits === 1, state: { a, b, c, elapsedMs } };
    });
  }

  async function adjust(policy: RateLimitPolicy, identity: string, points: number): Promise<void> {
    if (!Number.isSafeInteger(points)) throw new RangeError('points must be a whole number');
    const key = keyFor(policy, identity);
    blocked.delete(key);
    await batch.run(rateLimit, [key], argumentsOf(policy.limits, points, 'settle', now()));
  }

  const quotasOf = (policy: RateLimitPolicy, verdicts: readonly LimitVerdict[], cost: number): Quota[] =>
    policy.limits.map((limit, index) => {
      const before = verdicts[index]?.state ?? { a: 0, b: 0, c: 0, elapsedMs: 0 };
      const state = consumed(limit, before, cost);
      return {
        name: limitName(policy, limit),
        limit,
        remaining: remaining(limit, state),
        resetMs: resetMs(limit, state),
      };
    });

  /** What this isolate admitted by itself while Redis was away counts from now on there. */
  function reconcile(key: string, limits: readonly Limit[]): void {
    const owed = local.takeUnreported(key);
    if (owed !== undefined) void batch.deferRun(rateLimit, [key], argumentsOf(limits, owed.cost, 'settle', owed.atMs));
  }

  return {
    keyOf: (policy, identity) => ({ key: keys.rateLimit(policy.name, identity) }),

    block(policy, identity, cost = 1) {
      const block = blocked.get(keyFor(policy, identity));
      if (block === undefined || block.untilMs <= now() || cost < block.cost) return undefined;
      return { violated: block.violated, retryAfterMs: block.freeAtMs - now() };
    },

    async consume({ policy, identity, cost = 1, whenUnavailable = 'local' }) {
      const key = keyFor(policy, identity);
      const { limits } = policy;
      const chargedAtMs = now();
      let source: 'redis' | 'local' = 'redis';
      let verdicts: LimitVerdict[];
      try {
        verdicts = await ask(key, limits, cost);
        reconcile(key, limits);
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded(`limiter=${whenUnavailable}`);
        if (whenUnavailable === 'closed') return { allowed: false, reason: 'unavailable' };
        if (whenUnavailable === 'open') return { allowed: true, source: 'none', quotas: [], settle: () => undefined };
        source = 'local';
        verdicts = local.consume(key, limits, cost, now());
      }

      if (verdicts.every(({ admitted }) => admitted)) {
        return {
          allowed: true,
          source,
          quotas: quotasOf(policy, verdicts, cost),
          settle(more) {
            if (more === 0) return;
            if (source === 'local') local.settle(key, limits, more, chargedAtMs, now());
            else void batch.deferRun(rateLimit, [key], argumentsOf(limits, more, 'settle', chargedAtMs));
          },
        };
      }

      const waits = limits.map((limit, index) => {
        const verdict = verdicts[index];
        return verdict === undefined || verdict.admitted ? 0 : waitMs(limit, verdict.state, cost);
      });
      const retryAfterMs = Math.max(...waits);
      const violated = limits
        .filter((_, index) => verdicts[index]?.admitted === false)
        .map((limit) => limitName(policy, limit));
      const at = now();
      blocked.set(key, {
        cost,
        untilMs: at + Math.min(retryAfterMs, MAX_BLOCK_MS),
        freeAtMs: at + retryAfterMs,
        violated,
      });
      return {
        allowed: false,
        reason: 'limit',
        source,
        quotas: quotasOf(policy, verdicts, 0),
        violated,
        retryAfterMs,
      };
    },

    async peek(policy, identity) {
      return quotasOf(policy, await ask(keyFor(policy, identity), policy.limits, 0), 0);
    },

    async reset(policy, identity) {
      const key = keyFor(policy, identity);
      blocked.delete(key);
      local.reset(key);
      await batch.send('UNLINK', key);
    },

    penalty: (policy, identity, points) => adjust(policy, identity, points),
    reward: (policy, identity, points) => adjust(policy, identity, -points),
  };
}

/** A limit as policies hold it. */
export function slidingWindow(maxRequests: number, windowMs: number): Limit {
  return { algorithm: 'sliding-window', maxRequests, windowMs };
}
