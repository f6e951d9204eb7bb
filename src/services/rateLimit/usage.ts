import { recordedAtMs, stepMs } from './limits';
import type { Limit, LimitVerdict } from './limits';
import { UnitLog } from './unitLog';

/** The use of one limit. Agrees with the scripts in every step. */
export interface Usage {
  /** Advances to this time, which is never earlier than before. */
  advance(limit: Limit, nowMs: number): void;
  /** @param added units that the same request has already charged here */
  verdict(limit: Limit, cost: number, added: number): LimitVerdict;
  charge(limit: Limit, units: number, nowMs: number): void;
  /**
   * Charges units that were spent earlier, unless they have left the window.
   *
   * @param at their recorded time  @param askedAtMs if Redis has charged them, when it was asked
   */
  insert(limit: Limit, units: number, at: number, askedAtMs?: number): void;
  /** @param at the recorded time of their charge */
  giveBack(limit: Limit, units: number, at: number): void;
  /**
   * The recorded time of units that Redis has charged: no earlier than they were asked for, and no later than Redis's own
   * recorded time, by this isolate's clock. Otherwise this isolate would refuse requests that Redis admits.
   *
   * @param atMs when Redis was asked  @param counterAtMs when it charged them, by the counter's clock
   */
  mirroredAtMs(limit: Limit, atMs: number, counterAtMs: number): number;
  quota(limit: Limit): { remaining: number; resetMs: number };
  /** When it is equivalent to a new one. */
  freeAtMs(limit: Limit): number;
  /** Call when the clock was set back. */
  shift(ms: number): void;
  /** An independent copy. */
  copy(): Usage;
}

export function usageOf({ algorithm }: Limit): Usage {
  return algorithm === 'token-bucket' ? new BucketUsage() : new WindowUsage();
}

/**
 * Redis's sub-windows begin by its own clock. A reply that took long overstates how far that clock is ahead, so the least is
 * the best estimate, and the entries of a sub-window become one.
 */
class RedisSubWindows {
  /** The end of the sub-window in which Redis charged last, by its clock, and by how much that was ahead at most. */
  #lastEndMs = -1;
  #aheadMs = 0;

  /** The end of the sub-window in which Redis charged, by this isolate's clock: see {@link Usage.mirroredAtMs}. */
  endMs(limit: Limit, atMs: number, counterAtMs: number): number {
    if (stepMs(limit) === 1) return atMs;
    const endMs = recordedAtMs(limit, counterAtMs);
    const aheadMs = counterAtMs - atMs;
    this.#aheadMs = endMs === this.#lastEndMs ? Math.min(this.#aheadMs, aheadMs) : aheadMs;
    this.#lastEndMs = endMs;
    return endMs - this.#aheadMs;
  }

  forget(): void {
    this.#lastEndMs = -1;
  }
}

/** Sliding window: admits a request if its units and those recorded later than one window ago are at most the limit. */
class WindowUsage implements Usage {
  #log = new UnitLog();
  #nowMs = 0;
  readonly #subWindows = new RedisSubWindows();

  advance({ windowMs }: Limit, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#log.prune(nowMs - windowMs);
  }

  verdict(limit: Limit, cost: number, added: number): LimitVerdict {
    const { maxRequests, windowMs } = limit;
    const over = this.#log.total + added + cost - maxRequests;
    if (over <= 0) return { admitted: true, ...this.quota(limit), waitMs: 0 };
    const waitMs = added + cost > maxRequests ? Infinity : this.#log.timeOfUnit(over) + windowMs - this.#nowMs;
    return { admitted: false, ...this.quota(limit), waitMs };
  }

  charge(limit: Limit, units: number, nowMs: number): void {
    this.#log.append(units, recordedAtMs(limit, nowMs));
  }

  insert(limit: Limit, units: number, at: number): void {
    if (at + limit.windowMs > this.#nowMs) this.#log.insert(units, at);
  }

  giveBack(limit: Limit, units: number, at: number): void {
    if (at + limit.windowMs <= this.#nowMs) return;
    this.#log.take(units, at);
    this.#log.compact();
  }

  mirroredAtMs(limit: Limit, atMs: number, counterAtMs: number): number {
    return this.#subWindows.endMs(limit, atMs, counterAtMs);
  }

  quota({ maxRequests, windowMs }: Limit): { remaining: number; resetMs: number } {
    const { total, lastMs } = this.#log;
    return { remaining: Math.max(0, maxRequests - total), resetMs: total === 0 ? 0 : lastMs + windowMs - this.#nowMs };
  }

  freeAtMs({ windowMs }: Limit): number {
    return this.#log.total === 0 ? 0 : this.#log.lastMs + windowMs;
  }

  shift(ms: number): void {
    this.#nowMs -= ms;
    this.#subWindows.forget();
    this.#log.shift(ms);
  }

  copy(): Usage {
    const copied = new WindowUsage();
    copied.#log = this.#log.copy();
    copied.#nowMs = this.#nowMs;
    return copied;
  }
}

/**
 * Token bucket (GCRA): a debt in units of 1/maxRequests ms, paid off by time. The log of a window's charges gives the
 * present debt without one of them: if the bucket has been full since, giving a charge back changes nothing.
 */
class BucketUsage implements Usage {
  readonly #subWindows = new RedisSubWindows();
  #log = new UnitLog();
  #nowMs = 0;
  /** The debt just after the last charge, and the time of that charge (0: never charged). */
  #debt = 0;
  #chargedAtMs = 0;
  /** The debt just before the log's first entry. */
  #before = 0;

  advance({ windowMs, maxRequests }: Limit, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#log.prune(nowMs - windowMs, (units, gapMs) => {
      this.#before = Math.max(0, this.#before + units * windowMs - gapMs * maxRequests);
    });
  }

  verdict(limit: Limit, cost: number, added: number): LimitVerdict {
    const { maxRequests, windowMs } = limit;
    const over = this.#debtAt(limit, this.#nowMs) + (added + cost - maxRequests) * windowMs;
    const waitMs = added + cost > maxRequests ? Infinity : Math.max(0, Math.ceil(over / maxRequests));
    return { admitted: over <= 0, ...this.quota(limit), waitMs };
  }

  charge(limit: Limit, units: number, nowMs: number): void {
    const debt = this.#debtAt(limit, this.#nowMs);
    if (this.#log.total === 0) this.#before = debt;
    this.#log.append(units, recordedAtMs(limit, nowMs));
    this.#owe(debt + units * limit.windowMs);
  }

  insert(limit: Limit, units: number, at: number, askedAtMs?: number): void {
    if (at + limit.windowMs <= this.#nowMs) return;
    // The largest debt that the bucket can have had just before, according to its later entries.
    if (this.#log.total === 0) this.#before = this.#chargedAtMs === 0 ? 0 : this.#debtAt(limit, at);
    else if (at < this.#log.firstMs) this.#before += (this.#log.firstMs - at) * limit.maxRequests;
    this.#log.insert(units, at);
    // Redis has charged them by its debt then, without an estimate, and this isolate must not count more.
    if (askedAtMs !== undefined && askedAtMs >= this.#chargedAtMs) {
      return this.#owe(this.#debtAt(limit, askedAtMs) + units * limit.windowMs, askedAtMs);
    }
    const debt = this.#debtAt(limit, this.#nowMs);
    this.#owe(Math.max(debt, Math.min(debt + units * limit.windowMs, this.#replay(limit))));
  }

  mirroredAtMs(limit: Limit, atMs: number, counterAtMs: number): number {
    return this.#subWindows.endMs(limit, atMs, counterAtMs);
  }

  giveBack(limit: Limit, units: number, at: number): void {
    if (at + limit.windowMs <= this.#nowMs) return;
    const debt = this.#debtAt(limit, this.#nowMs);
    const least = debt - this.#log.take(units, at) * limit.windowMs;
    this.#owe(Math.max(0, least, Math.min(debt, this.#replay(limit))));
    this.#log.compact((gapMs) => {
      this.#before = Math.max(0, this.#before - gapMs * limit.maxRequests);
    });
  }

  quota(limit: Limit): { remaining: number; resetMs: number } {
    const { maxRequests, windowMs } = limit;
    const debt = this.#debtAt(limit, this.#nowMs);
    const remaining = Math.max(0, Math.floor((maxRequests * windowMs - debt) / windowMs));
    return { remaining, resetMs: Math.ceil(debt / maxRequests) };
  }

  freeAtMs(limit: Limit): number {
    const paidAtMs = this.#nowMs + this.quota(limit).resetMs;
    return this.#log.total === 0 ? paidAtMs : Math.max(paidAtMs, this.#log.lastMs + limit.windowMs);
  }

  shift(ms: number): void {
    this.#nowMs -= ms;
    if (this.#chargedAtMs > 0) this.#chargedAtMs -= ms;
    this.#subWindows.forget();
    this.#log.shift(ms);
  }

  copy(): Usage {
    const copied = new BucketUsage();
    copied.#log = this.#log.copy();
    copied.#nowMs = this.#nowMs;
    copied.#debt = this.#debt;
    copied.#chargedAtMs = this.#chargedAtMs;
    copied.#before = this.#before;
    return copied;
  }

  #debtAt({ maxRequests }: Limit, atMs: number): number {
    return Math.max(0, this.#debt - (atMs - this.#chargedAtMs) * maxRequests);
  }

  #owe(debt: number, chargedAtMs = this.#nowMs): void {
    this.#debt = Math.min(debt, Number.MAX_SAFE_INTEGER);
    this.#chargedAtMs = chargedAtMs;
  }

  /** The present debt according to the log's charges. */
  #replay({ windowMs, maxRequests }: Limit): number {
    let debt = this.#before;
    let before: number | undefined;
    for (const [atMs, units] of this.#log.entries()) {
      const at = Math.min(atMs, this.#nowMs);
      debt = Math.max(0, debt - (at - (before ?? at)) * maxRequests) + units * windowMs;
      before = at;
    }
    return Math.max(0, debt - (this.#nowMs - (before ?? this.#nowMs)) * maxRequests);
  }
}
