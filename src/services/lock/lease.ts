import { AppError } from '../../errors';

/** The part of a lease that is not used: clocks differ by up to 1%, and a holder needs a moment to stop. */
const MARGIN_SHARE = 0.05;
const MIN_MARGIN_MS = 20;

/** How much earlier than Redis a holder thinks its lease over, in milliseconds. */
export function marginMs(leaseMs: number): number {
  return Math.min(leaseMs / 2, Math.max(MIN_MARGIN_MS, leaseMs * MARGIN_SHARE));
}

/**
 * A lease as its holder may rely on it. It is counted from when Redis was ASKED: however long the reply takes, the lease ends
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

  /** Aborted once the lock can no longer be relied upon. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** What is left of it; 0 once it is over. */
  get remainingMs(): number {
    return this.signal.aborted ? 0 : Math.max(0, this.#endsAtMs - this.#now());
  }

  /** Redis was asked at `askedAtMs` for `leaseMs`, and has granted it. An earlier grant that lasts longer stays. */
  grant(askedAtMs: number, leaseMs: number): void {
    this.#endsAtMs = Math.max(this.#endsAtMs, askedAtMs + leaseMs - marginMs(leaseMs));
    clearTimeout(this.#timer);
    // Not looked up again when it fires: a clock that was set back would make a lease longer.
    this.#timer = setTimeout(() => this.end('The lease of the lock ran out.'), this.#endsAtMs - this.#now());
  }

  end(why: string): void {
    clearTimeout(this.#timer);
    if (!this.signal.aborted) this.#controller.abort(lockLost(why));
  }
}

/** What work that heeds the signal fails with; a client is told to come again. */
function lockLost(detail: string): AppError {
  return new AppError('SERVICE_UNAVAILABLE', { detail, headers: { 'Retry-After': '1' } });
}
