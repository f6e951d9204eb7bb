/** What a load gave: a value's JSON, or nothing. Only plain data is shared between requests; workerd forbids more. */
export interface Loaded {
  readonly json: string | undefined;
}

interface Flight {
  readonly loaded: Promise<Loaded>;
  /** By this time whoever led it has finished, or died. */
  lostAtMs: number;
}

/** A result is still shared while its fill is on the way, but not for longer than this. */
const LINGER_MS = 1_000;
/** Flights of requests that died are swept when there are so many. */
const SWEEP_AT = 1_000;
/** When so many keys are remembered all are forgotten, at the price of one separation of everything. */
const MAX_SEPARATED = 2_000;

/**
 * Single flight in one isolate: whoever asks for a value that is being loaded waits for that load. A load must be kept
 * alive by its own request (`waitUntil`); followers trust nobody and race a timer of their own.
 *
 * A flight's name is the entry and the state of the cache that it was missed in (write id and nonces), so that nobody
 * joins a load that began before an invalidation they have seen. Of what this isolate has invalidated itself the name
 * tells also when Redis does not: it was not told, is away, has lost it, or a replica lags behind.
 */
export class Flights {
  readonly #flights = new Map<string, Flight>();

  /** Redis keys that this isolate has invalidated, with the generation that this began. */
  readonly #separated = new Map<string, number>();

  #generation = 0;
  /** No key is of an older generation than this. */
  #oldest = 0;

  /** Changes with each invalidation that this isolate knows of. */
  get generation(): number {
    return this.#generation;
  }

  /** Part of every name: changes with each invalidation of one of these Redis keys that this isolate knows of. */
  generationOf(redisKeys: readonly string[]): number {
    return redisKeys.reduce((latest, key) => Math.max(latest, this.#separated.get(key) ?? 0), this.#oldest);
  }

  /** From now on nobody joins a load that has begun of what these Redis keys end; without any, of whatever there is. */
  separate(redisKeys?: readonly string[]): void {
    this.#generation += 1;
    if (redisKeys === undefined || this.#separated.size + redisKeys.length > MAX_SEPARATED) {
      this.#separated.clear();
      this.#oldest = this.#generation;
      return;
    }
    for (const key of redisKeys) this.#separated.set(key, this.#generation);
  }

  /** Loads under way. */
  get size(): number {
    return this.#flights.size;
  }

  has(name: string): boolean {
    return this.#current(name) !== undefined;
  }

  /**
   * Lets others join a load that has just begun.
   *
   * @param filled settles once the cache has the result (or will not get it): until then latecomers share it
   * @param lostAfterMs when followers stop believing in it
   */
  lead(name: string, loaded: Promise<Loaded>, filled: Promise<unknown>, lostAfterMs: number): void {
    if (this.#flights.size >= SWEEP_AT) this.#sweep();
    const flight: Flight = { loaded, lostAtMs: Date.now() + lostAfterMs };
    this.#flights.set(name, flight);
    const end = () => {
      if (this.#flights.get(name) === flight) this.#flights.delete(name);
    };
    loaded.then(() => {
      flight.lostAtMs = Math.min(flight.lostAtMs, Date.now() + LINGER_MS);
    }, end);
    filled.then(end, end);
  }

  /** The load of that name, `lost` when its leader died without a word; `undefined` when there is none. */
  follow(name: string): Promise<Loaded | 'lost'> | undefined {
    const flight = this.#current(name);
    if (flight === undefined) return undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const lost = new Promise<'lost'>((resolve) => {
      timer = setTimeout(() => {
        if (this.#flights.get(name) === flight) this.#flights.delete(name);
        resolve('lost');
      }, flight.lostAtMs - Date.now());
    });
    return Promise.race([flight.loaded, lost]).finally(() => clearTimeout(timer));
  }

  #current(name: string): Flight | undefined {
    const flight = this.#flights.get(name);
    if (flight === undefined || flight.lostAtMs > Date.now()) return flight;
    this.#flights.delete(name);
    return undefined;
  }

  #sweep(): void {
    const nowMs = Date.now();
    for (const [name, { lostAtMs }] of this.#flights) if (lostAtMs <= nowMs) this.#flights.delete(name);
  }
}
