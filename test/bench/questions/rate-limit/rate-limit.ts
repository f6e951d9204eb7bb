import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';

import type { CaseResult, Question } from '../../question.ts';
import type { LoadResult, runLoad } from '../../support/load.ts';
import { latencyFigures, load as loadCase, rounded } from '../../support/measure.ts';
import { startServerRedis } from '../../support/redis.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { quantile } from '../../support/statistics.ts';
import { commandsRun } from './commandStats.ts';
import { admittedBy, runBurst, runPaced, worstWindow } from './pace.ts';
import { CASES, CHECK, SHARE, WINDOW_CASES, WORST, startLimiters } from './setUp.ts';
import type { CaseName, Limiters, ShareName, VariantName } from './setUp.ts';

const DELAY_MS = 20;
// Bounded by time, so that a busy machine makes the figures coarser and not the run longer.
const LATENCY = { connections: 4, durationMs: 1_000, rounds: 3 };
const THROUGHPUT = { connections: 32, durationMs: 800, rounds: 5 };
const WARM_UP_MS = 800;
const COUNTED_REQUESTS = 200;
/** Offered, as multiples of the limit. */
const OFFERED = [1.05, 2] as const;
const WINDOWS = 20;

/**
 * What does a decision about one request cost, and how much of its limit does a caller get who asks for more? The same
 * route, which only responds, behind
 *
 * - `gatehouse`: `services()` and `rateLimiter({ maxRequests, windowMs })`;
 * - `gatehouse-within`: the same in `guard({ within: 1_000 }, …)`: units of busy callers come from the isolate's lease;
 * - `upstash-ratelimit`: @upstash/ratelimit's sliding window as its documentation shows it, made once an isolate.
 *
 * All run in one plain workerd and speak to one gateway and engine. Cost: with a limit that is never reached, each case
 * once behind a proxy that counts round trips and delays them and once on the gateway itself, where requests a second
 * are measured; commands are what the engine counts, so what scripts run is among them. Share: evenly paced requests of
 * one caller at a multiple of the limit, cases side by side; admitted requests of as many windows, by the limit. One
 * window goes before them, so that none is counted that finds an empty one behind it. Worst window: the limit at the end of
 * one of the clock's windows, and again just before a window has passed since; the most that was admitted within one
 * window, by the limit. Peers with other windows take part in that: @upstash/ratelimit's fixed one, and hono-rate-limiter,
 * whose windows begin with their first request, which is why one is sent at the beginning.
 *
 * Load generator, workerd and gateway share the machine: ratios say more than the figures themselves.
 */
export const rateLimit: Question = {
  name: 'rate-limit',
  asks: 'What does a rate limit cost, and how much of it does a caller get?',
  setUp:
    `p50 to p99: ${LATENCY.connections} connections, ${DELAY_MS} ms added to each round trip to Redis. ` +
    `req/s: ${THROUGHPUT.connections} connections, nothing added. Commands include those inside scripts. ` +
    `Share: of ${SHARE.maxRequests} requests in ${SHARE.windowMs} ms, over ${WINDOWS} windows. Worst window: the most ` +
    `admitted within ${WORST.windowMs} ms, by a limit of ${WORST.maxRequests}. Ratios are to gatehouse.`,

  async run(progress, { rounds } = {}) {
    const latencyRounds = rounds ?? LATENCY.rounds;
    const throughputRounds = rounds ?? THROUGHPUT.rounds;
    progress('bundling the Workers');
    await using redis = await startServerRedis();
    await using limiters = await startLimiters(redis);
    progress(`Redis: ${redis.backend}; checking and warming each case`);
    for (const name of [...CASES, ...WINDOW_CASES, 'upstash-ratelimit-uncached'] as const) {
      await assertLimits(limiters, name);
    }
    for (const name of CASES) {
      await load(limiters, name, 'counted', 4, { durationMs: WARM_UP_MS / 2 });
      await load(limiters, name, 'direct', THROUGHPUT.connections, { durationMs: WARM_UP_MS });
    }

    const costs = {} as Record<CaseName, { roundTrips: number; commands: number }>;
    for (const name of CASES) {
      costs[name] = await costOf(redis, limiters, name);
      progress(`${name}: ${costs[name].roundTrips} round trips, ${costs[name].commands} commands a decision`);
    }

    const latenciesMs = forEachCase<number[]>(() => []);
    await redis.setDelay(DELAY_MS);
    for (let round = 1; round <= latencyRounds; round += 1) {
      for (const name of CASES) {
        const { connections, durationMs } = LATENCY;
        latenciesMs[name].push(...(await load(limiters, name, 'counted', connections, { durationMs })).latenciesMs);
      }
    }
    progress(`latency: p50 ${line((name) => quantile(latenciesMs[name], 0.5), 1)} ms`);

    const rates = forEachCase<number[]>(() => []);
    for (let round = 1; round <= throughputRounds; round += 1) {
      for (const name of CASES) {
        const { connections, durationMs } = THROUGHPUT;
        const { requests, elapsedMs } = await load(limiters, name, 'direct', connections, { durationMs });
        rates[name].push((requests * 1_000) / elapsedMs);
      }
      progress(`requests/s, round ${round} of ${throughputRounds}: ${line((name) => rates[name].at(-1) ?? 0, 0)}`);
    }

    progress(`share of the limit: ${OFFERED.join(' and ')} times the limit for ${WINDOWS} windows`);
    const shares = await measureShares(limiters);
    for (const [name, share] of Object.entries(shares)) progress(`${name}: ${JSON.stringify(share)}`);

    progress(`worst window: ${WORST.maxRequests} at the end of a window, and again within the next`);
    const worst = {} as Record<VariantName, number>;
    for (const name of [...CASES, ...WINDOW_CASES] as const) {
      worst[name] = await worstOf(limiters, name);
      progress(`${name}: ${worst[name]} times the limit`);
    }

    const measured = CASES.map((name): CaseResult => ({
      name,
      ...costs[name],
      ...latencyFigures(latenciesMs[name]),
      requestsPerSecond: Math.round(quantile(rates[name], 0.5)),
      acceptedShare: shares[name],
      worstWindow: worst[name],
    }));
    const others = WINDOW_CASES.map((name): CaseResult => ({ name, worstWindow: worst[name] }));
    return { question: 'rate-limit', cases: [...measured, ...others] };
  },
};

const forEachCase = <T>(make: () => T) =>
  Object.fromEntries(CASES.map((name) => [name, make()])) as Record<CaseName, T>;

function line(value: (name: CaseName) => number, digits: number): string {
  return CASES.map((name) => value(name).toFixed(digits)).join(' · ');
}

/** A load in which no request is refused. */
function load(
  limiters: Limiters,
  name: CaseName,
  kind: 'counted' | 'direct',
  connections: number,
  amount: Parameters<typeof runLoad>[2],
): Promise<LoadResult> {
  const target = { url: `${limiters.url(name, kind)}/caller`, forbiddenHeader: 'Gatehouse-Degraded' };
  return loadCase(name, target, connections, amount);
}

/** Makes sure that it is the limiter that answers: it admits as many as its limit, each caller apart, and no more. */
async function assertLimits(limiters: Limiters, name: VariantName): Promise<void> {
  for (const caller of [randomUUID(), randomUUID()]) {
    const admitted: boolean[] = [];
    for (let i = 0; i < CHECK.maxRequests + 3; i += 1) {
      const answer = await fetch(`${limiters.url(name, 'check')}/${caller}`);
      const body = await answer.text();
      if (answer.ok && body !== 'ok') throw new Error(`${name} answered ${body.slice(0, 200)}`);
      admitted.push(admittedBy(answer.status, answer.headers.has('Gatehouse-Degraded')));
    }
    if (admitted.some((was, index) => was !== index < CHECK.maxRequests)) {
      throw new Error(`${name} with a limit of ${CHECK.maxRequests} admitted ${admitted.join(', ')}`);
    }
  }
}

/** Round trips and commands a decision, those after the response included. */
async function costOf(
  redis: BenchRedis,
  limiters: Limiters,
  name: CaseName,
): Promise<{ roundTrips: number; commands: number }> {
  const [{ trips }, commands] = [await redis.counts(), await commandsRun(redis)];
  await load(limiters, name, 'counted', 4, { requests: COUNTED_REQUESTS });
  await setTimeout(100);
  return {
    roundTrips: rounded(((await redis.counts()).trips - trips) / COUNTED_REQUESTS),
    commands: rounded(((await commandsRun(redis)) - commands) / COUNTED_REQUESTS),
  };
}

/** The most that was admitted within one window, by the limit. */
async function worstOf(limiters: Limiters, name: VariantName): Promise<number> {
  const { maxRequests, windowMs } = WORST;
  const url = `${limiters.url(name, 'worst')}/worst-${randomUUID()}`;
  const startMs = Math.ceil((Date.now() + 100) / windowMs) * windowMs;
  const first = await runBurst(url, { atMs: startMs + 10, requests: 1 });
  const atTheEnd = await runBurst(url, { atMs: startMs + windowMs - 400, requests: maxRequests - 1 });
  const again = await runBurst(url, { atMs: startMs + 2 * windowMs - 700, requests: maxRequests });
  return rounded(worstWindow([...first, ...atTheEnd, ...again], windowMs) / maxRequests, 3);
}

/** Admitted requests as a share of what the limit allows, by how many times the limit was offered. */
async function measureShares(limiters: Limiters): Promise<Record<ShareName, Record<string, number>>> {
  const { maxRequests, windowMs } = SHARE;
  const measure = async (name: ShareName) => {
    const startMs = Math.ceil((Date.now() + 100) / windowMs) * windowMs;
    const shares = OFFERED.map(async (offered): Promise<[string, number]> => {
      const pace = { startMs, intervalMs: windowMs / (maxRequests * offered) };
      const perWindow = maxRequests * offered;
      const requests = Math.round(perWindow * (1 + WINDOWS));
      const url = `${limiters.url(name, 'share')}/offered-${offered}-${randomUUID()}`;
      const admitted = (await runPaced(url, { ...pace, requests })).slice(Math.round(perWindow));
      return [String(offered), rounded(admitted.filter(Boolean).length / (maxRequests * WINDOWS), 3)];
    });
    return Object.fromEntries(await Promise.all(shares)) as Record<string, number>;
  };
  const measured: [ShareName, Record<string, number>][] = [];
  // All at once are more than two cores can serve in time.
  const groups: ShareName[][] = [
    ['gatehouse', 'upstash-ratelimit', 'upstash-ratelimit-uncached'],
    ['gatehouse-within'],
  ];
  for (const names of groups) {
    measured.push(
      ...(await Promise.all(
        names.map(async (name) => [name, await measure(name)] as [ShareName, Record<string, number>]),
      )),
    );
  }
  return Object.fromEntries(measured) as Record<ShareName, Record<string, number>>;
}
