import { isDue, isWithin } from '../memory/remembered';
import { areSame } from './limits';
import type { Limit } from './limits';
import { Returns } from './returns';

/** Units that Redis has granted in advance. */
export interface UnitLease {
  readonly id: string;
  /** When it was requested and when it ends, by this isolate's clock. Redis has recorded its units at that end or later. */
  readonly askedAtMs: number;
  readonly endsAtMs: number;
  /** Its end by the counter's clock. */
  readonly recordedAtMs: number;
  /** The remaining units of each limit apart from the lease. */
  readonly states: readonly { remaining: number; resetAtMs: number }[];
  left: number;
}

/** The leases of one caller under one policy. */
interface Holding {
  readonly limits: readonly Limit[];
  /** The oldest first, whose units are used first. */
  leases: UnitLease[];
  /** Units that the caller is expected to use during a lease. */
  expected: number;
  /** How often in a row the caller has used less than half of that. */
  quiet: number;
  /** Units used since the last request for a lease, and the time of that request. */
  used: number;
  askedAtMs: number;
  /** No lease is requested before this time: the limit is nearly used up. */
  notBeforeMs: number;
}

/** The expected need of an unknown caller: a screen of an app makes five to ten requests. */
const FIRST_EXPECTED = 10;

/** After this many quiet leases in a row, the caller's expected number of requests is halved. */
const QUIET_TIMES = 3;

/** A lease takes at most a tenth of a limit, and of its remaining units. */
const LARGEST_PART = 10;
const MAX_UNITS = 1_000;

/** The share of each limit that leases must leave free. A caller with less left asks Redis for each request. */
const KEPT_SHARE = 0.25;

/** A lease lasts at most this share of a window: by that much its unused units could refuse other requests too early. */
const WINDOW_SHARE = 0.1;

/** After a refused lease, this isolate requests no lease for that caller for this time. */
const PAUSE_MS = 1_000;

const MAX_COUNTERS = 10_000;
/** The most policies with different limits on one counter. */
const MAX_POLICIES = 4;

/** The limits used to check a lease: it is granted only if a part of each limit stays free. */
export function limitsForLease(limits: readonly Limit[]): readonly Limit[] {
  let made = forLease.get(limits);
  if (made === undefined) {
    made = limits.map((limit) => ({ ...limit, maxRequests: limit.maxRequests - keptUnits(limit) }));
    forLease.set(limits, made);
  }
  return made;
}

const forLease = new WeakMap<readonly Limit[], readonly Limit[]>();

/** Units of a limit that leases must leave free. */
export function keptUnits({ maxRequests }: Limit): number {
  return Math.ceil(maxRequests * KEPT_SHARE);
}

/** The length of a lease of these limits. 0: no leases, because a bucket's burst and a lease would add up. */
export function leaseMs(limits: readonly Limit[], withinMs: number): number {
  let lengthMs = withinMs;
  for (const { algorithm, windowMs } of limits) {
    if (algorithm !== 'sliding-window') return 0;
    lengthMs = Math.min(lengthMs, Math.floor(windowMs * WINDOW_SHARE));
  }
  return lengthMs;
}

/**
 * Units that this isolate may spend without asking Redis, by counter. Redis has checked them against the window that begins
 * one window before the grant, and recorded them at the lease's end. So no window can exceed its limit: see
 * docs/rate-limits.md. Bounded; the units of evicted leases are given back.
 */
export class Leases {
  readonly returns = new Returns();
  readonly #holdings = new Map<string, Holding[]>();
  /** Ends of leases, in the order of their grants. */
  #ends: { key: string; endsAtMs: number }[] = [];

  get size(): number {
    return this.#holdings.size;
  }

  /** Finds the lease that can pay this many units. @param withinMs its largest age */
  find(
    key: string,
    limits: readonly Limit[],
    { units, withinMs, nowMs }: { units: number; withinMs: number; nowMs: number },
  ): UnitLease | undefined {
    const holding = this.#holdingOf(key, limits);
    if (holding === undefined) return undefined;
    this.#endOld(key, holding, nowMs);
    return holding.leases.find(({ left, askedAtMs }) => left >= units && isWithin(askedAtMs, withinMs, nowMs));
  }

  spend(key: string, limits: readonly Limit[], lease: UnitLease, units: number): void {
    lease.left -= units;
    const holding = this.#holdingOf(key, limits);
    if (holding !== undefined) holding.used += units;
  }

  /** Whether to request the caller's next lease: the newest one has nearly ended, or is nearly used up. */
  isDue(key: string, limits: readonly Limit[], lifeMs: number, nowMs: number): boolean {
    const holding = this.#holdingOf(key, limits);
    if (holding === undefined || nowMs < holding.notBeforeMs) return false;
    const newest = holding.leases.at(-1);
    if (newest === undefined || isDue(newest.askedAtMs, lifeMs, nowMs)) return true;
    return 10 * leftOf(holding) < holding.expected;
  }

  /**
   * How many units to lease now; 0: none. The number follows the caller's use since the last lease, at most doubling, and
   * halving after several quiet leases. It is limited by the known remaining units.
   *
   * @param own units that the caller uses now, apart from leases
   */
  want(
    key: string,
    limits: readonly Limit[],
    { own, lifeMs, nowMs }: { own: number; lifeMs: number; nowMs: number },
  ): number {
    const holding = this.#holdingOf(key, limits) ?? this.#add(key, limits, nowMs);
    this.#touch(key);
    this.#endOld(key, holding, nowMs);
    const { askedAtMs, expected, used } = holding;
    const elapsedMs = nowMs - askedAtMs;
    const rate = elapsedMs > 0 && elapsedMs < lifeMs ? Math.ceil((used * lifeMs) / elapsedMs) : used;
    if (askedAtMs > -Infinity) {
      holding.quiet = 2 * rate < expected ? holding.quiet + 1 : 0;
      const least = holding.quiet < QUIET_TIMES ? expected : Math.max(1, Math.floor(expected / 2));
      holding.expected = Math.max(2 * rate < expected ? least : 1, Math.min(rate, 2 * expected, MAX_UNITS));
    }
    holding.askedAtMs = nowMs;
    holding.used = own;
    if (nowMs < holding.notBeforeMs) return 0;
    let most = MAX_UNITS;
    for (const [index, { maxRequests }] of limits.entries()) {
      const remaining = holding.leases.at(-1)?.states[index]?.remaining ?? maxRequests;
      most = Math.min(most, Math.floor(Math.min(maxRequests, remaining) / LARGEST_PART));
    }
    // Count only those held units that will be used before their lease ends.
    const restMs = Math.max(0, (holding.leases.at(-1)?.endsAtMs ?? 0) - nowMs);
    const held = Math.min(leftOf(holding), Math.ceil((holding.expected * restMs) / lifeMs));
    return Math.max(0, Math.min(most, holding.expected - own - held));
  }

  grant(key: string, limits: readonly Limit[], lease: UnitLease, nowMs: number): void {
    const holding = this.#holdingOf(key, limits);
    if (holding === undefined || lease.endsAtMs <= nowMs) return this.#giveBack(key, limits, lease, nowMs);
    holding.leases.push(lease);
    this.#ends.push({ key, endsAtMs: lease.endsAtMs });
  }

  /** Redis has refused a lease: the limit is nearly used up. */
  pause(key: string, limits: readonly Limit[], nowMs: number): void {
    const holding = this.#holdingOf(key, limits);
    if (holding !== undefined) holding.notBeforeMs = nowMs + PAUSE_MS;
  }

  /** Ends the leases of a counter: its caller asks Redis again. */
  drop(key: string, nowMs: number): void {
    for (const holding of this.#holdings.get(key) ?? []) {
      for (const lease of holding.leases.splice(0)) this.#giveBack(key, holding.limits, lease, nowMs);
    }
  }

  /** Returns units that were not used: they can be used again, or are given back. */
  restore(key: string, limits: readonly Limit[], lease: UnitLease, units: number, nowMs: number): void {
    const holding = this.#holdingOf(key, limits);
    if (holding?.leases.includes(lease) === true && lease.endsAtMs > nowMs) lease.left += units;
    else this.#giveBack(key, limits, { ...lease, left: units }, nowMs);
  }

  /** Ends expired leases, including those of callers who do not return. */
  sweep(nowMs: number): void {
    let ended = 0;
    while (ended < this.#ends.length && this.#ends[ended]!.endsAtMs <= nowMs) {
      const { key } = this.#ends[ended]!;
      for (const holding of this.#holdings.get(key) ?? []) this.#endOld(key, holding, nowMs);
      ended += 1;
    }
    if (ended > 0) this.#ends = this.#ends.slice(ended);
  }

  /** Whether {@link sweep} or the returns have work to do. */
  hasDue(nowMs: number): boolean {
    const [first] = this.#ends;
    return (first !== undefined && first.endsAtMs <= nowMs) || this.returns.isDue(nowMs);
  }

  /** A lease can only pay under exactly the limits of its grant. */
  #holdingOf(key: string, limits: readonly Limit[]): Holding | undefined {
    return this.#holdings.get(key)?.find((holding) => areSame(holding.limits, limits));
  }

  #add(key: string, limits: readonly Limit[], nowMs: number): Holding {
    const others = this.#holdings.get(key) ?? [];
    if (others.length === 0 && this.#holdings.size >= MAX_COUNTERS) this.#forgetOldest(nowMs);
    const holding: Holding = {
      limits,
      leases: [],
      expected: FIRST_EXPECTED,
      quiet: 0,
      used: 0,
      askedAtMs: -Infinity,
      notBeforeMs: 0,
    };
    for (const { limits: of, leases } of others.slice(MAX_POLICIES - 1)) {
      for (const lease of leases) this.#giveBack(key, of, lease, nowMs);
    }
    this.#holdings.set(key, [holding, ...others.slice(0, MAX_POLICIES - 1)]);
    return holding;
  }

  /** Marks the counter as used. The least recently used one is evicted first. */
  #touch(key: string): void {
    const holdings = this.#holdings.get(key);
    this.#holdings.delete(key);
    if (holdings !== undefined) this.#holdings.set(key, holdings);
  }

  #forgetOldest(nowMs: number): void {
    for (const key of this.#holdings.keys()) {
      this.drop(key, nowMs);
      this.#holdings.delete(key);
      return;
    }
  }

  #endOld(key: string, holding: Holding, nowMs: number): void {
    // If the clock was set back, end them as well.
    const isOver = ({ endsAtMs, askedAtMs }: UnitLease) => endsAtMs <= nowMs || askedAtMs > nowMs;
    if (!holding.leases.some(isOver)) return;
    for (const lease of holding.leases) if (isOver(lease)) this.#giveBack(key, holding.limits, lease, nowMs);
    holding.leases = holding.leases.filter((lease) => !isOver(lease));
  }

  #giveBack(key: string, limits: readonly Limit[], lease: UnitLease, nowMs: number): void {
    const { id, left, recordedAtMs, endsAtMs } = lease;
    if (left === 0) return;
    // A request that the lease has paid, and whose cost grows later, must not also spend them.
    lease.left = 0;
    const item = { leaseId: id, units: left, recordedAtMs, endedAtMs: Math.min(endsAtMs, nowMs) };
    this.returns.add(key, limits, item);
  }
}

function leftOf({ leases }: Holding): number {
  return leases.reduce((sum, { left }) => sum + left, 0);
}
