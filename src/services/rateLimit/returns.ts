import type { Limit } from './limits';
import type { RecordItem } from './ask';

/** Unused leased units, to be given back at the time at which they are recorded. */
export interface ReturnItem {
  /** The id of the lease's charge. */
  leaseId: string;
  units: number;
  /** By the counter's clock; `undefined`: the reply to the lease was lost. */
  recordedAtMs: number | undefined;
  /** When the lease ended, by this isolate's clock. */
  endedAtMs: number;
}

export interface Return {
  key: string;
  limits: readonly Limit[];
  items: ReturnItem[];
}

/** The most counters with units to return. Units of further counters expire with their window. */
const MAX_COUNTERS = 5_000;

/** Per counter. */
const MAX_ITEMS = 32;

/** Units of a caller without further requests are returned after this time, so that several leases share one command. */
const AFTER_MS = 2_000;

/** Units that this isolate must give back, by counter. If the isolate dies, they count until their window is over. */
export class Returns {
  readonly #returns = new Map<string, Return & { sinceMs: number }>();

  get size(): number {
    return this.#returns.size;
  }

  add(key: string, limits: readonly Limit[], item: ReturnItem): void {
    let waiting = this.#returns.get(key);
    if (waiting === undefined) {
      if (this.#returns.size >= MAX_COUNTERS) return;
      waiting = { key, limits, items: [], sinceMs: item.endedAtMs };
      this.#returns.set(key, waiting);
    }
    if (waiting.items.length < MAX_ITEMS) waiting.items.push(item);
  }

  /** The units to give back before this counter is asked. */
  takeOf(key: string): Return | undefined {
    const waiting = this.#returns.get(key);
    this.#returns.delete(key);
    return waiting;
  }

  isDue(nowMs: number): boolean {
    for (const { sinceMs } of this.#returns.values()) return Math.abs(nowMs - sinceMs) >= AFTER_MS;
    return false;
  }

  /** Units that have waited long enough, the oldest first. */
  take(max: number, nowMs: number): Return[] {
    const taken: Return[] = [];
    for (const waiting of this.#returns.values()) {
      if (taken.length === max || Math.abs(nowMs - waiting.sinceMs) < AFTER_MS) break;
      taken.push(waiting);
    }
    for (const { key } of taken) this.#returns.delete(key);
    return taken;
  }
}

/** @param newId makes the id of each change */
export function returnItems({ items }: Return, nowMs: number, newId: () => string): RecordItem[] {
  return items.map(({ leaseId, units, recordedAtMs, endedAtMs }) => ({
    id: newId(),
    of: leaseId,
    units: -units,
    time: recordedAtMs ?? Math.min(0, endedAtMs - nowMs),
  }));
}
