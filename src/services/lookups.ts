import { unavailable } from '../errors';

export interface LookupOptions {
  /** The most concurrent lookups. */
  max: number;
  /** A lookup that has not ended after this time counts as lost: its request has died. */
  lostAfterMs: number;
}

/**
 * A bulkhead (Nygard, Release It!, 2nd ed., ch. 5) in front of the database: limits an isolate's reads while Redis is away
 * or has lost data. Without it, an outage of Redis would cause an outage of the database.
 */
export class Lookups {
  readonly #options: LookupOptions;
  /** When each lookup in progress counts as lost. */
  readonly #underWay = new Map<number, number>();
  #count = 0;

  constructor(options: LookupOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#underWay.size;
  }

  /** @throws {AppError} `SERVICE_UNAVAILABLE` when there are too many; `work` then does not start */
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
