import type { Definition } from './definitions';

/**
 * The counts of one series since they were last taken: `[total]` of a counter, `[sum, …counts by bucket]` of a histogram.
 * Plain numbers, so that counting costs one addition.
 */
export interface Series {
  /** The name of the series in Redis: the instrument's name and its label values. */
  readonly id: string;
  readonly values: number[];
}

/** Counts to add, by name of the series. */
export type Counts = Record<string, number[]>;

const MAX_VALUE_LENGTH = 100;
/** Stands for the label values of an instrument's overflow series. */
export const OVERFLOW = '*';

const escaped = (value: string) =>
  value.slice(0, MAX_VALUE_LENGTH).replace(/[%|*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);

/** The label values of a series; `undefined` for an overflow series. */
export function labelValuesOf(id: string): string[] | undefined {
  const [, ...values] = id.split('|');
  if (values[0] === OVERFLOW) return undefined;
  return values.map((value) =>
    value.replace(/%(7c|25|2a)/g, (_, code: string) => String.fromCharCode(parseInt(code, 16))),
  );
}

type Tree = Map<string, Map<string, Map<string, Series>>>;

/** All series of one instrument: at most `maxSeries`, and one overflow series. */
export class Instrument {
  readonly definition: Definition;
  readonly all: Series[] = [];
  readonly #tree: Tree = new Map();
  readonly #width: number;
  /** Upper bounds in the recorded unit: milliseconds for an instrument in seconds. */
  readonly #bounds: readonly number[];
  #overflow: Series | undefined;

  constructor(definition: Definition) {
    this.definition = definition;
    const { bounds = [], unit, kind } = definition;
    this.#bounds = unit === 's' ? bounds.map((bound) => bound * 1_000) : bounds;
    this.#width = kind === 'histogram' ? bounds.length + 2 : 1;
  }

  /**
   * The series with these label values, after at most three look-ups. Code that runs for each request should keep the
   * result.
   */
  series(first = '', second = '', third = ''): Series {
    return this.#tree.get(first)?.get(second)?.get(third) ?? this.#make(first, second, third);
  }

  add(series: Series, count = 1): void {
    series.values[0]! += count;
  }

  /** Adds one to the series with these label values. */
  count(first?: string, second?: string, third?: string): void {
    this.series(first, second, third).values[0]! += 1;
  }

  /** @param value milliseconds where the unit is seconds */
  record(series: Series, value: number): void {
    const { values } = series;
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket += 1;
    values[0]! += value;
    values[bucket + 1]! += 1;
  }

  #make(first: string, second: string, third: string): Series {
    const { name, labels, maxSeries } = this.definition;
    if (this.all.length >= maxSeries) {
      this.#overflow ??= this.#added(`${name}|${OVERFLOW}`);
      return this.#overflow;
    }
    const made = this.#added([name, ...[first, second, third].slice(0, labels.length).map(escaped)].join('|'));
    let level = this.#tree.get(first);
    if (level === undefined) this.#tree.set(first, (level = new Map()));
    let last = level.get(second);
    if (last === undefined) level.set(second, (last = new Map()));
    last.set(third, made);
    return made;
  }

  #added(id: string): Series {
    const made: Series = { id, values: Array.from({ length: this.#width }, () => 0) };
    this.all.push(made);
    return made;
  }
}

/** Takes the counts since the last call; `undefined` when there are none. */
export function takeCounts(instruments: readonly Instrument[]): Counts | undefined {
  let counts: Counts | undefined;
  for (const { all } of instruments) {
    for (const { id, values } of all) {
      if (values.every((value) => value === 0)) continue;
      counts ??= {};
      counts[id] = values.map(Math.round);
      values.fill(0);
    }
  }
  return counts;
}

/** Adds the counts of `from` to those of `to`. */
export function addCounts(to: Counts, from: Counts): void {
  for (const [id, values] of Object.entries(from)) {
    const known = to[id];
    to[id] = known === undefined ? [...values] : values.map((value, at) => value + (known[at] ?? 0));
  }
}
