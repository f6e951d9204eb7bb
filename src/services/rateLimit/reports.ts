import type { Limit } from './limits';
import { stepMs } from './limits';

/** Spending that Redis may not know of. */
export interface ReportItem {
  /** Done once, under this id: the request's own, where its call may have been executed. */
  id: string;
  /** Negative: given back, of the request with this id. */
  units: number;
  of?: string;
  /** By this isolate's clock. */
  atMs: number;
  /** Whether Redis may have seen the id. */
  sent: boolean;
}

export interface Report {
  key: string;
  limits: readonly Limit[];
  items: ReportItem[];
  /** Not before this time, unless its caller comes again: the last try has failed. */
  notBeforeMs: number;
}

const MAX_REPORTS = 10_000;

/** Of one counter. More come only when a limit of thousands is used up within a few sub-windows. */
const MAX_ITEMS = 256;

const RETRY_MS = 1_000;

/** What this isolate has to report to Redis once it is back, by counter, with the time at which each unit was spent. */
export class Reports {
  readonly #reports = new Map<string, Report>();

  get size(): number {
    return this.#reports.size;
  }

  add(key: string, limits: readonly Limit[], item: ReportItem): void {
    let report = this.#reports.get(key);
    if (report === undefined) {
      // What is not reported still counts in this isolate.
      if (this.#reports.size >= MAX_REPORTS) return;
      report = { key, limits, items: [], notBeforeMs: 0 };
      this.#reports.set(key, report);
    }
    const span = Math.max(...limits.map(({ windowMs }) => windowMs));
    const { items } = report;
    while (items[0] !== undefined && items[0].atMs + 2 * span < item.atMs) items.shift();
    const last = items.at(-1);
    const step = Math.min(...limits.map(stepMs));
    const mergeable = last !== undefined && !last.sent && !item.sent && last.units > 0 && item.units > 0;
    if (mergeable && (items.length >= MAX_ITEMS || Math.ceil(last.atMs / step) === Math.ceil(item.atMs / step))) {
      last.units += item.units;
      // The later time of the two: never less than what was spent.
      last.atMs = item.atMs;
      return;
    }
    if (items.length >= 2 * MAX_ITEMS) items.shift();
    items.push(item);
  }

  /** Whether Redis may not know all that this isolate has spent of a counter. */
  has(key: string): boolean {
    return this.#reports.has(key);
  }

  /** What is to be reported of one counter now. It is the caller's then: {@link restore} brings it back. */
  takeOf(key: string): Report | undefined {
    const report = this.#reports.get(key);
    this.#reports.delete(key);
    return report;
  }

  /** {@link takeOf} for up to so many counters, those aside whose last report has just failed. */
  take(max: number, nowMs: number): Report[] {
    const taken: Report[] = [];
    for (const report of this.#reports.values()) {
      if (taken.length >= max) break;
      if (report.notBeforeMs <= nowMs) taken.push(report);
    }
    for (const { key } of taken) this.#reports.delete(key);
    return taken;
  }

  /**
   * After a failure; what has been spent since then stands behind it.
   *
   * @param sent whether Redis may have seen it
   */
  restore({ key, limits, items }: Report, nowMs: number, sent: boolean): void {
    for (const item of items) item.sent ||= sent;
    const since = this.#reports.get(key)?.items ?? [];
    this.#reports.set(key, { key, limits, items: [...items, ...since], notBeforeMs: nowMs + RETRY_MS });
  }

  delete(key: string): void {
    this.#reports.delete(key);
  }
}
