import type { Isolate } from './isolate.ts';
import type { Timeline } from './timeline.ts';

/** A holder of the lock, from when it knew that it has it until its signal fired, it released the lock, or it died. */
interface Holder {
  readonly fence: number;
  readonly isolate: Isolate;
  readonly sinceMs: number;
  leftMs: number;
}

export interface LockDeps {
  timeline: Timeline;
  violate: (atMs: number, text: string) => void;
}

/** The reply that brings a lock may have been on its way for so long. */
const REPLY_MS = 2_100;

/** Who holds the lock of `app.ts`, by what its holders log: one at a time while Redis keeps its data. */
export class Locks {
  readonly #deps: LockDeps;
  readonly #holders: Holder[] = [];

  constructor(deps: LockDeps) {
    this.#deps = deps;
  }

  held(isolate: Isolate, fence: number, atMs: number): void {
    const { timeline, violate } = this.#deps;
    for (const other of this.#holders) {
      if (other.fence === fence)
        violate(atMs, `${isolate.name} got the fence ${fence}, which ${other.isolate.name} had`);
      const untilMs = Math.min(other.leftMs, other.isolate.diedAtMs);
      if (untilMs <= atMs || timeline.lostData(other.sinceMs - REPLY_MS, atMs)) continue;
      violate(atMs, `${isolate.name} holds the lock, and so does ${other.isolate.name}`);
    }
    this.#holders.push({ fence, isolate, sinceMs: atMs, leftMs: Number.POSITIVE_INFINITY });
  }

  left(fence: number, atMs: number): void {
    const holder = this.#holders.find((one) => one.fence === fence);
    if (holder !== undefined) holder.leftMs = Math.min(holder.leftMs, atMs);
  }

  /** A request that was sent at `sentMs` has had the lock with this fence: larger than that of each holder before. */
  had(fence: number, sentMs: number, atMs: number): void {
    const before = this.#holders.find((one) => one.sinceMs < sentMs && one.fence >= fence);
    if (before !== undefined) this.#deps.violate(atMs, `the fence ${fence} came after ${before.fence}`);
  }
}
