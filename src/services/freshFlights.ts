import { sleep } from './retry';

/** How a load is kept, and given up. */
export interface FlightOptions {
  /** Keeps the work alive after its own request's response. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** When others stop believing in the work once it has begun: its request has died. */
  lostAfterMs: number;
}

interface Flight<T> {
  readonly result: Promise<T>;
  /** By this time the work has finished, or its request has died. */
  lostAtMs: number;
}

/** A load waits for the one before it, but not for longer than this: that one may hang. */
const MAX_WAIT_MS = 1_000;
/** Flights of requests that died are swept when there are so many. */
const SWEEP_AT = 1_000;

/**
 * Single flight for reads that no cache vouches for: a caller's result comes from a load that began after the caller asked,
 * so it holds every change that was acknowledged before. Callers that arrive while a load runs share the next one, which
 * begins when that one ends; so an isolate runs one load of a key at a time.
 */
export class FreshFlights<T> {
  readonly #waiting = new Map<string, Flight<T>>();
  readonly #running = new Map<string, Flight<T>>();

  /** Loads under way, and those that wait for them. */
  get size(): number {
    return this.#waiting.size + this.#running.size;
  }

  /** Joins the load of this key that is about to begin, or leads it. */
  async load(key: string, work: () => Promise<T>, options: FlightOptions): Promise<T> {
    for (;;) {
      const followed = this.follow(key);
      if (followed === undefined) {
        const [own] = this.lead([key], async () => [await work()], options);
        return own as Promise<T>;
      }
      const outcome = await followed;
      if (outcome !== 'lost') return outcome.value;
    }
  }

  /** The load of this key that has not begun yet; `lost` when its request died. `undefined`: there is none. */
  follow(key: string): Promise<{ value: T } | 'lost'> | undefined {
    const flight = current(this.#waiting, key);
    if (flight === undefined) return undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const lost = new Promise<'lost'>((resolve) => {
      timer = setTimeout(() => {
        if (this.#waiting.get(key) === flight) this.#waiting.delete(key);
        resolve('lost');
      }, flight.lostAtMs - Date.now());
    });
    const result = flight.result.then((value) => ({ value }));
    return Promise.race([result, lost]).finally(() => clearTimeout(timer));
  }

  /** One call of `work` for all of these keys, once the loads of them that run have ended. */
  lead(
    keys: readonly string[],
    work: () => Promise<readonly T[]>,
    { waitUntil, lostAfterMs }: FlightOptions,
  ): Promise<T>[] {
    if (this.size >= SWEEP_AT) this.#sweep();
    const before = keys.flatMap((key) => current(this.#running, key) ?? []);
    const lostAtMs = Date.now() + MAX_WAIT_MS + lostAfterMs;
    const { promise: all, resolve, reject } = Promise.withResolvers<readonly T[]>();
    waitUntil(all.catch(() => undefined));
    const flights = keys.map((key, index): [string, Flight<T>] => {
      const result = all.then((values) => values[index] as T);
      result.catch(() => undefined);
      return [key, { result, lostAtMs }];
    });

    const begin = () => {
      for (const [key, flight] of flights) {
        if (this.#waiting.get(key) === flight) this.#waiting.delete(key);
        flight.lostAtMs = Date.now() + lostAfterMs;
        this.#running.set(key, flight);
      }
      const end = () => {
        for (const [key, flight] of flights) if (this.#running.get(key) === flight) this.#running.delete(key);
      };
      work().finally(end).then(resolve, reject);
    };

    if (before.length === 0) begin();
    else {
      for (const [key, flight] of flights) this.#waiting.set(key, flight);
      const ended = Promise.allSettled(before.map(({ result }) => result));
      void Promise.race([ended, sleep(MAX_WAIT_MS)]).then(begin);
    }
    return flights.map(([, { result }]) => result);
  }

  #sweep(): void {
    for (const flights of [this.#waiting, this.#running]) for (const key of flights.keys()) current(flights, key);
  }
}

/** A flight that may still be believed in; others are forgotten. */
function current<T>(flights: Map<string, Flight<T>>, key: string): Flight<T> | undefined {
  const flight = flights.get(key);
  if (flight === undefined || flight.lostAtMs > Date.now()) return flight;
  flights.delete(key);
  return undefined;
}
