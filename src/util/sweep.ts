/** Entries that one step checks: more than one, so that expired entries leave the map faster than new ones arrive. */
const ENTRIES_A_STEP = 4;

/**
 * Removes expired entries from a map, a few at a time. One step with each new entry keeps the map at a small multiple of its
 * unexpired entries, needs no timer (in a Worker a timer belongs to one request), and never scans the whole map at once.
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
