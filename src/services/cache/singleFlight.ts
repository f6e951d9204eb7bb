import { Sweep } from '../../util/sweep';
import { within } from '../../util/within';
import type { Snapshot } from './entry';

/** The result of a load: a value's JSON, or none. Requests may share only plain data: workerd forbids more. */
export interface Loaded {
  readonly json: string | undefined;
}

/**
 * A load in progress, or its fill. The promises that end it refer to it strongly, the isolate weakly: requests wait for
 * these promises, so a load that never ends (the runtime has dropped its request) would keep them and everything they refer
 * to in memory.
 */
interface Flight {
  readonly loaded: Promise<Loaded>;
  readonly isCurrent: Load['isCurrent'];
  /** By this time the leading request has finished or died. */
  lostAtMs: number;
}

/** A load that has just begun. */
export interface Load {
  readonly loaded: Promise<Loaded>;
  /** Settles once the cache has the result (or will not get it). Until then later requests share it. */
  readonly filled: Promise<unknown>;
  /** When followers stop waiting for it. */
  readonly lostAfterMs: number;
  /** Whether a request that missed the entry in this state may join. */
  readonly isCurrent: (snapshot: Snapshot) => boolean;
}

/** A result is shared while its fill is in flight, but at most for this long. */
const LINGER_MS = 1_000;
/**
 * Beyond this number of keys all are forgotten. The cost: later requests may join no load that is in flight at that moment.
 */
const MAX_SEPARATED = 2_000;

/**
 * Single flight in one isolate: a request for a value that is being loaded waits for that load. The leading request must
 * keep its load alive (`waitUntil`). Followers do not rely on that: each has its own timer.
 *
 * A flight's name contains the entry and the state of the cache when it was missed (write id and tag versions). So no
 * request joins a load that began before an invalidation that the request has seen. The name also contains a generation of
 * this isolate's own invalidations. It counts even if Redis does not have them: Redis is away, has lost them, or a replica
 * lags.
 */
export class SingleFlight {
  readonly #flights = new Map<string, WeakRef<Flight>>();
  readonly #sweep = new Sweep(this.#flights, (flight) => !isAlive(flight.deref()));

  /** Redis keys that this isolate has invalidated, each with the generation that began then. */
  readonly #separated = new Map<string, number>();

  #generation = 0;
  /** The lowest generation of any key. */
  #oldest = 0;

  /** Changes with each invalidation that this isolate knows of. */
  get generation(): number {
    return this.#generation;
  }

  /** Part of every flight's name: changes with each invalidation of one of these Redis keys that this isolate knows of. */
  generationOf(redisKeys: readonly string[]): number {
    return redisKeys.reduce((latest, key) => Math.max(latest, this.#separated.get(key) ?? 0), this.#oldest);
  }

  /** Later requests may not join loads in flight for entries that these keys invalidate; without keys, any load in flight. */
  separate(redisKeys?: readonly string[]): void {
    this.#generation += 1;
    if (redisKeys === undefined || this.#separated.size + redisKeys.length > MAX_SEPARATED) {
      this.#separated.clear();
      this.#oldest = this.#generation;
      return;
    }
    for (const key of redisKeys) this.#separated.set(key, this.#generation);
  }

  /** The number of loads in progress. */
  get size(): number {
    return this.#flights.size;
  }

  /** @param snapshot in which the request missed the entry; `undefined`: Redis could not be asked */
  has(name: string, snapshot: Snapshot | undefined): boolean {
    return this.#joinable(name, snapshot) !== undefined;
  }

  /** Lets other requests join a load. */
  lead(name: string, { loaded, filled, lostAfterMs, isCurrent }: Load): void {
    this.#sweep.step();
    const flight: Flight = { loaded, isCurrent, lostAtMs: Date.now() + lostAfterMs };
    const weak = new WeakRef(flight);
    this.#flights.set(name, weak);
    const end = () => {
      flight.lostAtMs = 0;
      if (this.#flights.get(name) === weak) this.#flights.delete(name);
    };
    loaded.then(() => {
      flight.lostAtMs = Math.min(flight.lostAtMs, Date.now() + LINGER_MS);
    }, end);
    filled.then(end, end);
  }

  /** Waits for the load with this name. `lost`: its leader died; `undefined`: there is none to join. */
  follow(name: string, snapshot: Snapshot | undefined): Promise<Loaded | 'lost'> | undefined {
    const flight = this.#joinable(name, snapshot);
    if (flight === undefined) return undefined;
    return within(flight.loaded, flight.lostAtMs - Date.now(), () => {
      if (this.#flights.get(name)?.deref() === flight) this.#flights.delete(name);
      return 'lost';
    });
  }

  #joinable(name: string, snapshot: Snapshot | undefined): Flight | undefined {
    const flight = this.#current(name);
    return flight === undefined || snapshot === undefined || flight.isCurrent(snapshot) ? flight : undefined;
  }

  #current(name: string): Flight | undefined {
    const weak = this.#flights.get(name);
    if (weak === undefined) return undefined;
    const flight = weak.deref();
    if (isAlive(flight)) return flight;
    this.#flights.delete(name);
    return undefined;
  }
}

/** Whether the load may still succeed. */
function isAlive(flight: Flight | undefined): flight is Flight {
  return flight !== undefined && flight.lostAtMs > Date.now();
}
