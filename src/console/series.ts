/** Figures made of the time series of `GET /v1/admin/metrics`. */
import type { Metrics, MetricSeries } from '../client/contract.ts';

export type { Metrics, MetricSeries } from '../client/contract.ts';

export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Series of one instrument, with some labels. */
export function seriesOf(
  { series }: Metrics,
  name: string,
  labels: Readonly<Record<string, string | RegExp>> = {},
): MetricSeries[] {
  return series.filter(
    (one) =>
      one.name === name &&
      Object.entries(labels).every(([label, wanted]) => {
        const value = one.labels[label] ?? '';
        return typeof wanted === 'string' ? value === wanted : wanted.test(value);
      }),
  );
}

/** Routes that the console and Prometheus request every few seconds for these figures: not traffic of the app. */
const OWN_ROUTES = new Set(['/v1/admin/metrics', '/metrics']);

/** Requests, without those that ask for the metrics themselves. */
export function requestsOf(metrics: Metrics, labels?: Readonly<Record<string, string | RegExp>>): MetricSeries[] {
  const requests = seriesOf(metrics, 'http.server.request.duration', labels);
  return requests.filter(({ labels: { 'http.route': route = '' } }) => !OWN_ROUTES.has(route));
}

/** How many steps the range has. */
export const stepsOf = ({ from, to, stepSeconds }: Metrics): number =>
  Math.round((Date.parse(to) - Date.parse(from)) / 1_000 / stepSeconds);

/** Counts of a point: of a histogram, all its buckets together. */
const countOf = ({ kind }: MetricSeries, point: readonly number[]): number =>
  kind === 'histogram' ? sum(point.slice(2)) : (point[1] ?? 0);

/** Counts in each step, all series together. */
export function countsByStep(metrics: Metrics, series: readonly MetricSeries[]): number[] {
  const counts = Array.from({ length: stepsOf(metrics) }, () => 0);
  for (const one of series) {
    for (const point of one.points) {
      const [step = -1] = point;
      if (step in counts) counts[step]! += countOf(one, point);
    }
  }
  return counts;
}

/** Counts from a step on, all series together. */
export function totalOf(series: readonly MetricSeries[], fromStep = 0): number {
  return sum(
    series.flatMap((one) => one.points.map((point) => ((point[0] ?? -1) >= fromStep ? countOf(one, point) : 0))),
  );
}

/** Sums of a histogram's values from a step on. */
export function valueSumOf(series: readonly MetricSeries[], fromStep = 0): number {
  return sum(series.flatMap(({ points }) => points.map(([step = -1, value = 0]) => (step >= fromStep ? value : 0))));
}

/** Totals by the value of a label, largest first. */
export function byLabel(series: readonly MetricSeries[], label: string): [string, MetricSeries[]][] {
  const groups = new Map<string, MetricSeries[]>();
  for (const one of series) {
    const value = one.labels[label] ?? 'other';
    groups.set(value, [...(groups.get(value) ?? []), one]);
  }
  return [...groups].toSorted(([, a], [, b]) => totalOf(b) - totalOf(a));
}

/** Buckets of histograms, added up over steps. */
export function bucketsOf(series: readonly MetricSeries[], has: (step: number) => boolean = () => true): number[] {
  const buckets: number[] = [];
  for (const { points } of series) {
    for (const [step = -1, , ...counts] of points) {
      if (!has(step)) continue;
      for (const [at, value] of counts.entries()) buckets[at] = (buckets[at] ?? 0) + value;
    }
  }
  return Array.from(buckets, (value) => value ?? 0);
}

/**
 * A quantile of a histogram, even within its bucket; `undefined` of none. Above the last bound it is the last bound, as
 * Prometheus has it.
 */
export function quantile(share: number, bounds: readonly number[], buckets: readonly number[]): number | undefined {
  const total = sum(buckets);
  if (total === 0) return undefined;
  const rank = share * total;
  let before = 0;
  for (const [at, value] of buckets.entries()) {
    if (value > 0 && before + value >= rank) {
      const [low, high] = [at === 0 ? 0 : (bounds[at - 1] ?? 0), bounds[at]];
      return high === undefined ? low : low + ((high - low) * (rank - before)) / value;
    }
    before += value;
  }
  return bounds.at(-1);
}

/** A quantile over some steps, all series together. */
export function quantileOf(share: number, series: readonly MetricSeries[], has?: (step: number) => boolean) {
  return quantile(share, series[0]?.bounds ?? [], bucketsOf(series, has));
}
