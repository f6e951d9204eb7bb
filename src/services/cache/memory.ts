import { BoundedMap } from '../../util/boundedMap';

const FIRST_TIME_MS = Date.UTC(2001, 0);
const LAST_TIME_MS = Date.UTC(2200, 0);

const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 30_000;

const RENEW_EVERY_MS = 86_400_000;

/** An isolate's memory for its cache: plain data only. */
export class CacheMemory {
  /**
   * The value of a key that changes only after a flush (or its own expiry). While it is unchanged, Redis cannot have lost a
   * tag version that an invalidation has written.
   */
  flushSentinel: string | undefined;
  /** The number of reads of the cache so far. */
  reads = 0;
  /** Server clock minus this isolate's clock, in milliseconds. Never more than the real difference. */
  #serverAheadMs: number | undefined;
  readonly #renewals = new BoundedMap<string, number>(5_000);
  readonly #failures = new BoundedMap<string, { count: number; untilMs: number }>(2_000);

  get knowsServerTime(): boolean {
    return this.#serverAheadMs !== undefined;
  }

  /** Records the server's time from a reply that has just arrived. Implausible ones (not in this century or the next) are ignored. */
  noteServerTime(serverMs: number): void {
    if (serverMs > FIRST_TIME_MS && serverMs < LAST_TIME_MS) this.#serverAheadMs = serverMs - Date.now();
  }

  /** By the server's clock; 0 if unknown. @param wallMs by this isolate's clock (`Date.now()`) */
  serverTime(wallMs: number): number {
    return this.#serverAheadMs === undefined ? 0 : wallMs + this.#serverAheadMs;
  }

  /** Whether this isolate has not renewed this tag version within a day. If so, records that it does so now. */
  takeRenewal(tagVersionKey: string, nowMs: number): boolean {
    const lastMs = this.#renewals.get(tagVersionKey);
    if (lastMs !== undefined && nowMs - lastMs < RENEW_EVERY_MS) return false;
    this.#renewals.set(tagVersionKey, nowMs);
    return true;
  }

  /** Whether a load of this entry failed so recently that no new one is due. */
  isBackedOff(entryKey: string, nowMs: number): boolean {
    return nowMs < (this.#failures.get(entryKey)?.untilMs ?? 0);
  }

  /** A refresh is in progress: no other one may start for this time. */
  pause(entryKey: string, nowMs: number, ms: number): void {
    const count = this.#failures.get(entryKey)?.count ?? 0;
    this.#failures.set(entryKey, { count, untilMs: nowMs + ms });
  }

  /** The back-off is 1 s, doubling to 30 s, each up to a half shorter. */
  noteFailure(entryKey: string, nowMs: number, random: () => number): void {
    const count = (this.#failures.get(entryKey)?.count ?? 0) + 1;
    const waitMs = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** (count - 1)) * (1 - random() / 2);
    this.#failures.set(entryKey, { count, untilMs: nowMs + waitMs });
  }

  noteSuccess(entryKey: string): void {
    this.#failures.delete(entryKey);
  }
}
