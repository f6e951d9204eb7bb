import type { CaseResult, Question } from '../../question.ts';
import { heapOf } from '../../support/inspector.ts';
import { startServerRedis } from '../../support/redis.ts';
import { casesOf } from './cases.ts';
import { measureGateway } from './gateway.ts';
import { REQUESTS_A_ROUND, lineOf, measureRounds } from './rounds.ts';
import { ISOLATES, start } from './setUp.ts';
import type { Isolate } from './setUp.ts';

/** Rounds at most. */
const ROUNDS = 5;

/**
 * What does a request leave behind in its isolate? Plain workerd with its inspector; for each kind of request the heap is
 * read after forced collections, before and after a load. Each load begins with a warm-up beyond the bounds of the maps
 * that an isolate keeps, so what is left is retention, and not a map that is filling. See {@link measureRounds} for code that
 * the runtime compiles meanwhile.
 */
export const memory: Question = {
  name: 'memory',
  asks: 'How many bytes does a request leave behind in its isolate?',
  setUp:
    `Rounds of ${REQUESTS_A_ROUND} requests of each kind (some of fewer); heap after forced collections, before and after. ` +
    `A kind after whose round the heap has grown gets another, up to ${ROUNDS}, and the last round counts: compiled code levels off, a ` +
    'leak does not. Some 300 KB of code come and go: a few bytes a request are noise.',

  async run(progress, { rounds = ROUNDS, only } = {}) {
    progress('bundling the Workers');
    await using redis = await startServerRedis();
    await using setUp = await start(redis);
    const { inspector = '', urls } = setUp.workers;
    const readHeap = (name: Isolate) => heapOf(inspector, { name, url: urls.get(name) ?? '' });
    const cases: CaseResult[] = [];
    for (const memoryCase of casesOf(setUp, redis)) {
      if (only !== undefined && !only.test(memoryCase.name)) continue;
      const { isolate } = memoryCase;
      let result: CaseResult;
      try {
        await memoryCase.setUp?.();
        result = await measureRounds(memoryCase, rounds, () => readHeap(isolate));
      } catch (error) {
        result = { name: memoryCase.name, failed: (error as Error).message };
      }
      cases.push(result);
      progress(lineOf(result));
      await Promise.all([redis.setState('up'), setUp.setDatabase('up')]);
    }
    const heapBytes = Object.fromEntries(
      await Promise.all(ISOLATES.map(async (name) => [name, await readHeap(name)] as const)),
    );
    const gateway = await measureGateway(progress, { rounds, redisUrl: process.env['BENCH_REDIS_URL'], only });
    cases.push(...gateway.cases);
    return { question: 'memory', cases, heapBytes: { ...heapBytes, gateway: gateway.heapBytes } };
  },
};
