import { countsByStep, quantileOf, requestsOf, seriesOf, stepsOf, sum, totalOf } from './series.ts';
import type { Metrics } from './series.ts';
import { count, duration, number, percent } from './format.ts';

/** The most serious problem, as text: the first line for an operator. */
export interface Verdict {
  level: 'good' | 'warning' | 'bad';
  title: string;
  /** More that is wrong, or how it goes. */
  details: string[];
}

interface Finding {
  level: 'warning' | 'bad';
  text: string;
}

/** Figures are of the last minute. */
const RECENT_SECONDS = 60;
/** Above, a call to Redis costs a request more than it should. */
const SLOW_REDIS_SECONDS = 0.1;
const OLD_MESSAGE_SECONDS = 60;

export function verdictOf(metrics: Metrics): Verdict {
  const findings = [...ofState(metrics), ...ofTraffic(metrics)].toSorted(
    (a, b) => Number(b.level === 'bad') - Number(a.level === 'bad'),
  );
  const [worst, ...others] = findings;
  if (worst === undefined) return { level: 'good', title: 'All is well.', details: [trafficText(metrics)] };
  return { level: worst.level, title: worst.text, details: [...others.map(({ text }) => text), trafficText(metrics)] };
}

function ofState({ state, source }: Metrics): Finding[] {
  const findings: Finding[] = [];
  const add = (level: Finding['level'], text: string) => findings.push({ level, text });
  if (state.database !== 'up') add('bad', 'The database does not respond: sign-ins fail, existing sessions go on.');
  if (state.redis !== 'up' || state.breaker === 'open' || source === 'isolate') {
    add('bad', 'Redis is away: each isolate decides over limits by itself, and the database over sessions.');
  } else if (state.breaker === 'half-open') add('warning', 'Redis is back, and is being tried.');
  if (state.shardsOut > 0) add('bad', `${state.shardsOut} of Redis’s shards cannot serve.`);
  const { outbox } = state;
  if (outbox !== null && outbox.pending > 0 && outbox.oldestAgeSeconds > OLD_MESSAGE_SECONDS) {
    const age = duration(outbox.oldestAgeSeconds);
    add('warning', `${count(outbox.pending)} messages wait for Redis, the oldest for ${age}.`);
  }
  return findings;
}

function ofTraffic(metrics: Metrics): Finding[] {
  const findings: Finding[] = [];
  const from = recentStep(metrics);
  const has = (step: number) => step >= from;

  const redis = seriesOf(metrics, 'db.client.operation.duration', { 'db.system.name': 'redis' });
  const p95 = quantileOf(0.95, redis, has);
  if (p95 !== undefined && p95 > SLOW_REDIS_SECONDS && metrics.state.redis === 'up') {
    findings.push({ level: 'warning', text: `Redis is slow: p95 ${duration(p95)}.` });
  }
  const decisions = seriesOf(metrics, 'gatehouse.ratelimit.decisions');
  const local = seriesOf(metrics, 'gatehouse.ratelimit.decisions', { 'gatehouse.source': 'local' });
  const localShare = totalOf(local, from) / totalOf(decisions, from);
  if (localShare > 0.01) {
    findings.push({ level: 'warning', text: `Limits are decided locally on ${percent(localShare)} of requests.` });
  }
  const requests = requestsOf(metrics);
  const failed = requestsOf(metrics, { 'http.response.status_code': /^5/ });
  const errorShare = totalOf(failed, from) / totalOf(requests, from);
  if (errorShare > 0.001) {
    const text = `${percent(errorShare)} of requests fail (5xx).`;
    findings.push({ level: errorShare > 0.05 ? 'bad' : 'warning', text });
  }
  const reuse = totalOf(seriesOf(metrics, 'gatehouse.auth.events', { 'gatehouse.kind': 'refresh-reuse' }), from);
  if (reuse > 0) {
    const text = `${count(reuse)} refresh tokens were reused in the last minute: they may have been stolen.`;
    findings.push({ level: 'warning', text });
  }
  const mails = seriesOf(metrics, 'gatehouse.mails', { 'gatehouse.outcome': 'failed' });
  const lost = totalOf(mails, from);
  if (lost > 0) findings.push({ level: 'warning', text: `${count(lost)} mails could not be sent in the last minute.` });
  return findings;
}

/** Where the last minute begins. */
export const recentStep = (metrics: Metrics): number =>
  Math.max(0, stepsOf(metrics) - Math.max(1, Math.round(RECENT_SECONDS / metrics.stepSeconds)) - 1);

function trafficText(metrics: Metrics): string {
  const requests = requestsOf(metrics);
  const from = recentStep(metrics);
  const recent = countsByStep(metrics, requests).slice(from);
  const total = sum(recent);
  if (total === 0) return 'No requests in the last minute.';
  const p95 = quantileOf(0.95, requests, (step) => step >= from);
  const rate = total / (recent.length * metrics.stepSeconds);
  return `${number(rate)} requests/s, p95 ${duration(p95 ?? Number.NaN)}.`;
}
