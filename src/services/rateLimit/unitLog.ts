/** Units by their recorded time, oldest first. */
export class UnitLog {
  readonly #times: number[] = [];
  readonly #units: number[] = [];
  total = 0;

  get firstMs(): number {
    return this.#times[0] ?? 0;
  }

  get lastMs(): number {
    return this.#times.at(-1) ?? 0;
  }

  /** Adds units at the end. Their time must not be before the last entry. */
  append(units: number, atMs: number): void {
    const last = this.#times.length - 1;
    if (last >= 0 && atMs <= this.lastMs) this.#units[last] = (this.#units[last] ?? 0) + units;
    else this.#push(units, atMs);
    this.total += units;
  }

  /** Inserts units in the order of time. */
  insert(units: number, atMs: number): void {
    const after = this.#after(atMs);
    if (this.#times[after - 1] === atMs) this.#units[after - 1] = (this.#units[after - 1] ?? 0) + units;
    else {
      this.#times.splice(after, 0, atMs);
      this.#units.splice(after, 0, units);
    }
    this.total += units;
  }

  /**
   * Takes units from the newest entries that are not later than `atMs`, then from later ones: units that were recorded
   * behind an entry ahead of its time are found there.
   *
   * @returns the number of units taken; emptied entries stay until {@link compact}
   */
  take(units: number, atMs: number): number {
    const after = this.#after(atMs);
    let taken = 0;
    for (let index = after - 1; index >= 0; index -= 1) taken += this.#takeAt(index, units - taken);
    for (let index = after; index < this.#times.length; index += 1) taken += this.#takeAt(index, units - taken);
    this.total -= taken;
    return taken;
  }

  /**
   * Drops entries that {@link take} has emptied. For each dropped first entry, calls back with the time until the next one.
   */
  compact(droppedFirst?: (gapMs: number) => void): void {
    while (this.#units[0] === 0) {
      droppedFirst?.((this.#times[1] ?? this.lastMs) - this.firstMs);
      this.#times.shift();
      this.#units.shift();
    }
    for (let index = this.#times.length - 1; index > 0; index -= 1) {
      if (this.#units[index] !== 0) continue;
      this.#times.splice(index, 1);
      this.#units.splice(index, 1);
    }
  }

  /**
   * Drops entries recorded at `dueMs` or earlier. For each, calls back with its units and the time until the next entry.
   */
  prune(dueMs: number, dropped?: (units: number, gapMs: number) => void): void {
    let count = 0;
    while (count < this.#times.length && (this.#times[count] ?? 0) <= dueMs) {
      const units = this.#units[count] ?? 0;
      this.total -= units;
      dropped?.(units, (this.#times[count + 1] ?? this.lastMs) - (this.#times[count] ?? 0));
      count += 1;
    }
    if (count === 0) return;
    this.#times.splice(0, count);
    this.#units.splice(0, count);
  }

  /** The time of the entry that contains this unit, counted from the oldest. */
  timeOfUnit(units: number): number {
    let left = units;
    for (const [index, count] of this.#units.entries()) {
      left -= count;
      if (left <= 0) return this.#times[index] ?? 0;
    }
    return this.lastMs;
  }

  *entries(): Generator<[atMs: number, units: number]> {
    for (const [index, atMs] of this.#times.entries()) yield [atMs, this.#units[index] ?? 0];
  }

  /** Moves all entries back in time. */
  shift(ms: number): void {
    for (const [index, atMs] of this.#times.entries()) this.#times[index] = atMs - ms;
  }

  copy(): UnitLog {
    const copied = new UnitLog();
    for (const [atMs, units] of this.entries()) copied.append(units, atMs);
    return copied;
  }

  #takeAt(index: number, most: number): number {
    const taken = Math.min(this.#units[index] ?? 0, most);
    this.#units[index] = (this.#units[index] ?? 0) - taken;
    return taken;
  }

  #push(units: number, atMs: number): void {
    this.#times.push(atMs);
    this.#units.push(units);
  }

  /** Index of the first later entry. */
  #after(atMs: number): number {
    let index = this.#times.length;
    while (index > 0 && (this.#times[index - 1] ?? 0) > atMs) index -= 1;
    return index;
  }
}
