import { setTimeout } from 'node:timers/promises';

import type { CaseResult, LoadFigures, Question } from '../../question.ts';
import { countTrips, latencyFigures, load } from '../../support/measure.ts';
import { startServerRedis } from '../../support/redis.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { behaviourOf, notesOf } from './behaviour.ts';
import type { Behaviour } from './behaviour.ts';
import { LOADS, TAGGED_ENTRIES, applies, loadsOf } from './loads.ts';
import type { CacheLoads, LoadName } from './loads.ts';
import { CASES, startCaches } from './setUp.ts';
import type { CaseName } from './setUp.ts';

const DELAY_MS = 20;
const CONNECTIONS = 4;
const ROUNDS = 3;
// Bounded by time, so that a busy machine makes the figures coarser and not the run longer.
const ROUND_MS = 800;
/** Each stale entry is read once, so their number bounds the load. */
const STALE_PER_ROUND = 100;
const WARM_UP_MS = 400;
const COUNTED_REQUESTS = 100;

/**
 * What does a cache cost on the edge? The same reads, of the same values through a loader that returns at once, by
 *
 * - `gatehouse`: `CacheService`, with `services()` around it;
 * - `bentocache`: with its memory as the first layer and Redis as the second. Its bus is off: there is none over REST;
 * - `bentocache-l2`: Redis only;
 * - `cachified`: with the adapter that its documentation asks one to write, and `waitUntil`. It has no tags;
 * - `cacheable`: with a Keyv adapter for Redis as its primary store, and tags on only where they are read. It has no
 *   stale-while-revalidate.
 *
 * All speak to Redis through @upstash/redis as it is by default (same-turn commands share a request), one client an
 * isolate, behind the proxy that counts round trips and delays them; what happens after a response is counted too. Each
 * is a Worker in one plain workerd. Before anything is measured it is found out how each behaves, and printed where it
 * is not as one would wish. A load that fails in one case goes on in the others.
 */
export const cache: Question = {
  name: 'cache',
  asks: 'What does a cached read cost, and an invalidation?',
  setUp:
    `${CONNECTIONS} connections, ${DELAY_MS} ms added to each round trip to Redis; the first table is the hit. Trips and ` +
    `commands count those after the response; a script is one command. Tag: ${TAGGED_ENTRIES} entries under it. Hits of ` +
    'bentocache come from its memory, and stay there whatever other isolates do; bentocache-l2 is the one without. A ' +
    'line of its own says what a case did not do. Ratios are to gatehouse.',

  async run(progress, { rounds = ROUNDS } = {}) {
    progress('bundling the Workers');
    await using redis = await startServerRedis();
    await using caches = await startCaches(redis);
    progress(`Redis: ${redis.backend}; finding out how each case behaves`);
    const contenders: Contender[] = [];
    for (const name of CASES) {
      const behaviour = await behaviourOf(caches, name);
      if (!behaviour.hits || !behaviour.forgets) throw new Error(`${name} does not cache`);
      contenders.push({ name, behaviour, loads: loadsOf(caches.url(name, 'measured')), results: [] });
      for (const note of notesOf(behaviour)) progress(`${name}: ${note}`);
    }

    for (const kind of LOADS) {
      const results = await measure(
        kind,
        contenders.filter(({ behaviour }) => applies(kind, behaviour)),
        redis,
        rounds,
      );
      for (const { name, result } of results) progress(`${kind}, ${name}: ${lineOf(result)}`);
    }

    const cases: CaseResult[] = [];
    for (const { name, behaviour, results } of contenders) {
      const { load: _, connections: __, failed: ___, ...headline } = results[0] ?? ({} as LoadFigures);
      const notes = notesOf(behaviour);
      cases.push({ name, ...headline, loads: results, ...(notes.length > 0 && { notes }) });
    }
    return { question: 'cache', cases };
  },
};

interface Contender {
  name: CaseName;
  behaviour: Behaviour;
  loads: CacheLoads;
  /** Of each load, as far as they have been measured. */
  results: LoadFigures[];
}

/** One load in every case that has a way to do it, in turns. What fails in one case is said in its result. */
async function measure(
  kind: LoadName,
  contenders: readonly Contender[],
  redis: BenchRedis,
  rounds: number,
): Promise<{ name: CaseName; result: LoadFigures }[]> {
  const running = contenders.map(({ name, loads, results }) => {
    const result: LoadFigures = { load: kind, connections: CONNECTIONS };
    results.push(result);
    return { name, loads, result, latenciesMs: [] as number[] };
  });
  const each = async (step: (turn: (typeof running)[number]) => Promise<void>) => {
    for (const turn of running) {
      if (turn.result.failed !== undefined) continue;
      try {
        await step(turn);
      } catch (error) {
        const { message, cause } = error as Error;
        turn.result.failed = cause instanceof Error ? cause.message : message;
      }
    }
  };

  await redis.setDelay(0);
  await each(({ loads }) => loads.prepare(kind, COUNTED_REQUESTS + rounds * STALE_PER_ROUND));
  await each(async ({ name, loads, result }) => {
    const target = loads.target(kind);
    // A stale entry is stale once.
    if (kind !== 'stale') await load(name, target, CONNECTIONS, { durationMs: WARM_UP_MS });
    await setTimeout(100);
    Object.assign(result, await countTrips(redis, name, target, COUNTED_REQUESTS));
  });
  await redis.setDelay(DELAY_MS);
  for (let round = 1; round <= rounds; round += 1) {
    await each(async ({ name, loads, latenciesMs }) => {
      const amount = kind === 'stale' ? { requests: STALE_PER_ROUND } : { durationMs: ROUND_MS };
      latenciesMs.push(...(await load(name, loads.target(kind), CONNECTIONS, amount)).latenciesMs);
    });
  }
  return running.map(({ name, result, latenciesMs }) => {
    if (result.failed === undefined) Object.assign(result, latencyFigures(latenciesMs));
    return { name, result };
  });
}

function lineOf({ failed, p50Ms, roundTrips }: LoadFigures): string {
  return failed ?? `p50 ${p50Ms?.toFixed(1)} ms, ${roundTrips} round trips`;
}
