import type { Definition } from '../../metrics/definitions';
import type { Lot } from '../../metrics/outbound';
import type { Keys } from '../../redis/keys';
import type { Argument, Command, RedisValue } from '../../redis/client';
import { SHOWN, placeOf } from './steps';
import type { Range } from './steps';
import { describeSeries, numbersOf, parsed } from './totals';
import type { Totals } from './totals';

/** The counts in each step of a range. */
export interface History {
  range: Range;
  stepMs: number;
  /** Start of the first step and end of the last, in milliseconds since the epoch. */
  fromMs: number;
  toMs: number;
  series: HistorySeries[];
}

export interface HistorySeries {
  definition: Definition;
  labels: Readonly<Record<string, string>>;
  /** `[step, total]`, or `[step, sum, …counts by bucket]` of a histogram. Steps without counts are omitted. */
  points: number[][];
}

/** The requested steps. */
export interface Window extends Omit<History, 'series'> {
  commands: Command[];
  /** For each command: when the steps of its fields begin. */
  stepsMs: number[][];
}

/** @param sinceMs omits steps that end before this time */
export function windowOf(
  keys: Keys,
  range: Range,
  { nowMs, sinceMs = 0 }: { nowMs: number; sinceMs?: number },
): Window {
  const { ring, rangeMs, together } = SHOWN[range];
  const stepMs = ring.stepMs * together;
  const toMs = (Math.floor(nowMs / stepMs) + 1) * stepMs;
  const fromMs = Math.max(toMs - rangeMs, Math.floor(sinceMs / stepMs) * stepMs);
  const chunks = new Map<number, { fields: number[]; atMs: number[] }>();
  for (let atMs = fromMs; atMs < toMs; atMs += ring.stepMs) {
    const { chunk, step } = placeOf(ring, atMs);
    const known = chunks.get(chunk) ?? { fields: [], atMs: [] };
    known.fields.push(step);
    known.atMs.push(atMs);
    chunks.set(chunk, known);
  }
  return {
    range,
    stepMs,
    fromMs,
    toMs,
    commands: [...chunks].map(([chunk, { fields }]) => {
      const command: [string, ...Argument[]] = ['HMGET', keys.metricsSteps(ring.stepMs, chunk)];
      command.push(...fields);
      return command;
    }),
    stepsMs: [...chunks.values()].map(({ atMs }) => atMs),
  };
}

/** Parses the replies to a window's commands. The totals provide the names of the series. */
export function historyOf(window: Window, replies: readonly RedisValue[], totals: Totals): History {
  const points = new Map<string, Map<number, number[]>>();
  for (const [at, reply] of replies.entries()) {
    if (!Array.isArray(reply)) continue;
    for (const [field, text] of reply.entries()) {
      const values = typeof text === 'string' ? parsed(text) : undefined;
      if (typeof values !== 'object' || values === null) continue;
      const step = stepOf(window, window.stepsMs[at]?.[field] ?? 0);
      for (const [number, numbers] of Object.entries(values)) {
        const counted = numbersOf(JSON.stringify(numbers));
        if (counted !== undefined) addPoint(points, number, step, counted);
      }
    }
  }
  const byNumber = new Map(totals.series.map((one) => [String(one.number), one]));
  return { ...shownOf(window), series: seriesOf(points, (number) => byNumber.get(number)) };
}

/** This isolate's unreported counts: the only ones known while Redis is away. */
export function historyOfLots(window: Window, lots: readonly Lot[]): History {
  const points = new Map<string, Map<number, number[]>>();
  for (const { atMs, counts } of lots) {
    if (atMs < window.fromMs || atMs >= window.toMs) continue;
    for (const [id, values] of Object.entries(counts)) addPoint(points, id, stepOf(window, atMs), values);
  }
  return { ...shownOf(window), series: seriesOf(points, describeSeries) };
}

const stepOf = ({ fromMs, stepMs }: Window, atMs: number) => Math.floor((atMs - fromMs) / stepMs);

const shownOf = ({ range, stepMs, fromMs, toMs }: Window) => ({ range, stepMs, fromMs, toMs });

function addPoint(points: Map<string, Map<number, number[]>>, name: string, step: number, values: number[]): void {
  const steps = points.get(name) ?? new Map<number, number[]>();
  points.set(name, steps);
  const sums = steps.get(step) ?? [];
  steps.set(step, sums);
  for (const [at, value] of values.entries()) sums[at] = (sums[at] ?? 0) + value;
}

function seriesOf(
  points: Map<string, Map<number, number[]>>,
  describe: (name: string) => Pick<HistorySeries, 'definition' | 'labels'> | undefined,
): HistorySeries[] {
  return [...points].flatMap(([name, steps]) => {
    const described = describe(name);
    if (described === undefined) return [];
    const { definition, labels } = described;
    const sorted = [...steps].sort(([a], [b]) => a - b);
    return [{ definition, labels, points: sorted.map(([step, values]) => [step].concat(shown(definition, values))) }];
  });
}

/** Sums of durations are stored in whole milliseconds. */
function shown({ kind, unit }: Definition, [first = 0, ...rest]: number[]): number[] {
  return [kind === 'histogram' && unit === 's' ? first / 1_000 : first, ...rest];
}
