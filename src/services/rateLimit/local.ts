import { Counter } from './counter';
import type { AddedUnits, InRedis, MirroredTimes } from './counter';
import type { Limit, LimitVerdict } from './limits';
import { Reports } from './reports';

/** One identity under one policy, in this isolate's count. */
export interface LocalDemand {
  key: string;
  policy: string;
  limits: readonly Limit[];
  cost: number;
}

export interface LocalLimiterOptions {
  /** The most counters to keep. @default 10_000 */
  maxCounters?: number;
}

/** Identities without their own counter share this many counters for each policy. */
const SHARED_PER_POLICY = 64;

/** How many counters are examined to find one that may be evicted. */
const LOOKED_AT = 16;

/**
 * The same limits in this isolate's memory, with the same numbers: they decide while Redis is away. Units that Redis has
 * admitted are recorded too, so that an outage grants no second quota.
 *
 * The memory is bounded, but a flood of other keys cannot empty it. Units that this isolate has admitted without Redis stay
 * until they have left their window. Counters that Redis also knows may be evicted, the least used first. When there is no
 * room, new identities share counters: each shared counter admits the limit once, for all of them together.
 */
export class LocalLimiter {
  /** Spending to report to Redis. */
  readonly reports = new Reports();
  /** Whether Redis is known to refuse keys of different hash tags in one script. */
  crossSlot = false;
  readonly #counters = new Map<string, Counter>();
  readonly #shared = new Map<string, Counter>();
  readonly #max: number;

  constructor({ maxCounters = 10_000 }: LocalLimiterOptions = {}) {
    this.#max = maxCounters;
  }

  get size(): number {
    return this.#counters.size + this.#shared.size;
  }

  /** Decides all demands together: if one is refused, none is charged. */
  consume(demands: readonly LocalDemand[], nowMs: number): LimitVerdict[][] {
    const counters = demands.map((demand) => this.#counterOf(demand, nowMs));
    const added = new Map<Counter, AddedUnits>();
    const verdicts = demands.map(({ limits, cost }, index) => {
      const counter = counters[index]!;
      const before = added.get(counter) ?? new Map();
      added.set(counter, before);
      return counter.verdicts(limits, cost, nowMs, before);
    });
    if (verdicts.flat().some(({ admitted }) => !admitted)) return verdicts;
    demands.forEach((demand, index) => this.#charge(counters[index]!, demand, nowMs));
    return verdicts.map((list, index) => {
      const quotas = counters[index]!.quotas(demands[index]!.limits, nowMs);
      return list.map((verdict, which) => ({ ...verdict, ...quotas[which] }));
    });
  }

  /** The verdicts that {@link consume} would give on one demand, without charging it. */
  verdicts(demand: LocalDemand, nowMs: number): LimitVerdict[] {
    return this.#counterOf(demand, nowMs).verdicts(demand.limits, demand.cost, nowMs);
  }

  /**
   * The verdicts that refuse a request although Redis has admitted it: Redis has lost units that it had admitted through
   * this isolate. `undefined` if there are none.
   */
  contradiction({ key, limits, cost }: LocalDemand, nowMs: number): LimitVerdict[] | undefined {
    const counter = this.#counters.get(key);
    if (cost === 0 || counter === undefined || counter.isAheadOf(nowMs)) return undefined;
    const verdicts = counter.verdicts(limits, cost, nowMs);
    return verdicts.every(({ admitted }) => admitted) ? undefined : verdicts;
  }

  /** The remaining units according to this isolate; `undefined` if it has counted none. */
  quotas({ key, limits }: LocalDemand, nowMs: number): { remaining: number; resetMs: number }[] | undefined {
    const counter = this.#counters.get(key);
    return counter === undefined || counter.isAheadOf(nowMs) ? undefined : counter.quotas(limits, nowMs);
  }

  /**
   * Records a request that Redis has admitted.
   *
   * @param atMs when Redis was asked: not later than Redis's own time of the charge. With a later time, the charge would
   *   still count here after it has left Redis's window, as if Redis had lost it
   * @returns for {@link record}, when the request's cost is corrected
   */
  mirror({ key, limits, cost }: LocalDemand, atMs: number, inRedis: InRedis, nowMs = atMs): MirroredTimes | undefined {
    const counter = this.#counters.get(key) ?? (cost === 0 ? undefined : this.#add(key, new Counter(), nowMs));
    return counter?.mirror(limits, cost, { atMs, nowMs, inRedis });
  }

  /**
   * Charges (or gives back) units that were spent at `atMs`.
   *
   * @param pinned Redis may not know of them  @param times what {@link mirror} has returned
   */
  record(
    demand: Omit<LocalDemand, 'cost'>,
    units: number,
    { atMs, nowMs, pinned, times }: { atMs: number; nowMs: number; pinned: boolean; times?: MirroredTimes | undefined },
  ): void {
    if (units === 0) return;
    const counter = pinned ? this.#counterOf({ ...demand, cost: units }, nowMs) : this.#counters.get(demand.key);
    if (counter === undefined) return;
    counter.record(demand.limits, units, atMs, nowMs, times);
    if (pinned && units > 0) this.#pin(counter, nowMs);
  }

  reset(key: string): void {
    this.#counters.delete(key);
    this.reports.delete(key);
  }

  #charge(counter: Counter, { limits, cost }: LocalDemand, nowMs: number): void {
    if (cost === 0) return;
    counter.charge(limits, cost, nowMs);
    this.#pin(counter, nowMs);
  }

  #pin(counter: Counter, nowMs: number): void {
    counter.pinnedUntilMs = Math.max(counter.pinnedUntilMs, counter.freeAtMs(nowMs));
  }

  /** The identity's own counter, or its shared one. */
  #counterOf({ key, policy, limits }: LocalDemand, nowMs: number): Counter {
    const own = this.#counters.get(key);
    if (own !== undefined) return own;
    const sharedKey = `${policy} ${limits.map((limit) => `${limit.windowMs}/${limit.maxRequests}`).join()} ${bucketOf(key)}`;
    const shared = this.#shared.get(sharedKey);
    const inUse = shared !== undefined && shared.freeAtMs(nowMs) > nowMs;
    // The identity may have spent all of the shared counter's units, so its own counter starts with all of them.
    const added = this.#add(key, inUse ? shared.copy(nowMs) : new Counter(), nowMs);
    if (added !== undefined) return added;
    if (inUse) return shared;
    this.#dropFree(nowMs);
    const fresh = new Counter();
    this.#shared.set(sharedKey, fresh);
    return fresh;
  }

  /** @returns `undefined` if there is no room */
  #add(key: string, counter: Counter, nowMs: number): Counter | undefined {
    if (this.#counters.size >= this.#max && !this.#makeRoom(nowMs)) return undefined;
    this.#counters.set(key, counter);
    return counter;
  }

  /** Evicts one counter: an expired one, else the least used of those that Redis also knows. */
  #makeRoom(nowMs: number): boolean {
    let least: { key: string; share: number } | undefined;
    let looked = 0;
    for (const [key, counter] of this.#counters) {
      if (looked === LOOKED_AT) break;
      looked += 1;
      if (counter.freeAtMs(nowMs) <= nowMs) {
        this.#counters.delete(key);
        return true;
      }
      // The next call examines other counters.
      this.#counters.delete(key);
      this.#counters.set(key, counter);
      if (counter.pinnedUntilMs > nowMs) continue;
      const share = counter.usedShare(nowMs);
      if (least === undefined || share < least.share) least = { key, share };
    }
    if (least === undefined) return false;
    this.#counters.delete(least.key);
    return true;
  }

  #dropFree(nowMs: number): void {
    for (const [key, counter] of this.#shared) if (counter.freeAtMs(nowMs) <= nowMs) this.#shared.delete(key);
  }
}

/** FNV-1a. */
function bucketOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i += 1) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % SHARED_PER_POLICY;
}
