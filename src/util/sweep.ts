/** Entries that one step looks at: more than one, so that a map cannot grow faster than what is over leaves it. */
const ENTRIES_A_STEP = 4;

/**
 * Takes out of a map what is over, a few entries at a time. A step with each new entry keeps the map at a small multiple of the
 * entries that are not over, needs no timer (in a Worker a timer belongs to one request), and never looks at all of them at once.
 */
export class Sweep<K, V> {
  readonly #map: Map<K, V>;
  readonly #isOver: (value: V) => boolean;
  #cursor: MapIterator<[K, V]> | undefined;

  constructor(map: Map<K, V>, isOver: (value: V) => boolean) {
    this.#map = map;
    this.#isOver = isOver;
  }

  step(): void {
    for (let looked = 0; looked < ENTRIES_A_STEP; looked += 1) {
      this.#cursor ??= this.#map.entries();
      const { value, done } = this.#cursor.next();
      if (done === true) {
        this.#cursor = undefined;
        return;
      }
      if (this.#isOver(value[1])) this.#map.delete(value[0]);
    }
  }
}
