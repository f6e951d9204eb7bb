import type { Overview } from '../services/metrics.service';
import { timestamp } from '../util/timestamp';

/** A time series as the API shows it. */
export function presentOverview({ source, history, state }: Overview) {
  const { range, stepMs, fromMs, toMs, series } = history;
  return {
    range,
    source,
    stepSeconds: stepMs / 1_000,
    from: timestamp(fromMs),
    to: timestamp(toMs),
    series: series.map(({ definition: { name, kind, unit, bounds }, labels, points }) => ({
      bounds: bounds?.slice(),
      name,
      kind,
      unit,
      labels,
      points,
    })),
    state: { ...state, outbox: state.outbox ?? null, isolates: state.isolates ?? null },
  };
}
