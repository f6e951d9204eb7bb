import { DEFINITIONS } from '../../metrics/definitions';
import type { Definition } from '../../metrics/definitions';
import { labelValuesOf } from '../../metrics/registry';
import type { RedisValue } from '../../redis/client';
import { RedisUnavailable } from '../../redis/errors';

/** One series with the counts of all isolates: `[total]`, or `[sum, …counts by bucket]` of a histogram. */
export interface TotalSeries {
  definition: Definition;
  labels: Readonly<Record<string, string>>;
  /** Its number in the time series. */
  number: number;
  values: readonly number[];
}

export interface Totals {
  series: TotalSeries[];
  /** When each isolate last reported, in milliseconds since the epoch. */
  isolates: number[];
  /** By name. */
  gauges: Map<string, number>;
  /** Values dropped because there were too many series. */
  leftOut: number;
}

const BY_NAME = new Map<string, Definition>(Object.values(DEFINITIONS).map((one) => [one.name, one]));

/** OpenTelemetry's label for an instrument's overflow series. */
export const OVERFLOW_LABEL = 'otel.metric.overflow';

/** The instrument and the labels of a series; `undefined` if this version does not know it. */
export function describeSeries(id: string): Pick<TotalSeries, 'definition' | 'labels'> | undefined {
  const definition = BY_NAME.get(id.split('|', 1)[0] ?? '');
  if (definition === undefined) return undefined;
  const values = labelValuesOf(id);
  if (values === undefined) return { definition, labels: { [OVERFLOW_LABEL]: 'true' } };
  // Attributes without a value are omitted, as the conventions require.
  const pairs = definition.labels.map((label, at) => [label, values[at] ?? ''] as const);
  return { definition, labels: Object.fromEntries(pairs.filter(([, value]) => value !== '')) };
}

/** Parses the totals written by the script `metricsAdd`. @throws {RedisUnavailable} for any other reply */
export function readTotals(reply: RedisValue): Totals {
  if (!Array.isArray(reply) || reply.length % 2 !== 0) throw new RedisUnavailable('garbage');
  const totals: Totals = { series: [], isolates: [], gauges: new Map(), leftOut: 0 };
  for (let at = 0; at < reply.length; at += 2) {
    const [field, value] = [String(reply[at]), String(reply[at + 1])];
    if (field === '#') continue;
    if (field === '!') totals.leftOut = Number(value);
    else if (field.startsWith('i:')) totals.isolates.push(Number(value.split(' ')[1]));
    else if (field.startsWith('g:')) totals.gauges.set(field.slice(2), Number(value));
    else {
      const described = describeSeries(field);
      const numbers = numbersOf(value);
      if (described === undefined || numbers === undefined) continue;
      const [number = 0, ...values] = numbers;
      totals.series.push({ ...described, number, values });
    }
  }
  return totals;
}

/** Parses a JSON array of numbers; `undefined` for any other text. */
export function numbersOf(text: string): number[] | undefined {
  const value = parsed(text);
  return Array.isArray(value) && value.every((one) => typeof one === 'number') ? value : undefined;
}

/** `undefined` if the text is not JSON: another program has written it. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return undefined;
  }
}
