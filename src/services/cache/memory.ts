import { BoundedMap } from '../../util/boundedMap';

const FIRST_TIME_MS = Date.UTC(2001, 0);
const LAST_TIME_MS = Date.UTC(2200, 0);

const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 30_000;

const RENEW_EVERY_MS = 86_400_000;

/** What an isolate remembers for its cache: plain data only. */
export class CacheMemory {
  /**
   * The value of a key that only a flush (or its own expiry) changes: while it is the same, no tag version that was bumped can
   * have been forgotten.
   */
  flushSentinel: string | undefined;
  /** Server clock minus ours, in milliseconds: no more than it really is. */
  #serverAheadMs: number | undefined;
  readonly #renewals = new BoundedMap<string, number>(5_000);
  readonly #failures = new BoundedMap<string, { count: number; untilMs: number }>(2_000);

  get knowsServerTime(): boolean {
    return this.#serverAheadMs !== undefined;
  }

  /** The server said this a moment ago. What is no time of this century, or of the next, is not believed. */
  noteServerTime(serverMs: number): void {
    if (serverMs > FIRST_TIME_MS && serverMs < LAST_TIME_MS) this.#serverAheadMs = serverMs - Date.now();
  }

  /** By the server's clock; 0 when that is not known. @param wallMs by ours (`Date.now()`) */
  serverTime(wallMs: number): number {
    return this.#serverAheadMs === undefined ? 0 : wallMs + this.#serverAheadMs;
  }

  /** Whether this isolate has not renewed this tag version within a day; notes that it does so now. */
  takeRenewal(tagVersionKey: string, nowMs: number): boolean {
    const lastMs = this.#renewals.get(tagVersionKey);
    if (lastMs !== undefined && nowMs - lastMs < RENEW_EVERY_MS) return false;
    this.#renewals.set(tagVersionKey, nowMs);
    return true;
  }

  /** Whether a load of this entry failed so recently that the next is not yet due. */
  isBackedOff(entryKey: string, nowMs: number): boolean {
    return nowMs < (this.#failures.get(entryKey)?.untilMs ?? 0);
  }

  /** A refresh is in progress: start no other one for this long. */
  pause(entryKey: string, nowMs: number, ms: number): void {
    const count = this.#failures.get(entryKey)?.count ?? 0;
    this.#failures.set(entryKey, { count, untilMs: nowMs + ms });
  }

  /** 1 s, doubling to 30 s, each up to a half shorter. */
  noteFailure(entryKey: string, nowMs: number, random: () => number): void {
    const count = (this.#failures.get(entryKey)?.count ?? 0) + 1;
    const waitMs = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** (count - 1)) * (1 - random() / 2);
    this.#failures.set(entryKey, { count, untilMs: nowMs + waitMs });
  }

  noteSuccess(entryKey: string): void {
    this.#failures.delete(entryKey);
  }
}
