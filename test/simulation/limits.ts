import { BOUNDS, LIMITS } from './bounds.ts';
import type { LimitName } from './bounds.ts';
import type { Exchange } from './exchange.ts';
import type { Isolate } from './isolate.ts';
import type { Numbers } from './own.ts';
import type { Timeline } from './timeline.ts';

/** A request that a limiter has admitted, some time between two times. */
interface Admission {
  isolate: Isolate;
  fromMs: number;
  toMs: number;
  /** The isolate counted by itself, and could not know better. */
  alone: boolean;
}

/** Numbers that the administrator has put in place of those of the limiter `own`. */
export interface Override {
  readonly maxRequests: number;
  readonly sinceMs: number;
  ackedMs: number;
}

export interface LimitDeps {
  timeline: Timeline;
  /** By how much an isolate's clock may be wrong about a window: clocks drift, and the plan may set them back. */
  clocksMs: number;
  /** Whether isolates may lease units ahead of their use. */
  leases: boolean;
  violate: (atMs: number, text: string) => void;
}

/** An override whose response was lost is made within this time, or never. */
const LATE_MS = 60_000;

/** Counts what limiters admit: no window may have more than the numbers that are in force in it. */
export class Limits {
  readonly #deps: LimitDeps;
  readonly #visits = new Map<string, number[]>();
  readonly #admissions = new Map<string, Admission[]>();
  readonly #overrides: Override[] = [
    { maxRequests: LIMITS.own.maxRequests, sinceMs: Number.NEGATIVE_INFINITY, ackedMs: Number.NEGATIVE_INFINITY },
  ];
  /** When D1 was last taken back: overrides of before may be in force again. */
  restoredMs = Number.NEGATIVE_INFINITY;

  constructor(deps: LimitDeps) {
    this.#deps = deps;
  }

  /** An override is on its way. @returns it, for the time of its acknowledgement */
  overriding(maxRequests: number, sinceMs: number): Override {
    const override = { maxRequests, sinceMs, ackedMs: Number.POSITIVE_INFINITY };
    this.#overrides.push(override);
    return override;
  }

  /** A request of this caller is sent. @returns its number */
  visit(identity: string, sentMs: number): number {
    const visits = this.#visits.get(identity) ?? [];
    this.#visits.set(identity, visits);
    return visits.push(sentMs);
  }

  /** Whether nothing has been sent since. */
  isLast(identity: string, visit: number): boolean {
    return this.#visits.get(identity)?.length === visit;
  }

  /**
   * A caller who has sent nothing since a refusal retries after its `Retry-After` and is refused again. Where units may be leased to other
   * isolates, or other numbers have come into force, that is no fault.
   */
  refusedAgain({ isolate, label, sentMs, arrivedMs, degraded }: Exchange, identity: string, first: Exchange): void {
    const { timeline, clocksMs, leases, violate } = this.#deps;
    const { windowMs } = LIMITS.own;
    // What was counted while something was wrong may be counted twice, for a window.
    const fromMs = first.sentMs - 2 * windowMs;
    const isSteady =
      clocksMs === 0 && !leases && this.#overrides.every(({ sinceMs, ackedMs }) => isOver(sinceMs, ackedMs));
    function isOver(sinceMs: number, ackedMs: number): boolean {
      return sinceMs === Number.NEGATIVE_INFINITY || ackedMs + BOUNDS.overridesMs < fromMs;
    }
    if (!isSteady || degraded !== '' || !timeline.calm(fromMs, arrivedMs)) return;
    violate(
      arrivedMs,
      `${label} at ${isolate.name}: ${identity} came back after Retry-After, ${sentMs - first.arrivedMs} ms, and was refused`,
    );
  }

  /** @param alone the isolate counts by itself, and cannot know better */
  admitted({ isolate, label, sentMs, arrivedMs }: Exchange, limit: LimitName, identity: string, alone: boolean): void {
    const { timeline, violate } = this.#deps;
    const key = `${limit} ${identity}`;
    const all = this.#admissions.get(key) ?? [];
    this.#admissions.set(key, all);
    all.push({ isolate, fromMs: sentMs, toMs: arrivedMs, alone });
    const { windowMs } = LIMITS[limit];
    const inWindow = all
      .filter(({ fromMs, toMs }) => arrivedMs - fromMs < windowMs - this.#deps.clocksMs && toMs <= arrivedMs)
      .sort((a, b) => a.fromMs - b.fromMs);
    const own = inWindow.filter((one) => one.isolate === isolate);
    const most =
      limit === 'own' ? Math.max(...this.#overrides.map((one) => one.maxRequests)) : LIMITS[limit].maxRequests;
    if (own.length > most) {
      violate(arrivedMs, `${label}: ${isolate.name} admitted ${own.length} of ${identity} within ${windowMs} ms`);
      return;
    }
    const together = inWindow.filter((one) => !one.alone);
    for (const [index, { fromMs }] of together.entries()) {
      const count = together.length - index;
      const { maxRequests } = limit === 'own' ? this.#inForce(fromMs, arrivedMs) : LIMITS[limit];
      if (count <= maxRequests || !timeline.calm(fromMs, arrivedMs)) continue;
      violate(arrivedMs, `${label}: ${count} of ${identity} were admitted within ${windowMs} ms, not ${maxRequests}`);
      return;
    }
  }

  /** The most that may be in force somewhere in a window. */
  #inForce(fromMs: number, toMs: number): Pick<Numbers, 'maxRequests'> {
    const begun = this.#overrides.filter(({ sinceMs }) => sinceMs <= toMs);
    const settled = begun.filter((one) => this.#isSettled(one, fromMs));
    const isOver = ({ sinceMs, ackedMs }: Override) =>
      settled.some((later) => later.sinceMs > Math.min(ackedMs, sinceMs + LATE_MS) && later.sinceMs > this.restoredMs);
    const possible = this.#hasCopy(fromMs, toMs) ? begun.filter((one) => !isOver(one)) : begun;
    return { maxRequests: Math.max(...possible.map(({ maxRequests }) => maxRequests)) };
  }

  /** Whether every isolate goes by an override from then on. */
  #isSettled({ sinceMs, ackedMs }: Override, fromMs: number): boolean {
    const { timeline, clocksMs } = this.#deps;
    if (!(ackedMs <= fromMs)) return false;
    const wrong = timeline.between(sinceMs - BOUNDS.breakerMs, fromMs).filter(({ kind }) => kind !== 'database');
    const lastMs = Math.max(ackedMs, ...wrong.map(({ toMs }) => toMs));
    const toldMs = wrong.length === 0 ? ackedMs : timeline.firstCronAfter(lastMs);
    return toldMs + BOUNDS.overridesMs + clocksMs <= fromMs;
  }

  /** Whether Redis has had its copy of the overrides all the while: without it an isolate reads D1 beside its requests. */
  #hasCopy(fromMs: number, toMs: number): boolean {
    const { timeline } = this.#deps;
    const earliestMs = toMs - BOUNDS.overridesCopyMs;
    const acked = this.#overrides.some(({ ackedMs }) => ackedMs <= fromMs && ackedMs >= earliestMs);
    return acked || timeline.firstCronAfter(earliestMs) <= fromMs;
  }
}
