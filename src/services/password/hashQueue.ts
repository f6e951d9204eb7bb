import { log } from '../../config/log';
import { createInstruments } from '../../metrics/instruments';
import type { Instruments } from '../../metrics/instruments';
import { unavailable } from '../../errors';
import { noteBlocked } from '../../util/busy';
import { sleep as timer } from '../../util/retry';

export type HashInstruments = Pick<Instruments, 'hashes' | 'hashWait'>;

export interface HashQueueOptions {
  instruments?: HashInstruments | undefined;
  /** How many hashes may wait; a further one is refused. */
  max: number;
  now?: () => number;
  sleep?: (ms: number) => Promise<void>;
}

const POLL_MS = 5;
/** A pause between two hashes, for all other requests: reading a response takes a few turns of the event loop. */
const GAP_MS = 5;
/** A waiting request that has not polled for this long since its turn came is skipped. */
const TURN_MS = 25;
/** A request that has not polled for this long is forgotten. Longer than a hash takes: no request can poll meanwhile. */
const LOST_MS = 3_000;
/** The assumed duration until the first hash is measured, and the upper bound after that. */
const USUAL_HASH_MS = 250;
const MAX_HASH_MS = 2_000;

/**
 * One hash at a time per isolate, first come first served. At most as many wait as can be served in reasonable time.
 *
 * The runtime computes a hash inline, and may drop a request (its client is gone, its time is up): its promises and timers
 * never resolve, and no `finally` runs. So no turn depends on a promise: a turn is taken, used and returned without an
 * `await` in between, and a place in the queue is only the time of its owner's last poll.
 */
export class HashQueue {
  readonly #max: number;
  readonly #instruments: HashInstruments;
  readonly #now: () => number;
  readonly #sleep: (ms: number) => Promise<void>;
  /** Ticket -> time of its owner's last poll. */
  readonly #waiting = new Map<number, number>();
  #tickets = 0;
  #freeAtMs = 0;
  /** Start of the hash whose end is not recorded yet: the clock stands still while code runs. */
  #startedMs: number | undefined;
  #hashMs = USUAL_HASH_MS;

  constructor({ max, instruments = createInstruments(), now = Date.now, sleep = timer }: HashQueueOptions) {
    this.#max = max;
    this.#instruments = instruments;
    this.#now = now;
    this.#sleep = sleep;
  }

  /**
   * Runs `compute` when its turn comes.
   *
   * @throws {AppError} `SERVICE_UNAVAILABLE`, with the expected time of the hashes before it as `Retry-After`
   */
  async run<T>(compute: () => T): Promise<T> {
    const askedMs = this.#now();
    this.#tickets += 1;
    const ticket = this.#tickets;
    if (!this.#mayStart(ticket)) {
      this.#admit();
      do {
        this.#waiting.set(ticket, this.#now());
        await this.#sleep(POLL_MS);
        this.#noteEnd();
      } while (!this.#mayStart(ticket));
      this.#waiting.delete(ticket);
    }
    this.#startedMs = this.#now();
    const { hashes, hashWait } = this.#instruments;
    hashes.count('computed');
    hashWait.record(hashWait.series(), Math.max(0, this.#startedMs - askedMs));
    try {
      return compute();
    } finally {
      await this.#sleep(0);
      this.#noteEnd();
    }
  }

  #mayStart(ticket: number): boolean {
    const nowMs = this.#now();
    if (this.#startedMs !== undefined || nowMs < this.#freeAtMs) return false;
    const missed = nowMs >= this.#freeAtMs + TURN_MS;
    for (const [other, askedMs] of this.#waiting) {
      if (other < ticket && !(missed && askedMs < this.#freeAtMs)) return false;
    }
    return true;
  }

  #admit(): void {
    const nowMs = this.#now();
    for (const [ticket, askedMs] of this.#waiting) {
      if (nowMs - askedMs > LOST_MS) this.#waiting.delete(ticket);
    }
    const waiting = this.#waiting.size;
    if (waiting < this.#max) return;
    this.#instruments.hashes.count('refused');
    log('warn', 'password.queue_full', { waiting });
    const waitMs = (waiting + 1) * (this.#hashMs + GAP_MS);
    throw unavailable('The check of passwords', Math.ceil(waitMs / 1_000));
  }

  /** Called by the first request after a hash, because the request that computed it may be gone. */
  #noteEnd(): void {
    if (this.#startedMs === undefined) return;
    const nowMs = this.#now();
    this.#hashMs = Math.min(Math.max(0, nowMs - this.#startedMs), MAX_HASH_MS);
    noteBlocked(this.#hashMs);
    this.#freeAtMs = nowMs + GAP_MS;
    this.#startedMs = undefined;
  }
}
