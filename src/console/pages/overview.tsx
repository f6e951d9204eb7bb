import { useState } from 'hono/jsx/dom';

import { count, duration, number, percent } from '../format.ts';
import { useLoad } from '../load.ts';
import { byLabel, countsByStep, quantileOf, requestsOf, seriesOf, stepsOf, totalOf, valueSumOf } from '../series.ts';
import type { Metrics } from '../series.ts';
import { client } from '../session.ts';
import { Plot } from '../plot.tsx';
import type { Line } from '../plot.tsx';
import { Content, Empty, Page, Table, Tag } from '../ui.tsx';
import { verdictOf } from '../verdict.ts';

const RANGES = { '15m': '15 minutes', '1h': '1 hour', '24h': '24 hours' } as const;
type Range = keyof typeof RANGES;

const EVERY_MS = 2_000;
const MOST_LINES = 4;
const COLOURS = ['accent', 'line-2', 'line-3', 'line-4'] as const;
const REQUESTS = 'http.server.request.duration';
const STATUS = 'http.response.status_code';

export function Overview() {
  const [range, setRange] = useState<Range>('15m');
  const loaded = useLoad(`metrics ${range}`, () => client.call('GET /v1/admin/metrics', { query: { range } }), {
    everyMs: EVERY_MS,
  });
  const choice = (
    <fieldset class="choice">
      <legend class="hidden">Time that is shown</legend>
      {(Object.keys(RANGES) as Range[]).map((name) => (
        <label key={name} title={RANGES[name]}>
          <input type="radio" name="range" checked={name === range} onChange={() => setRange(name)} />
          {name.replace('m', ' min').replace('h', ' h')}
        </label>
      ))}
    </fieldset>
  );
  return (
    <Page title="Overview" note={choice}>
      <Content of={loaded}>
        {(metrics) => (
          <>
            <VerdictBox metrics={metrics} />
            <State metrics={metrics} />
            <Plots metrics={metrics} />
            <Routes metrics={metrics} />
          </>
        )}
      </Content>
    </Page>
  );
}

function VerdictBox({ metrics }: { metrics: Metrics }) {
  const { level, title, details } = verdictOf(metrics);
  return (
    <section class={`verdict ${level}`} aria-live="polite" aria-label="Verdict">
      <p class="headline">{title}</p>
      {details.map((detail) => (
        <p key={detail}>{detail}</p>
      ))}
    </section>
  );
}

function State({ metrics: { state } }: { metrics: Metrics }) {
  const up = (what: string) => <Tag tone={what === 'up' ? 'good' : 'bad'}>{what}</Tag>;
  return (
    <dl class="state">
      <div>
        <dt>Redis</dt>
        <dd>{up(state.redis)}</dd>
      </div>
      <div>
        <dt>Circuit breaker</dt>
        <dd>
          <Tag tone={state.breaker === 'closed' ? 'good' : 'warning'}>{state.breaker}</Tag>
        </dd>
      </div>
      <div>
        <dt>Database</dt>
        <dd>{up(state.database)}</dd>
      </div>
      <Others state={state} />
    </dl>
  );
}

function Others({ state: { outbox, mailer, isolates } }: { state: Metrics['state'] }) {
  return (
    <>
      <div>
        <dt>Outbox</dt>
        <dd>{outbox === null ? 'unknown' : outbox.pending === 0 ? 'empty' : `${count(outbox.pending)} pending`}</dd>
      </div>
      <div>
        <dt>Mail</dt>
        <dd>{mailer === 'none' ? 'none is sent' : mailer}</dd>
      </div>
      <div>
        <dt>Isolates</dt>
        <dd>{isolates === null ? 'unknown' : count(isolates)}</dd>
      </div>
    </>
  );
}

function Plots({ metrics }: { metrics: Metrics }) {
  const times = timesOf(metrics);
  const perSecond = (values: readonly number[]) => values.map((value) => value / metrics.stepSeconds);
  const requests = requestsOf(metrics);
  const ofClass = (name: string, digit: string, colour: string): Line => ({
    name,
    colour,
    values: perSecond(countsByStep(metrics, requestsOf(metrics, { [STATUS]: new RegExp(`^${digit}`) }))),
  });
  const steps = Array.from({ length: stepsOf(metrics) }, (_, step) => step);
  const atQuantile = (name: string, share: number, colour: string): Line => ({
    name,
    colour,
    values: steps.map((step) => quantileOf(share, requests, (one) => one === step) ?? null),
  });
  const refused = seriesOf(metrics, 'gatehouse.ratelimit.decisions', {
    'gatehouse.outcome': /^(refused|limit|blocked)$/,
  });
  const auth = (name: string, kind: string, colour: string): Line => ({
    name,
    colour,
    values: countsByStep(metrics, seriesOf(metrics, 'gatehouse.auth.events', { 'gatehouse.kind': kind })),
  });
  return (
    <div class="plots">
      <Plot
        title="Requests a second"
        times={times}
        format={number}
        lines={[ofClass('2xx', '2', 'accent'), ofClass('4xx', '4', 'line-2'), ofClass('5xx', '5', 'bad')]}
        empty="No requests in this time."
      />
      <Plot
        title="Time to respond"
        times={times}
        format={duration}
        lines={[atQuantile('p50', 0.5, 'accent'), atQuantile('p95', 0.95, 'line-2'), atQuantile('p99', 0.99, 'line-3')]}
        empty="No requests in this time."
      />
      <Plot
        title="Calls to Redis that a request waits for"
        times={times}
        format={number}
        lines={[{ name: 'mean', colour: 'accent', values: tripsByStep(metrics) }]}
        empty="No request has waited for Redis."
      />
      <Plot
        title="Cache hits"
        times={times}
        format={percent}
        lines={hitLines(metrics)}
        empty="Nothing was read through the cache."
      />
      <Plot
        title="Requests that a limit refused"
        times={times}
        format={count}
        lines={byLabel(refused, 'gatehouse.policy')
          .slice(0, MOST_LINES)
          .map(([name, series], at) => ({
            name,
            colour: COLOURS[at] ?? 'accent',
            values: countsByStep(metrics, series),
          }))}
        empty="No limit has refused a request."
      />
      <Plot
        title="Sign-ins"
        times={times}
        format={count}
        lines={[
          auth('signed in', 'login', 'accent'),
          auth('failed', 'login-failed', 'line-2'),
          auth('token reused', 'refresh-reuse', 'bad'),
        ]}
        empty="No sign-ins in this time."
      />
    </div>
  );
}

function timesOf(metrics: Metrics): number[] {
  const from = Date.parse(metrics.from) / 1_000;
  return Array.from({ length: stepsOf(metrics) }, (_, step) => from + step * metrics.stepSeconds);
}

function tripsByStep(metrics: Metrics): (number | null)[] {
  const series = seriesOf(metrics, 'gatehouse.redis.blocking_trips');
  const counts = countsByStep(metrics, series);
  const sums = counts.map(() => 0);
  for (const { points } of series) for (const [step = -1, value = 0] of points) if (step in sums) sums[step]! += value;
  return counts.map((value, step) => (value === 0 ? null : (sums[step] ?? 0) / value));
}

const HIT = /^(hit|memory|stale|negative|joined)$/;

/** The share of reads that did not wait for a loader, of the namespaces that are read most. */
function hitLines(metrics: Metrics): Line[] {
  const reads = seriesOf(metrics, 'gatehouse.cache.requests');
  return byLabel(reads, 'gatehouse.namespace')
    .slice(0, MOST_LINES)
    .map(([name, series], at) => {
      const all = countsByStep(metrics, series);
      const hits = countsByStep(
        metrics,
        series.filter(({ labels }) => HIT.test(labels['gatehouse.outcome'] ?? '')),
      );
      return {
        name,
        colour: COLOURS[at] ?? 'accent',
        values: all.map((value, step) => (value === 0 ? null : (hits[step] ?? 0) / value)),
      };
    });
}

const MOST_ROUTES = 15;

function Routes({ metrics }: { metrics: Metrics }) {
  const requests = seriesOf(metrics, REQUESTS);
  const named = requests.map((series) => {
    const route = `${series.labels['http.request.method'] ?? ''} ${series.labels['http.route'] ?? 'other'}`;
    return Object.assign({}, series, { labels: Object.assign({ route }, series.labels) });
  });
  const routes = byLabel(named, 'route').slice(0, MOST_ROUTES);
  return (
    <section>
      <h2>Routes</h2>
      {routes.length === 0 ? (
        <Empty>No requests in this time.</Empty>
      ) : (
        <Table
          label="Routes"
          head={['Route', 'Requests', 'Mean', 'p50', 'p95', 'p99', 'Refused (4xx)', 'Failed (5xx)']}
        >
          {routes.map(([route, series]) => {
            const total = totalOf(series);
            const of = (digit: string) =>
              totalOf(series.filter(({ labels }) => (labels[STATUS] ?? '').startsWith(digit)));
            const failed = of('5');
            return (
              <tr key={route}>
                <td>{route}</td>
                <td class="figure">{count(total)}</td>
                <td class="figure">{duration(valueSumOf(series) / total)}</td>
                {[0.5, 0.95, 0.99].map((share) => (
                  <td class="figure">{duration(quantileOf(share, series) ?? Number.NaN)}</td>
                ))}
                <td class="figure">{count(of('4'))}</td>
                <td class="figure">{failed > 0 ? <Tag tone="bad">{count(failed)}</Tag> : '0'}</td>
              </tr>
            );
          })}
        </Table>
      )}
    </section>
  );
}
