import { setTimeout } from 'node:timers/promises';

import type { CaseResult, Question } from '../../question.ts';
import { heapOf } from '../../support/inspector.ts';
import { rounded } from '../../support/measure.ts';
import { startServerRedis } from '../../support/redis.ts';
import { casesOf } from './cases.ts';
import type { MemoryCase } from './cases.ts';
import { measureGateway } from './gateway.ts';
import { ISOLATES, start } from './setUp.ts';
import type { Isolate } from './setUp.ts';

const REQUESTS_A_ROUND = 10_000;
const ROUNDS = 3;
const WARM_UP_REQUESTS = 2_000;
/** For what goes on after the last response, such as refreshes. */
const SETTLE_MS = 1_500;

/**
 * What does a request leave behind in its isolate? Plain workerd with its inspector; for each kind of request the heap is
 * read after forced collections, before and after a load. Each load begins with a warm-up beyond the bounds of the maps
 * that an isolate keeps, so what is left is retention, and not a map that is filling.
 */
export const memory: Question = {
  name: 'memory',
  asks: 'How many bytes does a request leave behind in its isolate?',
  setUp:
    `${REQUESTS_A_ROUND * ROUNDS} requests of each kind (some of fewer); heap after forced collections, before and after. ` +
    'Some 300 KB of compiled code come and go: a few bytes a request are noise.',

  async run(progress, { rounds = ROUNDS, only } = {}) {
    progress('bundling the Workers');
    await using redis = await startServerRedis();
    await using setUp = await start(redis);
    const { inspector = '', urls } = setUp.workers;
    const readHeap = (name: Isolate) => heapOf(inspector, { name, url: urls.get(name) ?? '' });
    const cases: CaseResult[] = [];
    for (const memoryCase of casesOf(setUp, redis)) {
      if (only !== undefined && !only.test(memoryCase.name)) continue;
      const { name, isolate } = memoryCase;
      try {
        const { requests, before, after } = await measure(memoryCase, rounds * REQUESTS_A_ROUND, () =>
          readHeap(isolate),
        );
        cases.push({ name, requests, retainedBytes: rounded((after - before) / requests, 1) });
        progress(`${name}: ${cases.at(-1)?.retainedBytes} bytes a request (${requests}), heap ${mib(after)} MiB`);
      } catch (error) {
        cases.push({ name, notes: [`not measured: ${(error as Error).message}`] });
        progress((error as Error).message);
      }
      await Promise.all([redis.setState('up'), setUp.setDatabase('up')]);
    }
    const heapBytes = Object.fromEntries(
      await Promise.all(ISOLATES.map(async (name) => [name, await readHeap(name)] as const)),
    );
    const requests = rounds * REQUESTS_A_ROUND;
    const gateway = await measureGateway(progress, { requests, redisUrl: process.env['BENCH_REDIS_URL'], only });
    cases.push(...gateway.cases);
    return { question: 'memory', cases, heapBytes: { ...heapBytes, gateway: gateway.heapBytes } };
  },
};

async function measure(
  { share = 1, warmUp = WARM_UP_REQUESTS, settleMs = SETTLE_MS, setUp, run }: MemoryCase,
  requestsOfAll: number,
  readHeap: () => Promise<number>,
): Promise<{ requests: number; before: number; after: number }> {
  const requests = Math.round(requestsOfAll * share);
  await setUp?.();
  await run(warmUp);
  await setTimeout(settleMs);
  const before = await readHeap();
  await run(requests);
  await setTimeout(settleMs);
  return { requests, before, after: await readHeap() };
}

function mib(bytes: number): string {
  return (bytes / 1_048_576).toFixed(1);
}
