import { recordedAtMs } from './limits';
import type { Limit, LimitVerdict } from './limits';
import { usageOf } from './usage';
import type { Usage } from './usage';

interface Entry {
  limit: Limit;
  usage: Usage;
}

/** The recorded time of a request's units under each limit. */
export type MirroredTimes = readonly number[];

/** When Redis charged units, by the counter's clock; or, by this isolate's, the end of the lease that they were taken from. */
export type InRedis = { counterAtMs: number } | { leaseEndsAtMs: number };

/** Units that a request asks for, by the use of each limit. */
export type AddedUnits = Map<Usage, number>;

/** One counter in this isolate's memory: the use of a policy's limits by one identity. Its time never goes back. */
export class Counter {
  /** One per algorithm and window: so few that a linear search is faster than a map. */
  readonly #entries: Entry[] = [];
  #timeMs = 0;
  /** Until then it holds spending that Redis may not know: forgetting it would lift a limit. */
  pinnedUntilMs = 0;

  /**
   * The verdict of each limit on a request of this cost, without charging it.
   *
   * @param added units of other limiters of the same request; this cost is added to them
   */
  verdicts(limits: readonly Limit[], cost: number, nowMs: number, added: AddedUnits = new Map()): LimitVerdict[] {
    const time = this.#advance(nowMs);
    return limits.map((limit) => {
      const usage = this.#usage(limit, time);
      const before = added.get(usage) ?? 0;
      added.set(usage, before + cost);
      return usage.verdict(limit, cost, before);
    });
  }

  /** Whether this isolate's clock was set back since the last use. */
  isAheadOf(nowMs: number): boolean {
    return this.#timeMs > nowMs;
  }

  charge(limits: readonly Limit[], units: number, nowMs: number): void {
    const time = this.#advance(nowMs);
    for (const limit of limits) this.#usage(limit, time).charge(limit, units, time);
  }

  quotas(limits: readonly Limit[], nowMs: number): { remaining: number; resetMs: number }[] {
    const time = this.#advance(nowMs);
    return limits.map((limit) => this.#usage(limit, time).quota(limit));
  }

  /**
   * Charges units (or, if negative, gives them back) at the time at which they were spent.
   *
   * @param times their recorded times, if {@link mirror} has charged the request
   */
  record(limits: readonly Limit[], units: number, atMs: number, nowMs: number, times?: MirroredTimes): void {
    const time = this.#advance(nowMs);
    for (const [index, limit] of limits.entries()) {
      const usage = this.#usage(limit, time);
      const spentAtMs = units > 0 ? Math.min(atMs, time) : atMs;
      const at = times?.[index] ?? recordedAtMs(limit, spentAtMs);
      if (units > 0) usage.insert(limit, units, at, times && spentAtMs);
      if (units < 0) usage.giveBack(limit, -units, at);
    }
  }

  /** Charges units that Redis has charged. @param atMs when it was asked, or when they were taken from a lease */
  mirror(
    limits: readonly Limit[],
    units: number,
    { atMs, nowMs, inRedis }: { atMs: number; nowMs: number; inRedis: InRedis },
  ): MirroredTimes {
    const time = this.#advance(nowMs);
    const times = limits.map((limit) =>
      'counterAtMs' in inRedis
        ? this.#usage(limit, time).mirroredAtMs(limit, atMs, inRedis.counterAtMs)
        : Math.min(recordedAtMs(limit, atMs), Math.max(atMs, inRedis.leaseEndsAtMs)),
    );
    this.record(limits, units, atMs, nowMs, times);
    return times;
  }

  /** When all of its units have expired. */
  freeAtMs(nowMs: number): number {
    const time = this.#advance(nowMs);
    let free = 0;
    for (const { limit, usage } of this.#entries) {
      usage.advance(limit, time);
      free = Math.max(free, usage.freeAtMs(limit));
    }
    return free;
  }

  /** The largest used share of one of its limits. */
  usedShare(nowMs: number): number {
    const time = this.#advance(nowMs);
    let share = 0;
    for (const { limit, usage } of this.#entries) {
      usage.advance(limit, time);
      share = Math.max(share, 1 - usage.quota(limit).remaining / limit.maxRequests);
    }
    return share;
  }

  /** An independent copy. */
  copy(nowMs: number): Counter {
    const copied = new Counter();
    copied.#timeMs = this.#advance(nowMs);
    copied.pinnedUntilMs = this.pinnedUntilMs;
    for (const { limit, usage } of this.#entries) copied.#entries.push({ limit, usage: usage.copy() });
    return copied;
  }

  #usage(limit: Limit, timeMs: number): Usage {
    const { algorithm, windowMs } = limit;
    let entry = this.#entries.find(({ limit: known }) => known.windowMs === windowMs && known.algorithm === algorithm);
    if (entry === undefined) {
      entry = { limit, usage: usageOf(limit) };
      this.#entries.push(entry);
    }
    entry.limit = limit;
    entry.usage.advance(limit, timeMs);
    return entry.usage;
  }

  /**
   * After the clock was set back: by a little, the counter waits for the clock; by more than a window, it continues by the
   * new time.
   */
  #advance(nowMs: number): number {
    const behind = this.#timeMs - nowMs;
    if (behind <= 0) this.#timeMs = nowMs;
    else if (behind > Math.max(0, ...this.#entries.map(({ limit }) => limit.windowMs))) {
      for (const { usage } of this.#entries) usage.shift(behind);
      this.#timeMs = nowMs;
    }
    return this.#timeMs;
  }
}
