import type { Limit } from './limits';
import { stepMs } from './limits';

/** Spending that Redis may not know. */
export interface ReportItem {
  /** The item is applied once under this id: the request's own id if its call may have been executed. */
  id: string;
  /** Negative: given back. */
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
  /** Not reported before this time unless its caller returns: the last attempt has failed. */
  notBeforeMs: number;
}

const MAX_REPORTS = 10_000;

/** Per counter. More occur only when a limit of thousands is used up within a few sub-windows. */
const MAX_ITEMS = 256;

const RETRY_MS = 1_000;

/** Spending that this isolate must report to Redis once it is back, by counter, with the time of each unit. */
export class Reports {
  readonly #reports = new Map<string, Report>();

  get size(): number {
    return this.#reports.size;
  }

  /** @returns the id under which the units are reported: that of an earlier item if the two became one */
  add(key: string, limits: readonly Limit[], item: ReportItem): string {
    let report = this.#reports.get(key);
    if (report === undefined) {
      // Spending that is not reported still counts in this isolate.
      if (this.#reports.size >= MAX_REPORTS) return item.id;
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
      // Keep the later time: spending must never expire too early.
      last.atMs = item.atMs;
      return last.id;
    }
    if (items.length >= 2 * MAX_ITEMS) items.shift();
    items.push(item);
    return item.id;
  }

  /** Whether Redis may not know all of this isolate's spending of a counter. */
  has(key: string): boolean {
    return this.#reports.has(key);
  }

  /** Removes a counter's report and passes it to the caller. After a failure, {@link restore} puts it back. */
  takeOf(key: string): Report | undefined {
    const report = this.#reports.get(key);
    this.#reports.delete(key);
    return report;
  }

  /** {@link takeOf} for up to this many counters, except those whose last report has just failed. */
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
   * Puts a report back after a failure. Spending since then comes after it.
   *
   * @param sent whether Redis may have received it
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
