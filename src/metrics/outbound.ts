import { addCounts, takeCounts } from './registry';
import type { Counts } from './registry';
import type { Instruments } from './instruments';

/** Counts up to a time, to be added to the counts of all isolates. */
export interface Lot {
  /** Numbers the lots of an isolate from 1. */
  readonly seq: number;
  /**
   * When the last of these counts was recorded, in milliseconds since the epoch. Decides their interval in the time series.
   */
  atMs: number;
  readonly counts: Counts;
  /** When the lot was first sent. Redis may have added it since, so it must not change any more. */
  sentAtMs?: number;
}

export interface OutboundOptions {
  instruments: Instruments;
  /** Time between two reports. 0 disables reports. */
  intervalMs: number;
  nowMs: number;
  /** Names the isolate. */
  id: string;
}

/** After a pause of this length, earlier counts become a lot with its own time. */
const PAUSE_MS = 5_000;
/** Counts within this time share a lot. */
const STEP_MS = 10_000;
/**
 * The most lots to keep while Redis is away. Beyond it the two oldest are merged, which only makes their times less exact.
 */
const MAX_LOTS = 90;
/** The most lots in one report. */
const LOTS_AT_ONCE = 30;
/** A report without an outcome after this time is sent again: its request has probably died. */
const LOST_MS = 10_000;
/** Redis forgets an isolate's last number two hours after its last report; an unsettled lot is dropped well before. */
export const GIVE_UP_MS = 3_600_000;

/**
 * Counts of an isolate that Redis does not have yet. A lot is sent until Redis replies. Its number lets Redis ignore a lot
 * that it has already added. While Redis is away counts are kept; those that cannot be kept are counted as dropped.
 */
export class Outbound {
  readonly id: string;
  readonly #instruments: Instruments;
  readonly #all: Instruments[keyof Instruments][];
  readonly #intervalMs: number;
  readonly #lots: Lot[] = [];
  #seq = 0;
  #countedAtMs: number;
  #dueAtMs: number;
  #busyUntilMs = 0;

  constructor({ instruments, intervalMs, nowMs, id }: OutboundOptions) {
    this.id = id;
    this.#instruments = instruments;
    this.#all = Object.values(instruments);
    this.#intervalMs = intervalMs;
    this.#countedAtMs = nowMs;
    this.#dueAtMs = intervalMs === 0 ? Infinity : nowMs + intervalMs;
  }

  /** Call before counting: after a pause, earlier counts are closed as a lot and so keep their time. */
  touch(nowMs: number): void {
    if (nowMs - this.#countedAtMs >= PAUSE_MS && this.#intervalMs > 0) this.#close(this.#countedAtMs);
    this.#countedAtMs = nowMs;
  }

  isDue(nowMs: number): boolean {
    return nowMs >= this.#dueAtMs;
  }

  /**
   * The lots to send now, oldest first. The caller then settles, keeps or drops each.
   *
   * @returns an empty list while another request is sending
   */
  take(nowMs: number): readonly Lot[] {
    if (this.#intervalMs === 0 || nowMs < this.#busyUntilMs) return [];
    this.#close(this.#countedAtMs);
    for (const lot of this.#lots.slice(0, LOTS_AT_ONCE)) {
      if (lot.sentAtMs !== undefined && nowMs - lot.sentAtMs > GIVE_UP_MS) this.drop(lot, 'expired');
    }
    const taken = this.#lots.slice(0, LOTS_AT_ONCE);
    // After an outage not all lots fit into one report: send the rest with the next response.
    this.#dueAtMs = taken.length < this.#lots.length ? nowMs : nowMs + this.#intervalMs;
    if (taken.length > 0) this.#busyUntilMs = nowMs + LOST_MS;
    for (const lot of taken) lot.sentAtMs ??= nowMs;
    return taken;
  }

  /** Call when all lots that were taken have an outcome. */
  release(): void {
    this.#busyUntilMs = 0;
  }

  /** The lot has not left this isolate, and may still grow. @param takenAtMs when it was taken */
  keep(lot: Lot, takenAtMs: number): void {
    if (lot.sentAtMs === takenAtMs) delete lot.sentAtMs;
  }

  /** Redis has added the lot. */
  settle(lot: Lot): void {
    const at = this.#lots.indexOf(lot);
    if (at !== -1) this.#lots.splice(at, 1);
  }

  /** Redis refuses the lot, or was away too long: its requests are counted as dropped. */
  drop(lot: Lot, reason: string): void {
    this.settle(lot);
    const { dropped } = this.#instruments;
    dropped.add(dropped.series(reason), requestsOf(lot.counts));
  }

  /** Lots that Redis does not have yet. The metrics page shows them while Redis is away. */
  get pending(): readonly Lot[] {
    return this.#lots;
  }

  #close(atMs: number): void {
    const counts = takeCounts(this.#all);
    if (counts === undefined) return;
    const last = this.#lots.at(-1);
    if (last !== undefined && last.sentAtMs === undefined && atMs - last.atMs < STEP_MS) {
      addCounts(last.counts, counts);
      return;
    }
    this.#seq += 1;
    this.#lots.push({ seq: this.#seq, atMs, counts });
    if (this.#lots.length > MAX_LOTS) this.#merge();
  }

  /** Merges the two oldest lots that were never sent. */
  #merge(): void {
    const first = this.#lots.findIndex(({ sentAtMs }) => sentAtMs === undefined);
    const [older, newer] = this.#lots.slice(first, first + 2);
    if (older === undefined || newer === undefined) return;
    addCounts(newer.counts, older.counts);
    this.#lots.splice(first, 1);
  }
}

/** The number of requests in these counts. */
function requestsOf(counts: Counts): number {
  let total = 0;
  for (const [id, values] of Object.entries(counts)) {
    if (!id.startsWith('http.server.request.duration|')) continue;
    for (const value of values.slice(1)) total += value;
  }
  return total;
}
