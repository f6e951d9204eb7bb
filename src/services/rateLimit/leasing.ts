import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import { rateLimitRecord } from '../../redis/scripts/rateLimitRecord';
import type { Refresher } from '../memory/refresher';
import { ask, recordArguments, requestId } from './ask';
import { mayHaveRun } from './consume';
import type { ConsumeDeps, ResolvedRequest } from './consume';
import type { MirroredTimes } from './counter';
import { quotasOf } from './decisions';
import type { Quota, RateLimitDecision } from './decisions';
import { keptUnits, leaseMs, limitsForLease } from './leases';
import type { UnitLease } from './leases';
import { returnItems } from './returns';
import type { Return } from './returns';

export interface LeasingDeps extends ConsumeDeps {
  refresher: Refresher;
}

/** The most counters that get units back with one pipeline. */
const RETURNS_AT_ONCE = 100;

/** Decides requests with units that Redis has leased to this isolate. */
export function createLeasing(deps: LeasingDeps) {
  const { batch, local, leases, refresher, now } = deps;

  /** Leases units for the caller's next requests. @param own units that this request uses apart from the lease */
  async function lease(
    request: ResolvedRequest,
    { own, withinMs, through }: { own: number; withinMs: number; through: RedisBatch },
  ): Promise<readonly Quota[] | undefined> {
    const { key, limits, named: policy } = request;
    const askedAtMs = now();
    const lifeMs = leaseMs(limits, withinMs);
    const units = lifeMs > 0 ? leases.want(key, limits, { own, lifeMs, nowMs: askedAtMs }) : 0;
    if (units === 0) return undefined;
    const id = requestId();
    const checked = limitsForLease(limits);
    const endsAtMs = askedAtMs + lifeMs;
    try {
      const demand = { key, limits: checked, cost: units };
      const { decision, replies } = await ask(through, [demand], {
        id,
        reserveMs: 0,
        nowMs: askedAtMs,
        aheadMs: lifeMs,
      });
      const nowMs = now();
      const reply = replies[0];
      if (decision !== 'admitted' || reply === undefined) {
        leases.pause(key, limits, nowMs);
        return undefined;
      }
      const states = reply.verdicts.map(({ remaining, resetMs }, index) => ({
        remaining: remaining + keptUnits(limits[index]!),
        resetAtMs: nowMs + resetMs,
      }));
      const granted: UnitLease = { id, askedAtMs, endsAtMs, recordedAtMs: reply.atMs + lifeMs, states, left: units };
      leases.grant(key, limits, granted, nowMs);
      return quotasOf(policy, statesAt(granted, nowMs));
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      // The call may have been executed: its units must be given back.
      if (mayHaveRun(error)) {
        const item = { leaseId: id, units, recordedAtMs: undefined, endedAtMs: endsAtMs };
        leases.returns.add(key, limits, item);
      }
      return undefined;
    }
  }

  /** Gives units back before their counter is asked, in the same pipeline, so that they refuse no request. */
  function returnOf(key: string): void {
    const waiting = leases.returns.takeOf(key);
    if (waiting !== undefined) void giveBack(waiting, batch);
  }

  async function giveBack(waiting: Return, through: RedisBatch): Promise<void> {
    const { key, limits } = waiting;
    const nowMs = now();
    const items = returnItems(waiting, nowMs, requestId);
    try {
      await through.run(rateLimitRecord, [key], recordArguments(limitsForLease(limits), nowMs, items));
    } catch (error) {
      // Until their window is over these units count as spent: requests may be refused too early, but never too many admitted.
      if (!(error instanceof RedisError)) throw error;
    }
  }

  /** Pays every one of these requests from leases. `undefined` if one cannot be paid: then no unit was spent. */
  function recall(requests: readonly ResolvedRequest[], withinMs: number): (() => RateLimitDecision)[] | undefined {
    const nowMs = now();
    const planned = new Map<UnitLease, number>();
    const paid: UnitLease[] = [];
    for (const request of requests) {
      const { key, limits, cost } = request;
      // Units that this isolate has spent without Redis must not add up with a lease, and Redis may have lost units that it
      // admitted through this isolate.
      if (local.reports.has(key) || local.contradiction(request, nowMs) !== undefined) return undefined;
      const found = leases.find(key, limits, { units: cost, withinMs, nowMs });
      const units = found === undefined ? 0 : (planned.get(found) ?? 0) + cost;
      if (found === undefined || units > found.left) return undefined;
      planned.set(found, units);
      paid.push(found);
    }
    return requests.map((request, index) => () => spend(request, paid[index]!, { withinMs, nowMs }));
  }

  function spend(
    request: ResolvedRequest,
    from: UnitLease,
    { withinMs, nowMs }: { withinMs: number; nowMs: number },
  ): RateLimitDecision {
    const { key, limits, cost, named: policy } = request;
    leases.spend(key, limits, from, cost);
    const times = local.mirror(request, nowMs, { leaseEndsAtMs: from.endsAtMs });
    if (leases.isDue(key, limits, leaseMs(limits, withinMs), nowMs)) {
      refresher.note(`lease ${key}`, async (through) => {
        await lease(request, { own: 0, withinMs, through });
      });
    }
    return {
      allowed: true,
      source: 'lease',
      quotas: quotasOf(policy, statesAt(from, nowMs)),
      settle: (units) => settle(request, from, { units, spentAtMs: nowMs, times }),
    };
  }

  /** After the response: corrects the cost of a request. */
  function settle(
    request: ResolvedRequest,
    from: UnitLease,
    { units, spentAtMs, times }: { units: number; spentAtMs: number; times: MirroredTimes | undefined },
  ): void {
    if (units === 0) return;
    const { key, limits } = request;
    const nowMs = now();
    local.record(request, units, { atMs: spentAtMs, nowMs, pinned: false, times });
    if (units < 0) return leases.restore(key, limits, from, -units, nowMs);
    const held = Math.min(units, from.endsAtMs > nowMs ? from.left : 0);
    leases.spend(key, limits, from, held);
    if (held === units) return;
    const item = { id: requestId(), units: units - held };
    batch
      .deferRun(rateLimitRecord, [key], recordArguments(limits, nowMs, [{ ...item, time: from.recordedAtMs }]))
      .catch(() => local.reports.add(key, limits, { ...item, atMs: spentAtMs, sent: true }));
  }

  /** The units to give back after a response. */
  function dueReturns(nowMs: number): ((through: RedisBatch) => Promise<void>)[] {
    leases.sweep(nowMs);
    return leases.returns
      .take(RETURNS_AT_ONCE, nowMs)
      .map((waiting) => (through: RedisBatch) => giveBack(waiting, through));
  }

  return { lease, returnOf, recall, dueReturns };
}

/** As of the lease. Its own units are not included: other requests of the caller may use them. */
function statesAt({ states }: UnitLease, nowMs: number): { remaining: number; resetMs: number }[] {
  return states.map(({ remaining, resetAtMs }) => ({ remaining, resetMs: Math.max(0, resetAtMs - nowMs) }));
}
