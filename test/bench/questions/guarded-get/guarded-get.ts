import { randomUUID } from 'node:crypto';

import { testBindings } from '../../../support/bindings.ts';
import type { CaseResult, Question } from '../../question.ts';
import type { Target } from '../../support/load.ts';
import { cpuMicrosOf, hasCpuAccounting } from '../../support/cpu.ts';
import { countPaced, countTrips, latencyFigures, load } from '../../support/measure.ts';
import { startBenchRedis } from '../../support/redis.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { quantile } from '../../support/statistics.ts';
import { bundleApp, bundlePeer, startWorkers } from '../../support/workers.ts';
import type { WorkerOptions } from '../../support/workers.ts';

const CASES = [
  'gatehouse',
  'gatehouse-within',
  'documented-stack',
  'hono-rate-limiter',
  'one-fetch',
  'bare-hono',
] as const;
type CaseName = (typeof CASES)[number];

const PEERS = CASES.slice(2);
const PATH = '/v1/users/me';
const DELAY_MS = 20;
// Bounded by time, so that a busy machine makes the figures coarser and not the run longer.
const LATENCY = { connections: 4, durationMs: 1_500, rounds: 3 };
const THROUGHPUT = { connections: 32, durationMs: 800, rounds: 5 };
/** In rounds, with the cases in turn: a garbage collection more or less evens out. */
const CPU = { connections: 4, requests: 1_500, rounds: 5 };
const SERIAL = { connections: 1, requests: 40 };
const WARM_UP = { countedMs: 500, directMs: 1_200 };
const COUNTED_REQUESTS = 200;
/** Callers of the case that remembers, whose commands depend on the time between their requests. */
const PACED = { callers: 10, perSecond: 10, requests: 60 };

/**
 * What does a guarded, cached GET cost? The same endpoint, with the same response body for the same bearer token, as
 *
 * - `gatehouse`: the app as wrangler deploys it, with its rate limit raised and its deadline for Redis out of the way;
 * - `gatehouse-within`: the same with `READS_WITHIN_MS=1000`. Its round trips and commands are those of callers who make
 *   10 requests a second each;
 * - `documented-stack`: Hono, @upstash/ratelimit's sliding window, jose, `redis.get` on a blacklist and `redis.get`/`set`
 *   around D1, each as its documentation shows it, clients made once an isolate;
 * - `hono-rate-limiter`: the same with its Redis store as the limiter;
 * - `one-fetch`: Hono and one `fetch` of a pipeline of three commands, the floor of a guard that asks Redis;
 * - `bare-hono`: a route that only responds.
 *
 * All run in one plain workerd and speak to one gateway and engine in another process. Each case runs twice: once behind
 * a proxy that counts round trips and delays them, once on the gateway itself, where requests a second are measured. The
 * entry is cached, the scripts are loaded and the isolates are warm before anything is measured. Rounds of the cases
 * alternate, so that a drift of the machine meets all of them; requests a second are the median round's.
 *
 * Load generator, workerd and gateway share the machine: ratios say more than the figures themselves.
 */
export const guardedGet: Question = {
  name: 'guarded-get',
  asks: 'What does a rate-limited, authenticated, cached GET cost?',
  setUp:
    `p50 to p99: ${LATENCY.connections} connections, ${DELAY_MS} ms added to each round trip to Redis. ` +
    `req/s: ${THROUGHPUT.connections} connections, nothing added. Ratios are to gatehouse.`,

  async run(progress, { rounds } = {}) {
    const latencyRounds = rounds ?? LATENCY.rounds;
    const throughputRounds = rounds ?? THROUGHPUT.rounds;
    progress('bundling the Workers');
    await using redis = await startBenchRedis();
    await using setUp = await start(redis);
    progress(`Redis: ${redis.backend}; checking and warming each case`);
    const { counted, direct } = setUp;
    for (const name of CASES) {
      await load(name, counted[name], 4, { durationMs: WARM_UP.countedMs });
      await load(name, direct[name], THROUGHPUT.connections, { durationMs: WARM_UP.directMs });
    }

    const counts = {} as Record<CaseName, { roundTrips: number; commands: number }>;
    for (const name of CASES) {
      counts[name] =
        name === 'gatehouse-within'
          ? await countPaced(redis, counted[name], { tokens: setUp.tokens, ...PACED })
          : await countTrips(redis, name, counted[name], COUNTED_REQUESTS);
      progress(`${name}: ${counts[name].roundTrips} round trips, ${counts[name].commands} commands a request`);
    }

    const blocking = await blockingTrips(redis, counted);
    progress(`trips that the response waits for: ${line((name) => blocking[name], 2)}`);

    const cpu = {} as Record<CaseName, number[]>;
    const cpuRounds = hasCpuAccounting ? (rounds ?? CPU.rounds) : 0;
    for (let round = 1; round <= cpuRounds; round += 1) {
      for (const name of CASES) {
        const { connections, requests } = CPU;
        const before = cpuMicrosOf(setUp.pid);
        await load(name, direct[name], connections, { requests });
        (cpu[name] ??= []).push((cpuMicrosOf(setUp.pid) - before) / requests);
      }
      progress(`CPU, round ${round}: ${line((name) => cpu[name].at(-1) ?? 0, 0)} microseconds a request`);
    }

    const latenciesMs = Object.fromEntries(CASES.map((name) => [name, [] as number[]])) as Record<CaseName, number[]>;
    await redis.setDelay(DELAY_MS);
    for (let round = 1; round <= latencyRounds; round += 1) {
      for (const name of CASES) {
        const { connections, durationMs } = LATENCY;
        latenciesMs[name].push(...(await load(name, counted[name], connections, { durationMs })).latenciesMs);
      }
      progress(
        `latency, round ${round} of ${latencyRounds}: p50 ${line((name) => quantile(latenciesMs[name], 0.5), 1)} ms`,
      );
    }

    const rates = Object.fromEntries(CASES.map((name) => [name, [] as number[]])) as Record<CaseName, number[]>;
    for (let round = 1; round <= throughputRounds; round += 1) {
      for (const name of CASES) {
        const { connections, durationMs } = THROUGHPUT;
        const { requests, elapsedMs } = await load(name, direct[name], connections, { durationMs });
        rates[name].push((requests * 1_000) / elapsedMs);
      }
      progress(`requests/s, round ${round} of ${throughputRounds}: ${line((name) => rates[name].at(-1) ?? 0, 0)}`);
    }

    const cases = CASES.map((name): CaseResult => ({
      name,
      blockingTrips: blocking[name],
      ...counts[name],
      ...(cpu[name] !== undefined && { cpuMicros: Math.round(quantile(cpu[name], 0.5)) }),
      ...latencyFigures(latenciesMs[name]),
      requestsPerSecond: Math.round(quantile(rates[name], 0.5)),
    }));
    return { question: 'guarded-get', cases };
  },
};

/** By how much a delay of each trip delays the response, with one request at a time. */
async function blockingTrips(redis: BenchRedis, targets: Record<CaseName, Target>): Promise<Record<CaseName, number>> {
  const meanMs = async (name: CaseName) => {
    const { connections, requests } = SERIAL;
    const { latenciesMs } = await load(name, targets[name], connections, { requests });
    return quantile(latenciesMs, 0.5);
  };
  const trips = {} as Record<CaseName, number>;
  for (const name of CASES) {
    const straightMs = await meanMs(name);
    await redis.setDelay(DELAY_MS);
    const delayedMs = await meanMs(name);
    await redis.setDelay(0);
    trips[name] = Math.max(0, Math.round((delayedMs - straightMs) / DELAY_MS));
  }
  return trips;
}

function line(value: (name: CaseName) => number, digits: number): string {
  return CASES.map((name) => value(name).toFixed(digits)).join(' · ');
}

interface SetUp extends AsyncDisposable {
  /** Of workerd. */
  pid: number;
  /** Of the paced callers. */
  tokens: string[];
  /** Each case behind the counting, delaying proxy. */
  counted: Record<CaseName, Target>;
  /** Each case on the gateway itself. */
  direct: Record<CaseName, Target>;
}

/** Starts every case and makes sure that all of them give the same answer. */
async function start(redis: BenchRedis): Promise<SetUp> {
  const [ours, ...peers] = await Promise.all([
    bundleApp(),
    ...PEERS.map((name) => bundlePeer(`guarded-get/${name}.ts`)),
  ]);
  const settings = testBindings({ url: redis.url, token: redis.token });
  const scripts = [ours, ours, ...peers];
  const workers = CASES.flatMap((name, index): WorkerOptions[] => {
    const script = scripts[index] ?? '';
    const bindings = {
      ...settings,
      LIMIT_API: '100000000/1h',
      ...(name === 'gatehouse-within' && { READS_WITHIN_MS: '1000' }),
      // The peers wait for Redis as long as it takes.
      REDIS_GUARD_DEADLINE_MS: '10000',
      REDIS_CALL_TIMEOUT_MS: '30000',
      PREFIX: `bench-${randomUUID().slice(0, 8)}`,
      PUBLIC_KEY: publicKeyOf(settings['SIGNING_KEYS'] ?? ''),
    };
    return [
      { name: `${name}-direct`, script, bindings },
      { name: `${name}-counted`, script, bindings: { ...bindings, UPSTASH_REDIS_REST_URL: redis.delayedUrl } },
    ];
  });

  const running = await startWorkers(workers);
  const urlOf = (name: string) => running.urls.get(name) ?? '';
  try {
    const { token, body } = await signUp(urlOf('gatehouse-direct'), 'bench');
    const targets = async (kind: 'direct' | 'counted') =>
      Object.fromEntries(
        await Promise.all(
          CASES.map(async (name): Promise<[CaseName, Target]> => {
            const target = targetOf(urlOf(`${name}-${kind}`), token);
            await assertAnswer(name, target, body);
            return [name, target];
          }),
        ),
      ) as Record<CaseName, Target>;
    const [direct, counted] = [await targets('direct'), await targets('counted')];
    // Only now: peers without a token look for the one user that there is.
    const paced = Array.from({ length: PACED.callers }, (_, index) => `paced${index}`);
    const tokens = await Promise.all(paced.map(async (name) => (await signUp(urlOf('gatehouse-direct'), name)).token));
    return {
      pid: running.pid,
      tokens,
      direct,
      counted,
      [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
    };
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

function targetOf(url: string, token: string): Target {
  return {
    url: `${url}${PATH}`,
    headers: { Authorization: `Bearer ${token}`, 'CF-Connecting-IP': '203.0.113.7' },
    // A response that was made without Redis would be a quick one.
    forbiddenHeader: 'Gatehouse-Degraded',
  };
}

/** A user of the app, a token of theirs, and the endpoint's response to it. */
async function signUp(url: string, name: string): Promise<{ token: string; body: string }> {
  const registered = await fetch(`${url}/v1/auth/register`, {
    method: 'POST',
    // By address, registrations are limited.
    headers: { 'Content-Type': 'application/json', 'CF-Connecting-IP': `198.51.100.${name.replace(/\D/g, '') || 200}` },
    body: JSON.stringify({ email: `${name}@example.com`, password: 'correct horse battery', name: 'Bench' }),
  });
  if (registered.status !== 201) throw new Error(`the app answered ${registered.status} to a registration`);
  const { access_token: token } = (await registered.json()) as { access_token: string };
  const { url: address, headers = {} } = targetOf(url, token);
  const answer = await fetch(address, { headers });
  if (answer.status !== 200) throw new Error(`gatehouse answered ${answer.status}`);
  return { token, body: await answer.text() };
}

/** Asks twice: the request that fills the cache and the one that reads it must get the same response. */
async function assertAnswer(name: CaseName, { url, headers = {} }: Target, expected: string): Promise<void> {
  for (const state of ['cold', 'warm']) {
    const answer = await fetch(url, { headers });
    const body = await answer.text();
    if (answer.status !== 200 || body !== expected) {
      throw new Error(`${name} (${state}) answered ${answer.status} ${body.slice(0, 200)} instead of ${expected}`);
    }
  }
}

function publicKeyOf(signingKeys: string): string {
  const { keys } = JSON.parse(signingKeys) as { keys: Record<string, string>[] };
  const { kty, crv, x } = keys[0] ?? {};
  return JSON.stringify({ kty, crv, x });
}
