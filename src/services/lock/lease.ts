import { AppError } from '../../errors';

/** The unused part of a lease: clocks differ by up to 1%, and a holder needs a moment to stop. */
const MARGIN_SHARE = 0.05;
const MIN_MARGIN_MS = 20;

/** How much earlier than in Redis a lease ends for its holder, in milliseconds. */
export function marginMs(leaseMs: number): number {
  return Math.min(leaseMs / 2, Math.max(MIN_MARGIN_MS, leaseMs * MARGIN_SHARE));
}

/**
 * A lease from its holder's point of view. It is counted from when Redis was ASKED: however long the reply takes, it ends
 * here before it ends in Redis.
 */
export class LockLease {
  readonly #controller = new AbortController();
  readonly #now: () => number;
  #endsAtMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Aborted once the holder can no longer rely on the lock. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The remaining time; 0 once the lease is over. */
  get remainingMs(): number {
    return this.signal.aborted ? 0 : Math.max(0, this.#endsAtMs - this.#now());
  }

  /**
   * Redis was asked at `askedAtMs` for `leaseMs`, and has granted it. An earlier grant that lasts longer stays in force.
   */
  grant(askedAtMs: number, leaseMs: number): void {
    this.#endsAtMs = Math.max(this.#endsAtMs, askedAtMs + leaseMs - marginMs(leaseMs));
    clearTimeout(this.#timer);
    // The clock is not read again when the timer fires: if it was set back, the lease would seem longer.
    this.#timer = setTimeout(() => this.end('The lease of the lock ran out.'), this.#endsAtMs - this.#now());
  }

  end(why: string): void {
    clearTimeout(this.#timer);
    if (!this.signal.aborted) this.#controller.abort(lockLost(why));
  }
}

/** The error of work that obeys the signal. The client should retry. */
function lockLost(detail: string): AppError {
  return new AppError('SERVICE_UNAVAILABLE', { detail, headers: { 'Retry-After': '1' } });
}
