import { Sweep } from '../util/sweep';
import { within } from '../util/within';

/** Keeps a load alive, and limits it. */
export interface FlightOptions {
  /** Keeps the work alive after its own request's response. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** A load that runs longer than this counts as lost: its request has died. */
  lostAfterMs: number;
}

/** The work holds it strongly, the isolate weakly: see `Flight` in `cache/singleFlight.ts`. */
interface Flight<T> {
  readonly result: Promise<T>;
  /** By this time the work has finished or its request has died. */
  lostAtMs: number;
}

/** A load waits at most this long for the load before it, which may hang. */
const MAX_WAIT_MS = 1_000;

/**
 * Single flight for reads without a cache. A caller's result comes from a load that began after the call, so it contains
 * every change acknowledged before. Callers that arrive while a load runs share the next one, which begins when that one
 * ends. So an isolate runs one load per key at a time.
 */
export class FreshSingleFlight<T> {
  readonly #waiting: Flights<T> = new Map();
  readonly #running: Flights<T> = new Map();
  readonly #sweeps = [this.#waiting, this.#running].map((flights) => new Sweep(flights, isOver));

  /** The number of running and waiting loads. */
  get size(): number {
    return this.#waiting.size + this.#running.size;
  }

  /** Joins the next load of this key, or leads it. */
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

  /** The result of this key's load that has not begun yet. `lost`: its request died; `undefined`: there is none. */
  follow(key: string): Promise<{ value: T } | 'lost'> | undefined {
    const flight = current(this.#waiting, key);
    if (flight === undefined) return undefined;
    const result = flight.result.then((value) => ({ value }));
    return within(result, flight.lostAtMs - Date.now(), () => {
      forget(this.#waiting, key, flight);
      return 'lost';
    });
  }

  /** Calls `work` once for all of these keys, after their running loads have ended. */
  lead(
    keys: readonly string[],
    work: () => Promise<readonly T[]>,
    { waitUntil, lostAfterMs }: FlightOptions,
  ): Promise<T>[] {
    for (const sweep of this.#sweeps) sweep.step();
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
        forget(this.#waiting, key, flight);
        flight.lostAtMs = Date.now() + lostAfterMs;
        this.#running.set(key, new WeakRef(flight));
      }
      const end = () => {
        for (const [key, flight] of flights) forget(this.#running, key, flight);
      };
      work().finally(end).then(resolve, reject);
    };

    if (before.length === 0) begin();
    else {
      for (const [key, flight] of flights) this.#waiting.set(key, new WeakRef(flight));
      const ended = Promise.allSettled(before.map(({ result }) => result));
      void within(ended, MAX_WAIT_MS, () => undefined).then(begin);
    }
    return flights.map(([, { result }]) => result);
  }
}

type Flights<T> = Map<string, WeakRef<Flight<T>>>;

function isOver(weak: WeakRef<Flight<unknown>>): boolean {
  return !isCurrent(weak.deref());
}

function isCurrent<T>(flight: Flight<T> | undefined): flight is Flight<T> {
  return flight !== undefined && flight.lostAtMs > Date.now();
}

/** Returns a flight unless it is lost. Lost flights are forgotten. */
function current<T>(flights: Flights<T>, key: string): Flight<T> | undefined {
  const flight = flights.get(key)?.deref();
  if (isCurrent(flight)) return flight;
  flights.delete(key);
  return undefined;
}

function forget<T>(flights: Flights<T>, key: string, flight: Flight<T>): void {
  if (flights.get(key)?.deref() === flight) flights.delete(key);
}
