import { unavailable } from '../errors';

export interface LookupOptions {
  /** How many may be under way. */
  max: number;
  /** After this a lookup that has not reported is taken for lost: its request has died. */
  lostAfterMs: number;
}

/**
 * A bulkhead (Nygard, Release It!, 2nd ed., ch. 5) before the database: what an isolate reads from it because Redis is away
 * or has lost it. Without a bound, an outage of Redis becomes one of the database.
 */
export class Lookups {
  readonly #options: LookupOptions;
  /** When each lookup that is under way is taken for lost. */
  readonly #underWay = new Map<number, number>();
  #count = 0;

  constructor(options: LookupOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#underWay.size;
  }

  /** @throws {AppError} `SERVICE_UNAVAILABLE` when there are too many; then `work` does not begin */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const { max, lostAfterMs } = this.#options;
    if (this.#underWay.size >= max) this.#sweep();
    if (this.#underWay.size >= max) throw unavailable('The database', 1);
    const id = (this.#count += 1);
    this.#underWay.set(id, Date.now() + lostAfterMs);
    try {
      return await work();
    } finally {
      this.#underWay.delete(id);
    }
  }

  #sweep(): void {
    const nowMs = Date.now();
    for (const [id, lostAtMs] of this.#underWay) if (lostAtMs <= nowMs) this.#underWay.delete(id);
  }
}
