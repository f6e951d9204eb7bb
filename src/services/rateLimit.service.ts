import type { Instruments } from '../metrics/instruments';
import type { RedisBatch } from '../redis/batch';
import type { Keys } from '../redis/keys';
import { rateLimitRecord } from '../redis/scripts/rateLimitRecord';
import { ask, recordArguments, requestId } from './rateLimit/ask';
import type { Block, BlockList } from './rateLimit/blocks';
import { consumeTogether, resetMark } from './rateLimit/consume';
import type { LimiterFailurePolicy, ResolvedRequest } from './rateLimit/consume';
import { quotasOf } from './rateLimit/decisions';
import type { Quota, RateLimitDecision } from './rateLimit/decisions';
import { assertUnits } from './rateLimit/limits';
import type { RateLimitPolicy } from './rateLimit/limits';
import type { Leases } from './rateLimit/leases';
import { createLeasing } from './rateLimit/leasing';
import type { LocalLimiter } from './rateLimit/local';
import type { Refresher } from './memory/refresher';
import { facade } from './scope';

export type { Block } from './rateLimit/blocks';
export type { LimiterFailurePolicy } from './rateLimit/consume';
export type { Quota, RateLimitDecision } from './rateLimit/decisions';
export { limitName, slidingWindow } from './rateLimit/limits';
export type { Limit, LimitAlgorithm, RateLimitPolicy } from './rateLimit/limits';

/** A counter's key in Redis. */
export interface LimitKey {
  readonly key: string;
}

export interface RateLimitRequest {
  policy: RateLimitPolicy;
  /** The limited caller. It is hashed before it becomes part of a key. */
  identity: string | LimitKey;
  /** Units that this request consumes: a whole number. @default 1 */
  cost?: number;
  /** @default 'local' */
  whenUnavailable?: LimiterFailurePolicy;
}

export interface RateLimitService {
  /** A policy and an identity, for the calls below: a caller with several calls hashes only once. */
  keyOf(policy: RateLimitPolicy, identity: string): LimitKey;
  /** Whether this isolate already knows that the caller is refused; `undefined` if Redis must be asked. */
  block(policy: RateLimitPolicy, identity: string | LimitKey, cost?: number): Block | undefined;
  /**
   * Consumes units, in the request's next pipeline. Never rejects because of Redis.
   *
   * @throws {RangeError} when the cost is not a whole number
   */
  consume(request: RateLimitRequest): Promise<RateLimitDecision>;
  /**
   * {@link consume} for several limiters at once, all or nothing: if one refuses, none is charged.
   *
   * @param withinMs for how long units may be leased for the callers' next requests; 0: no lease
   */
  consumeAll(requests: readonly RateLimitRequest[], withinMs?: number): Promise<RateLimitDecision[]>;
  /**
   * {@link consumeAll} with units that were leased to this isolate at most `withinMs` ago. Each request is charged when its
   * function is called, which must happen in the same turn.
   *
   * @returns `undefined` if leases cannot pay for all requests: then none was charged
   */
  recall(requests: readonly RateLimitRequest[], withinMs: number): (() => RateLimitDecision)[] | undefined;
  /** The remaining units, without consuming any. @throws {RedisError} */
  peek(policy: RateLimitPolicy, identity: string): Promise<Quota[]>;
  /** Deletes the record of consumed units. @throws {RedisError} */
  reset(policy: RateLimitPolicy, identity: string): Promise<void>;
  /** Charges `points` more, even beyond the limit. @throws {RedisError | RangeError} */
  penalty(policy: RateLimitPolicy, identity: string, points: number): Promise<void>;
  /** Gives `points` back, the newest first, and at most as many as were consumed. @throws {RedisError | RangeError} */
  reward(policy: RateLimitPolicy, identity: string | LimitKey, points: number): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    rateLimit: RateLimitService;
  }
}

export const RateLimitService: RateLimitService = facade('rateLimit');

export interface RateLimitDeps {
  batch: RedisBatch;
  keys: Keys;
  local: LocalLimiter;
  blocked: BlockList;
  leases: Leases;
  refresher: Refresher;
  now: () => number;
  degraded: (what: string) => void;
  instruments: Pick<Instruments, 'limitDecisions'>;
}

export function createRateLimitService(deps: RateLimitDeps): RateLimitService {
  const { batch, keys, local, blocked, leases, now, instruments } = deps;
  const leasing = createLeasing(deps);
  const { limitDecisions } = instruments;

  const keyFor = (policy: RateLimitPolicy, identity: string | LimitKey) =>
    typeof identity === 'string' ? keys.rateLimit(policy.name, identity) : identity.key;

  function resolve({ policy, identity, cost = 1, whenUnavailable = 'local' }: RateLimitRequest): ResolvedRequest {
    return {
      key: keyFor(policy, identity),
      policy: policy.name,
      named: policy,
      limits: policy.limits,
      cost: assertUnits(cost, 'The cost of a request'),
      whenUnavailable,
    };
  }

  async function decide(requests: readonly ResolvedRequest[]): Promise<RateLimitDecision[]> {
    const decisions = await consumeTogether(deps, requests);
    for (const [at, decision] of decisions.entries()) {
      const { policy } = requests[at]!;
      if (decision.allowed) limitDecisions.count(policy, 'admitted', decision.source);
      else if (decision.reason === 'limit') limitDecisions.count(policy, 'refused', decision.source);
      // `together` is not counted: another limit refused the request.
      else if (decision.reason === 'unavailable') limitDecisions.count(policy, 'unavailable', 'none');
    }
    return decisions;
  }

  /** Makes other isolates forget their counts of this key. */
  function markReset({ limits }: RateLimitPolicy, key: string) {
    return batch.send('SET', resetMark(key), '1', 'PX', Math.max(...limits.map(({ windowMs }) => windowMs)));
  }

  async function adjust(policy: RateLimitPolicy, identity: string | LimitKey, points: number): Promise<void> {
    const key = keyFor(policy, identity);
    blocked.delete(key);
    leases.drop(key, now());
    const { limits, name } = policy;
    const args = recordArguments(limits, now(), [{ time: 0, units: points, id: requestId() }]);
    await Promise.all([batch.run(rateLimitRecord, [key], args), points < 0 && markReset(policy, key)]);
    local.record({ key, policy: name, limits }, points, { atMs: now(), nowMs: now(), pinned: false });
  }

  return {
    keyOf: (policy, identity) => ({ key: keys.rateLimit(policy.name, identity) }),

    block(policy, identity, cost = 1) {
      const block = blocked.find(keyFor(policy, identity), policy, cost, now());
      if (block !== undefined) limitDecisions.count(policy.name, 'refused', 'memory');
      return block;
    },

    async consume(request) {
      const [decision] = await decide([resolve(request)]);
      return decision!;
    },

    async consumeAll(requests, withinMs = 0) {
      const resolved = requests.map(resolve);
      if (withinMs === 0) return decide(resolved);
      for (const { key } of resolved) leasing.returnOf(key);
      const deciding = decide(resolved);
      const leased = resolved.map((request) => leasing.lease(request, { own: request.cost, withinMs, through: batch }));
      const decisions = await deciding;
      const quotas = await Promise.all(leased);
      // The quotas must not promise leased units to other requests.
      return decisions.map((decision, index) => {
        const afterLease = quotas[index];
        return decision.allowed && afterLease !== undefined
          ? Object.assign(decision, { quotas: afterLease })
          : decision;
      });
    },

    recall(requests, withinMs) {
      const recalled = leasing.recall(requests.map(resolve), withinMs);
      if (recalled !== undefined)
        for (const { policy } of requests) limitDecisions.count(policy.name, 'admitted', 'lease');
      return recalled;
    },

    async peek(policy, identity) {
      const demand = { key: keyFor(policy, identity), limits: policy.limits, cost: 0 };
      const { replies } = await ask(batch, [demand], { id: requestId(), reserveMs: 0, nowMs: now() });
      return quotasOf(policy, replies[0]?.verdicts ?? []);
    },

    async reset(policy, identity) {
      const key = keyFor(policy, identity);
      blocked.delete(key);
      local.reset(key);
      leases.drop(key, now());
      await Promise.all([batch.send('UNLINK', key), markReset(policy, key)]);
    },

    penalty: async (policy, identity, points) => adjust(policy, identity, assertUnits(points, 'A penalty')),
    reward: async (policy, identity, points) => adjust(policy, identity, -assertUnits(points, 'A reward')),
  };
}
