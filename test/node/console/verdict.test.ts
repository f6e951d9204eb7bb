import { describe, expect, it } from 'vitest';

import { quantile, requestsOf, totalOf } from '../../../src/console/series.ts';
import type { Metrics, MetricSeries } from '../../../src/console/series.ts';
import { verdictOf } from '../../../src/console/verdict.ts';

const STEPS = 90;
const BOUNDS = [0.01, 0.1, 1];

/** A server whose last minute is well, but for what a test changes. */
function metricsWith(series: MetricSeries[] = [], state: Partial<Metrics['state']> = {}): Metrics {
  return {
    range: '15m',
    source: 'redis',
    stepSeconds: 10,
    from: '2026-11-23T09:00:00Z',
    to: '2026-11-23T09:15:00Z',
    series,
    state: {
      isolate: 'one',
      redis: 'up',
      breaker: 'closed',
      shardsOut: 0,
      database: 'up',
      outbox: { pending: 0, oldestAgeSeconds: 0 },
      mailer: 'none',
      isolates: 2,
      ...state,
    },
  };
}

const counter = (name: string, labels: Record<string, string>, count: number, step = STEPS - 2): MetricSeries => ({
  name,
  kind: 'counter',
  unit: '1',
  labels,
  points: [[step, count]],
});
const durations = (
  name: string,
  labels: Record<string, string>,
  buckets: number[],
  step = STEPS - 2,
): MetricSeries => ({
  name,
  kind: 'histogram',
  unit: 's',
  bounds: BOUNDS,
  labels,
  points: [[step, 1, ...buckets]],
});
const requests = (status: string, count: number) =>
  durations('http.server.request.duration', { 'http.response.status_code': status }, [count]);
const decided = (source: string, count: number) =>
  counter('gatehouse.ratelimit.decisions', { 'gatehouse.source': source }, count);

describe('the verdict', () => {
  it.each<[string, Metrics, string, string]>([
    ['good', metricsWith([requests('200', 700)]), 'All is well.', '10 requests/s, p95 9.5\u00a0ms.'],
    ['good', metricsWith(), 'All is well.', 'No requests in the last minute.'],
    ['bad', metricsWith([], { redis: 'down' }), 'Redis is away: each isolate decides over limits', ''],
    ['bad', metricsWith([], { breaker: 'open' }), 'Redis is away', ''],
    ['warning', metricsWith([], { breaker: 'half-open' }), 'Redis is back, and is being tried.', ''],
    ['bad', metricsWith([], { database: 'down' }), 'The database does not respond', ''],
    [
      'warning',
      metricsWith([], { outbox: { pending: 3, oldestAgeSeconds: 300 } }),
      '3 messages wait for Redis, the oldest for 5\u00a0min.',
      '',
    ],
    [
      'warning',
      metricsWith([durations('db.client.operation.duration', { 'db.system.name': 'redis' }, [1, 1, 8])]),
      'Redis is slow: p95 944\u00a0ms.',
      '',
    ],
    [
      'warning',
      metricsWith([decided('redis', 88), decided('local', 12)]),
      'Limits are decided locally on 12\u00a0% of',
      '',
    ],
    ['bad', metricsWith([requests('200', 90), requests('503', 10)]), '10\u00a0% of requests fail (5xx).', ''],
    ['warning', metricsWith([requests('200', 999), requests('500', 2)]), '0.2\u00a0% of requests fail (5xx).', ''],
    [
      'warning',
      metricsWith([counter('gatehouse.auth.events', { 'gatehouse.kind': 'refresh-reuse' }, 2)]),
      '2 refresh tokens were reused',
      '',
    ],
  ])('%s: $2', (level, metrics, title, detail) => {
    const verdict = verdictOf(metrics);
    expect(verdict.level).toBe(level);
    expect(verdict.title).toContain(title);
    expect(verdict.details.join('\n')).toContain(detail);
  });

  it('counts no request that asks for the metrics themselves', () => {
    const polled = (route: string) =>
      durations('http.server.request.duration', { 'http.route': route, 'http.response.status_code': '503' }, [30]);
    const metrics = metricsWith([requests('200', 70), polled('/v1/admin/metrics'), polled('/metrics')]);
    expect(verdictOf(metrics)).toMatchObject({ level: 'good', details: ['1 requests/s, p95 9.5\u00a0ms.'] });
    expect(totalOf(requestsOf(metrics))).toBe(70);
  });

  it('says the worst first, and nothing of an outage that is over', () => {
    const old = counter('gatehouse.auth.events', { 'gatehouse.kind': 'refresh-reuse' }, 2, 10);
    expect(verdictOf(metricsWith([old])).level).toBe('good');
    const both = verdictOf(metricsWith([decided('local', 1)], { database: 'down' }));
    expect(both.title).toContain('The database does not respond');
    expect(both.details[0]).toContain('Limits are decided locally');
  });
});

describe('a quantile of a histogram', () => {
  it.each([
    [0.5, [10, 0, 0, 0], 0.005],
    [0.5, [0, 10, 0, 0], 0.055],
    [0.9, [5, 5, 0, 0], 0.082],
    [0.99, [0, 0, 0, 10], 1],
    [0.5, [0, 0, 0, 0], undefined],
  ])('of %d in %j', (share, buckets, expected) => {
    const found = quantile(share, BOUNDS, buckets);
    if (expected === undefined) expect(found).toBeUndefined();
    else expect(found).toBeCloseTo(expected, 5);
  });
});
