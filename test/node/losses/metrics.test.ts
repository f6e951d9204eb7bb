import parsePrometheusTextFormat from 'parse-prometheus-text-format';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { script } from '../../support/faults.ts';
import { REDIS_MISSING, hasRedisServer, startRedis, until } from '../../support/redisServers.ts';
import type { RedisProcess } from '../../support/redisServers.ts';
import { eachOf, me, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const TOKEN = 'a-token-of-a-scraper';
const SETTINGS = {
  METRICS_TOKEN: TOKEN,
  METRICS_INTERVAL_MS: '100',
  BREAKER_WINDOW_MS: '2000',
  BREAKER_MIN_CALLS: '6',
  BREAKER_PROBE_MS: '100',
  BREAKER_PROBE_MAX_MS: '400',
};

let server: RedisProcess;
let stage: Stage;
let session: Held;
/** Responses of the load, by route and status. */
const counted = new Map<string, number>();

async function load(requests: number): Promise<void> {
  const numbers = Array.from({ length: requests }, (_, number) => number);
  for (const call of stage.isolates) {
    await eachOf(numbers, 8, async (number) => {
      const route = number % 2 === 0 ? '/health' : '/v1/users/me';
      const { status } = await (route === '/health' ? call('GET', route) : me(call, session));
      const name = `${route} ${status}`;
      counted.set(name, (counted.get(name) ?? 0) + 1);
    });
  }
}

interface Family {
  name: string;
  type: string;
  metrics: { labels?: Record<string, string>; value?: string }[];
}

async function scrape(isolate: number): Promise<Family[]> {
  const { status, body } = await stage.isolates[isolate]!('GET', '/metrics', { token: TOKEN });
  // The parser keeps one histogram of each name, whatever its labels: their lines are read one by one.
  return status === 200
    ? (parsePrometheusTextFormat(String(body).replaceAll(' histogram\n', ' untyped\n')) as Family[])
    : [];
}

function requestsIn(families: readonly Family[]): Map<string, number> {
  const counts = families.filter(({ name }) => name === 'http_server_request_duration_seconds_count');
  const found = counts.flatMap(({ metrics }) =>
    metrics.flatMap(({ labels = {}, value }) => {
      const route = labels['http_route'] ?? '';
      // What an isolate counted while Redis was away is in the totals afterwards.
      if (!['/health', '/v1/users/me'].includes(route) || 'gatehouse_isolate' in labels) return [];
      return [[`${route} ${labels['http_response_status_code']}`, Number(value)] as const];
    }),
  );
  return new Map(found);
}

describe.skipIf(!hasRedisServer)(`counts of two isolates${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`, () => {
  beforeAll(async () => {
    server = await startRedis('--appendonly', 'yes', '--appendfsync', 'always');
    stage = await startStage({ redisUrl: server.url }, { settings: SETTINGS });
    const [person] = await stage.people(1, 1);
    session = await wake(stage.isolates[0], person!.sessions[0]!);
  });
  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    await server.stop();
  });

  test('equal the load’s after lost answers and a restart of Redis, less the requests that are reported as dropped', async () => {
    await load(60);
    const isReport = script(':metrics:');
    stage.redis.mode = { kind: 'drop-after', when: isReport, times: 6 };
    await load(120);
    const reports = () => stage.redis.requests.filter(({ commands }) => commands.some(isReport)).length;
    for (let more = 0; more < 10 && reports() <= 6; more += 1) await load(60);
    expect(reports()).toBeGreaterThan(6);
    await stage.redis.clear();
    await server.kill();
    await load(60);
    await server.restart();
    await load(60);
    let families: Family[] = [];
    await until(async () => {
      const both = [await scrape(0), await scrape(1), await scrape(0)];
      families = both.at(-1)!;
      const totals = [...requestsIn(families).values()].reduce((sum, count) => sum + count, 0);
      return totals >= 600;
    }, 'all isolates have reported');
    expect(requestsIn(families)).toEqual(counted);
    // Nothing had to be dropped.
    expect(families.map(({ name }) => name)).not.toContain('gatehouse_metrics_dropped_total');
    expect(families.find(({ name }) => name === 'gatehouse_isolates')?.metrics).toEqual([{ value: '2' }]);
  });
});
