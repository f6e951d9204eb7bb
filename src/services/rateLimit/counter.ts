import type { Limit, LimitVerdict } from './limits';
import { usageOf } from './usage';
import type { Usage } from './usage';

interface Entry {
  limit: Limit;
  usage: Usage;
}

/** One counter in this isolate's memory: what one identity has used of a policy's limits. Time never goes back in it. */
export class Counter {
  /** One for each algorithm and window: few, so that searching them costs less than a map's keys. */
  readonly #entries: Entry[] = [];
  #timeMs = 0;
  /** Until when it holds spending that Redis may not know, so that forgetting it would lift a limit. */
  pinnedUntilMs = 0;

  /** What each limit says of a request of this cost, without charging it. */
  verdicts(limits: readonly Limit[], cost: number, added: number, nowMs: number): LimitVerdict[] {
    const time = this.#advance(nowMs);
    return limits.map((limit) => this.#usage(limit, time).verdict(limit, cost, added));
  }

  /** Whether this isolate's clock has been set back since it was used last. */
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

  /** Charges (or, negative, gives back) at the time at which it was spent. */
  record(limits: readonly Limit[], units: number, atMs: number, nowMs: number): void {
    const time = this.#advance(nowMs);
    for (const limit of limits) {
      const usage = this.#usage(limit, time);
      if (units > 0) usage.insert(limit, units, Math.min(atMs, time));
      if (units < 0) usage.giveBack(limit, -units, atMs);
    }
  }

  /** From when on nothing in it counts any more. */
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

  /** The same, apart. */
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

  /** A clock that was set back: a little, and the counter waits for it; by more than a window, and it goes on by it. */
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
