import { env } from 'cloudflare:workers';
import { afterEach, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { DEFINITIONS } from '../../../src/metrics/definitions';
import { createInstruments } from '../../../src/metrics/instruments';
import { GIVE_UP_MS } from '../../../src/metrics/outbound';
import { prometheusName, writeText } from '../../../src/metrics/prometheus';
import { RedisReplyError, RedisUnavailable } from '../../../src/redis/errors';
import { MAX_SERIES } from '../../../src/redis/scripts/metricsAdd';
import { UserService } from '../../../src/services/user.service';
import type { TotalSeries } from '../../../src/services/metrics.service';
import { freshNamespace, observedClient } from '../support/cache';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

afterEach(() => vi.restoreAllMocks());

const PASSWORD = 'correct horse battery';

/** An app of isolates with one Redis and clock, which report every ten seconds. */
function scene(count = 1, settings: Record<string, unknown> = {}) {
  const bound = bindings({ KEY_PREFIX: freshNamespace().replace('.', '-'), METRICS_INTERVAL_MS: '10000', ...settings });
  const clock = { ms: Date.now() };
  const now = () => clock.ms;
  const isolates = Array.from({ length: count }, () => {
    const { client, state } = observedClient();
    const isolate = isolateFor(bound, { client, now });
    const call = callerOf(createApp({ isolate, now }), bound);
    const totals = () => inRequest(({ services }) => services.metrics.totals(), { isolate, now });
    return { isolate, state, call, totals, now };
  });
  return { isolates, clock, now };
}

function totalOf(series: readonly TotalSeries[], name: string, labels: Record<string, string> = {}): number {
  const found = series.filter(
    (one) =>
      one.definition.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value),
  );
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  return sum(found.map(({ definition, values }) => sum(definition.kind === 'histogram' ? values.slice(1) : values)));
}

const requestsTo = (series: readonly TotalSeries[], route: string) =>
  totalOf(series, 'http.server.request.duration', { 'http.route': route });

async function admin(call: ReturnType<typeof callerOf>) {
  const email = `m${crypto.randomUUID()}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', { body: { email, password: PASSWORD, name: 'Grace' } });
  const { user } = body as { user: { id: string } };
  await env.DB.prepare(`update users set role = 'admin' where id = ?`).bind(user.id).run();
  const login = await call('POST', '/v1/auth/login', { body: { email, password: PASSWORD } });
  return { id: user.id, token: (login.body as { access_token: string }).access_token };
}

describe('reports', () => {
  test('counts of all isolates add up, each once', async () => {
    const { isolates } = scene(2);
    for (const { call } of isolates) for (let i = 0; i < 5; i += 1) await call('GET', '/health');
    await isolates[0]!.totals();
    const { series } = await isolates[1]!.totals();
    expect(requestsTo(series, '/health')).toBe(10);
    const again = await isolates[0]!.totals();
    expect(requestsTo(again.series, '/health')).toBe(10);
    expect(again.isolates).toHaveLength(2);
  });

  test('the totals expire 30 days after the last report, the steps once they are no longer shown', async () => {
    const { isolates, clock } = scene();
    const { isolate, now, call, totals } = isolates[0]!;
    await call('GET', '/health');
    await totals();
    const { keys } = isolate;
    const chunkOf = (stepMs: number, steps: number) => keys.metricsSteps(stepMs, Math.floor(clock.ms / stepMs / steps));
    const livesMs = await inRequest(
      ({ batch }) =>
        Promise.all(
          [keys.metrics, chunkOf(10_000, 30), chunkOf(60_000, 60)].map(async (key) =>
            Number(await batch.send('PTTL', key)),
          ),
        ),
      { isolate, now },
    );
    const minutes = [30 * 24 * 60, 60 + 5 + 2, 24 * 60 + 60 + 2];
    expect(livesMs.map((ms) => Math.ceil(ms / 60_000))).toEqual(minutes);
  });

  test('a lost answer counts nothing twice', async () => {
    const { isolates } = scene();
    const { call, state, totals } = isolates[0]!;
    await call('GET', '/health');
    state.rewrite = () => {
      throw new RedisUnavailable('timeout');
    };
    await expect(totals()).rejects.toThrow(RedisUnavailable);
    state.rewrite = undefined;
    await call('GET', '/health');
    expect(requestsTo((await totals()).series, '/health')).toBe(2);
    expect(requestsTo((await totals()).series, '/health')).toBe(2);
  });

  test('counts of an outage of Redis are reported afterwards, with the times at which they were counted', async () => {
    const { isolates, clock } = scene();
    const { call, state, isolate, now } = isolates[0]!;
    const { token } = await admin(call);
    await call('GET', '/v1/users/me', { token });
    state.down = true;
    const from = clock.ms;
    for (let minute = 0; minute < 6; minute += 1) {
      clock.ms += 60_000;
      await call('GET', '/health');
    }
    state.down = false;
    const overview = () => inRequest(({ services }) => services.metrics.overview('15m', from), { isolate, now });
    const { source, history } = await overview();
    expect(source).toBe('redis');
    const health = history.series.find(({ labels }) => labels['http.route'] === '/health');
    const first = Math.floor(from / 10_000) * 10_000;
    const steps = [1, 2, 3, 4, 5, 6].map((minute) => Math.floor((from + minute * 60_000 - first) / 10_000));
    expect(health?.points.map(([step, , ...buckets]) => [step, buckets.reduce((a, b) => a + b, 0)])).toEqual(
      steps.map((step) => [step, 1]),
    );
  });
});

describe('dropped counts are counted', () => {
  test('a report without an answer, after an hour without Redis: it may have been added, and is not sent again', async () => {
    const { isolates, clock } = scene();
    const { call, state, totals } = isolates[0]!;
    for (let i = 0; i < 7; i += 1) await call('GET', '/health');
    clock.ms += 10_000;
    state.down = true;
    // Sends the first eight, and gets no reply.
    await call('GET', '/health');
    clock.ms += GIVE_UP_MS - 1_000;
    for (let i = 0; i < 3; i += 1) await call('GET', '/health');
    clock.ms += 2_000;
    state.down = false;
    await totals();
    const { series } = await totals();
    const dropped = totalOf(series, 'gatehouse.metrics.dropped', { 'gatehouse.reason': 'expired' });
    expect([dropped, requestsTo(series, '/health')]).toEqual([8, 3]);
  });

  test('a report that Redis refuses', async () => {
    const { isolates } = scene();
    const { call, totals, isolate, now } = isolates[0]!;
    for (let i = 0; i < 5; i += 1) await call('GET', '/health');
    // Another program has written there.
    const redis = (...command: [string, ...string[]]) =>
      inRequest(({ batch }) => batch.send(...command), { isolate, now });
    await redis('SET', isolate.keys.metrics, 'no hash');
    await expect(totals()).rejects.toThrow(RedisReplyError);
    await redis('DEL', isolate.keys.metrics);
    await call('GET', '/health');
    await totals();
    const { series } = await totals();
    const dropped = totalOf(series, 'gatehouse.metrics.dropped', { 'gatehouse.reason': 'refused' });
    expect([dropped, requestsTo(series, '/health')]).toEqual([5, 1]);
  });

  test('series beyond those that one Redis keeps', async () => {
    const { isolates } = scene(1, { METRICS_TOKEN: 'a-token-of-a-scraper' });
    const { isolate, call, totals, now } = isolates[0]!;
    await inRequest(({ batch }) => batch.send('HSET', isolate.keys.metrics, '#', MAX_SERIES), { isolate, now });
    await call('GET', '/health');
    expect(requestsTo((await totals()).series, '/health')).toBe(0);
    const { body } = await call('GET', '/metrics', { token: 'a-token-of-a-scraper' });
    const [, leftOut] =
      /^gatehouse_metrics_dropped_total\{gatehouse_reason="series"\} (\d+)$/m.exec(String(body)) ?? [];
    expect(Number(leftOut)).toBeGreaterThan(0);
  });
});

test('every instrument counts the events of its name', async () => {
  for (const level of ['info', 'warn', 'error'] as const) vi.spyOn(console, level).mockImplementation(() => undefined);
  const token = 'a-token-of-a-scraper';
  const EMAIL = { send: async () => ({ messageId: '<1@example.net>' }) };
  const { isolates, clock, now } = scene(1, {
    METRICS_TOKEN: token,
    METRICS_INTERVAL_MS: '10000',
    BREAKER_MIN_CALLS: '4',
    BREAKER_WINDOW_MS: '2000',
    HASH_QUEUE_MAX: '1',
    MAILER: 'cloudflare',
    MAIL_FROM: 'hello@example.net',
    EMAIL,
  });
  const { call, state, isolate } = isolates[0]!;
  const own = { isolate, now };
  const job = `w${crypto.randomUUID()}`;
  const ada = await admin(call);
  const wrong = { email: 'nobody@example.com', password: PASSWORD };
  expect((await call('POST', '/v1/auth/login', { body: wrong })).status).toBe(401);
  await call('GET', '/v1/users/me', { token: ada.token });
  await call('POST', '/v1/auth/logout', { token: ada.token });
  await inRequest(async ({ services }) => {
    const first = await services.lock.acquire('counted', { leaseMs: 5_000 });
    const second = await services.lock.acquire('counted', { leaseMs: 5_000 });
    expect([first.acquired, second.acquired]).toEqual([true, false]);
    const page = async () => ({ items: [1, 2], next: null });
    const warm = async (item: unknown) => {
      if (item === 2) throw new Error('broken');
    };
    await services.warming.run({ name: job, page, warm });
    expect(await services.mail.send('recovery', { to: 'a@example.com', subject: 'a', text: 'b' })).toBe(true);
    const hashes = await Promise.allSettled([1, 2, 3].map((n) => isolate.passwords.hash(`password ${n}`)));
    expect(hashes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
  }, own);
  for (let i = 0; i < 53; i += 1) await call('GET', '/v1/users/me', { token: 'not.a.token' });
  clock.ms += 5_000;
  state.down = true;
  const email = `${crypto.randomUUID()}@example.com`;
  for (let i = 0; i < 6; i += 1) await call('POST', '/v1/auth/login', { body: { ...wrong, email } });
  expect(isolate.breaker.state).toBe('open');
  state.down = false;
  clock.ms += 31_000;
  await call('GET', '/health');
  await inRequest(({ services }) => services.metrics.observeOutbox(), own);
  // What the report itself costs is in the next one.
  const sent = [...state.sent];
  const body = String((await call('GET', '/metrics', { token })).body);
  const missing = Object.values(DEFINITIONS).filter(
    (one) => !body.includes(`# TYPE ${prometheusName(one)} ${one.kind}`),
  );
  // Lookups of breached passwords are off here; their own tests count them.
  expect(missing.map(({ name }) => name)).toEqual(['gatehouse.password.breach.lookups', 'gatehouse.metrics.dropped']);
  const value = (series: string) => {
    const line = body.split('\n').find((one) => one.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length + 1));
  };
  const counted = (name: string, labels: Record<string, string>) =>
    value(
      `${name}{${Object.entries(labels)
        .map(([label, text]) => `gatehouse_${label}="${text}"`)
        .join(',')}}`,
    );
  const kinds = ['registered', 'login', 'login-failed', 'logout'].map((kind) =>
    counted('gatehouse_auth_events_total', { kind }),
  );
  expect(kinds).toEqual([1, 1, 7, 1]);
  const decisions = (source: string) =>
    counted('gatehouse_ratelimit_decisions_total', { policy: 'login', outcome: 'admitted', source });
  expect([decisions('redis'), decisions('local')]).toEqual([2, 6]);
  expect(counted('gatehouse_degraded_total', { policy: 'limiter=local' })).toBe(6);
  expect(counted('gatehouse_guard_outcomes_total', { code: 'INVALID_TOKEN' })).toBe(53);
  const states = ['open', 'half-open', 'closed'].map((one) =>
    counted('gatehouse_breaker_transitions_total', { state: one }),
  );
  expect(states).toEqual([1, 1, 1]);
  expect(counted('gatehouse_mails_total', { kind: 'recovery', outcome: 'sent' })).toBe(1);
  const outcomes = (name: string, ...names: string[]) => names.map((outcome) => counted(name, { outcome }));
  // Two of the administrator, seven failed sign-ins, and two here.
  expect(outcomes('gatehouse_password_hashes_total', 'computed', 'refused')).toEqual([11, 1]);
  expect(value('gatehouse_password_hash_wait_seconds_count')).toBe(11);
  // One more is the warming run's.
  expect(outcomes('gatehouse_locks_total', 'acquired', 'held')).toEqual([2, 1]);
  expect(outcomes('gatehouse_outbox_deliveries_total', 'delivered')[0]).toBeGreaterThan(0);
  expect(counted('gatehouse_warming_items_total', { job, outcome: 'warmed' })).toBe(1);
  expect(counted('gatehouse_warming_items_total', { job, outcome: 'failed' })).toBe(1);
  expect(counted('gatehouse_cache_requests_total', { namespace: 'user', outcome: 'miss' })).toBe(1);
  expect(counted('gatehouse_log_left_out_total', { event: 'request.refused' })).toBe(10);
  const [pipelines, commands] = [sent.length, sent.flat().length];
  const operation = 'db_client_operation_duration_seconds_count{db_system_name="redis",db_operation_name="PIPELINE"';
  const refused = value(`${operation},error_type="refused"}`) ?? 0;
  expect([(value(`${operation}}`) ?? 0) + refused, value('gatehouse_redis_commands_total')]).toEqual([
    pipelines,
    commands,
  ]);
  expect(value('gatehouse_isolates')).toBe(1);
  expect(value('gatehouse_outbox_pending')).toBeGreaterThanOrEqual(0);
});

describe('GET /v1/admin/metrics', () => {
  test('shows counts by series and step, and the state', async () => {
    const { isolates } = scene();
    const { call } = isolates[0]!;
    const { token } = await admin(call);
    const { status, body } = await call('GET', '/v1/admin/metrics?range=15m', { token });
    expect(status).toBe(200);
    const { series, ...rest } = body as { series: { name: string; labels: object; points: number[][] }[] };
    expect(rest).toMatchObject({
      range: '15m',
      source: 'redis',
      stepSeconds: 10,
      state: { redis: 'up', breaker: 'closed', database: 'up', outbox: { oldestAgeSeconds: 0 }, isolates: 1 },
    });
    const find = (name: string, labels: object) =>
      series.find((one) => one.name === name && JSON.stringify(one.labels) === JSON.stringify(labels));
    expect(find('gatehouse.auth.events', { 'gatehouse.kind': 'login' })?.points).toEqual([[expect.any(Number), 1]]);
    expect(
      find('gatehouse.ratelimit.decisions', {
        'gatehouse.policy': 'login',
        'gatehouse.outcome': 'admitted',
        'gatehouse.source': 'redis',
      })?.points,
    ).toEqual([[expect.any(Number), 1]]);
  });

  test('shows this isolate while Redis is away', async () => {
    const { isolates, clock } = scene();
    const { call, state } = isolates[0]!;
    const { token } = await admin(call);
    state.down = true;
    clock.ms += 20_000;
    await call('GET', '/health');
    const { status, body } = await call('GET', '/v1/admin/metrics', { token });
    expect(status).toBe(200);
    expect(body).toMatchObject({ source: 'isolate', state: { redis: 'down', isolates: null } });
    expect((body as { series: unknown[] }).series.length).toBeGreaterThan(0);
  });

  test.each(['range=2h', 'since=yesterday', 'until=1'])('refuses %s', async (query) => {
    const { call } = scene().isolates[0]!;
    const { token } = await admin(call);
    expect((await call('GET', `/v1/admin/metrics?${query}`, { token })).status).toBe(422);
  });
});

test('reads through the cache are counted by namespace and outcome', async () => {
  const { isolates, now } = scene();
  const { isolate, call, totals } = isolates[0]!;
  const { id } = await admin(call);
  for (let i = 0; i < 3; i += 1) await inRequest(() => UserService.getUser(id), { isolate, now });
  const { series } = await totals();
  const outcome = (name: string) =>
    totalOf(series, 'gatehouse.cache.requests', { 'gatehouse.namespace': 'user', 'gatehouse.outcome': name });
  expect([outcome('miss'), outcome('hit')]).toEqual([1, 2]);
});

describe('GET /metrics', () => {
  const TOKEN = 'a-token-of-a-scraper';

  test('cumulative histograms, in one trip, for METRICS_TOKEN', async () => {
    const { isolates } = scene(2, { METRICS_TOKEN: TOKEN });
    for (const { call } of isolates) await call('GET', '/health');
    await isolates[1]!.totals();
    const { call, state } = isolates[0]!;
    state.sent.length = 0;
    const { status, headers, body } = await call('GET', '/metrics', { token: TOKEN });
    expect(status).toBe(200);
    expect(state.sent).toHaveLength(1);
    expect(headers.get('Content-Type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const name = 'http_server_request_duration_seconds';
    const labels = 'http_request_method="GET",http_route="/health",http_response_status_code="200"';
    expect(body).toContain(`# TYPE ${name} histogram\n`);
    expect(body).toContain(`${name}_bucket{${labels},le="+Inf"} 2\n`);
    expect(body).toContain(`${name}_count{${labels}} 2\n`);
    expect(body).toContain('gatehouse_isolates 2\n');
  });

  test('without Redis: counts that this isolate has not reported, under its name, and the waiting messages of the outbox', async () => {
    const { isolates, clock } = scene(1, { METRICS_TOKEN: TOKEN });
    const { call, state, isolate } = isolates[0]!;
    await call('GET', '/health');
    const labels = 'http_request_method="GET",http_route="/health",http_response_status_code="200"';
    const series = `http_server_request_duration_seconds_count{${labels}`;
    const before = String((await call('GET', '/metrics', { token: TOKEN })).body);
    expect(before).toContain(`${series}} 1\n`);
    expect(before).toContain('gatehouse_metrics_complete 1\n');

    state.down = true;
    clock.ms += 20_000;
    for (let request = 0; request < 3; request += 1) await call('GET', '/health');
    for (let scrape = 0; scrape < 2; scrape += 1) {
      const { status, body } = await call('GET', '/metrics', { token: TOKEN });
      expect(status).toBe(200);
      expect(body).toContain(`${series},gatehouse_isolate="${isolate.metrics.outbound.id}"} 3\n`);
      // Prometheus would take it for the totals, started anew, and their return for as many requests.
      expect(body).not.toContain(`${series}}`);
      expect(body).toContain('gatehouse_metrics_complete 0\n');
      expect(body).toMatch(/^gatehouse_outbox_oldest_age_seconds \d+$/m);
      expect(body).not.toContain('gatehouse_isolates ');
    }

    state.down = false;
    clock.ms += 31_000;
    await call('GET', '/health');
    await expect
      .poll(async () => String((await call('GET', '/metrics', { token: TOKEN })).body), { timeout: 30_000 })
      .toContain(`${series}} 5\n`);
  });

  test('for administrators, and for no other', async () => {
    const { call } = scene(1, { METRICS_TOKEN: TOKEN }).isolates[0]!;
    const { token } = await admin(call);
    expect((await call('GET', '/metrics', { token })).status).toBe(200);
    expect((await call('GET', '/metrics')).status).toBe(401);
    expect((await call('GET', '/metrics', { token: `${TOKEN}x` })).status).toBe(401);
    expect((await scene().isolates[0]!.call('GET', '/metrics', { token: TOKEN })).status).toBe(401);
  });
});

test('label values are escaped', () => {
  const definition = { ...DEFINITIONS.warmedItems, help: 'a\\b\nc' };
  expect(writeText([{ definition, labels: { 'gatehouse.job': 'x"\\\ny' }, values: [3] }])).toBe(
    [
      '# HELP gatehouse_warming_items_total a\\\\b\\nc',
      '# TYPE gatehouse_warming_items_total counter',
      'gatehouse_warming_items_total{gatehouse_job="x\\"\\\\\\ny"} 3',
      '',
    ].join('\n'),
  );
});

test('label values beyond an instrument’s bound are counted together', () => {
  const { warmedItems } = createInstruments();
  for (let i = 0; i < 100; i += 1) warmedItems.count(`job ${i}`, 'warmed');
  expect(warmedItems.all).toHaveLength(DEFINITIONS.warmedItems.maxSeries + 1);
  expect(warmedItems.all.at(-1)).toEqual({ id: 'gatehouse.warming.items|*', values: [40] });
});

test('reports make no request wait, and cost one command in ten seconds', async () => {
  const { isolates, clock } = scene();
  const { call, state } = isolates[0]!;
  const { token } = await admin(call);
  await call('GET', '/v1/users/me', { token });
  const isReport = (command: readonly (string | number)[]) =>
    command.some((part) => String(part).includes(':metrics:'));
  state.sent.length = 0;
  for (let request = 0; request < 300; request += 1) {
    clock.ms += 100;
    await call('GET', '/v1/users/me', { token });
  }
  const reports = state.sent.flat().filter(isReport);
  expect(reports.length).toBeGreaterThanOrEqual(2);
  expect(reports.length).toBeLessThanOrEqual(4);
  // The checks of a request and nothing else travel in what it waits for.
  const awaited = state.sent.filter((commands) => !commands.some(isReport));
  expect(awaited).toHaveLength(300);
});

test('with a dataset bound, each request writes one data point', async () => {
  const points: (AnalyticsEngineDataPoint | undefined)[] = [];
  const ANALYTICS: AnalyticsEngineDataset = { writeDataPoint: (point) => void points.push(point) };
  const bound = bindings({ ANALYTICS });
  const call = callerOf(createApp({ isolate: isolateFor(bound), now: () => 1_000 }), bound);
  await call('GET', '/health');
  await call('GET', '/v1/nowhere');
  expect(points).toEqual([
    { indexes: ['/health'], blobs: ['GET', '/health', '200'], doubles: [0, 0] },
    { indexes: [''], blobs: ['GET', '', '404'], doubles: [0, 0] },
  ]);
});
