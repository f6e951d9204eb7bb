import { setTimeout } from 'node:timers/promises';

import type { CaseResult, LoadFigures, Question } from '../../question.ts';
import type { Target } from '../../support/load.ts';
import { countTrips, databaseFigures, latencyFigures, load } from '../../support/measure.ts';
import { NO_POSTGRES, startBenchPostgres } from '../../support/postgres.ts';
import { startServerRedis } from '../../support/redis.ts';
import { quantile } from '../../support/statistics.ts';
import { CASES, CONNECTIONS, LOADS, expiryOf, start } from './setUp.ts';
import type { CaseName, LoadName, SetUp } from './setUp.ts';
import { tokenCosts } from './tokenCosts.ts';

const DELAY_MS = 20;
// Bounded by time, so that a busy machine makes the figures coarser and not the run longer.
const LATENCY = { durationMs: 1_500, rounds: 3 };
const WARM_UP_MS = 800;
const COUNTED_REQUESTS = 200;

/**
 * What does it cost to keep a session going, and to ask whose it is?
 *
 * - `gatehouse`: `POST /v1/auth/refresh`, which rotates every time (each client presents what it was given last) and
 *   responds with a new access token; `GET /v1/users/me` with an access token. Its limits are on, and raised.
 * - `better-auth`: `GET /api/auth/get-session` with its cookie, D1 as its database and Redis as its secondary storage,
 *   as its documentation shows them; with `updateAge: 0`, so that it extends the session every time, and with its
 *   default, so that it only reads. Its cookie cache is off, since with it a session that was ended goes on; its rate
 *   limit is off, since it would cost it round trips. It has no access tokens to sign, and does not rotate.
 *
 * - `gatehouse on PostgreSQL`: the same Worker built for it, where a server can be started.
 *
 * All are Workers in one plain workerd, behind the proxy that counts round trips and delays them; the databases are
 * on the same machine and not delayed. What scripts run inside is not counted. Rounds of the cases alternate.
 */
export const refresh: Question = {
  name: 'refresh',
  asks: 'What does it cost to refresh a session, and to ask whose it is?',
  setUp:
    `${CONNECTIONS} clients with a session each, ${DELAY_MS} ms added to each round trip to Redis; the first table is ` +
    'the refresh. The databases are on this machine, without a delay. better-auth: session in Redis (secondaryStorage), users in D1, cookie cache and rate limit off. ' +
    'Tokens: jose in workerd, one core. Ratios are to gatehouse.',

  async run(progress, { rounds = LATENCY.rounds } = {}) {
    progress('bundling the Workers');
    await using redis = await startServerRedis();
    await using postgres = await startBenchPostgres();
    if (postgres === undefined) progress(NO_POSTGRES);
    await using setUp = await start(redis, postgres);
    const names = CASES.filter((name) => setUp.targets.has(name));
    const targetOf = (name: CaseName, kind: LoadName): Target => setUp.targets.get(name)![kind];
    progress(`Redis: ${redis.backend}; checking and warming each case`);
    await assertRefreshes(setUp);
    const figures = {} as Record<CaseName, Record<LoadName, LoadFigures>>;
    const latenciesMs = {} as Record<CaseName, Record<LoadName, number[]>>;
    for (const name of names) {
      latenciesMs[name] = { refresh: [], read: [] };
      const counted = {} as Record<LoadName, LoadFigures>;
      for (const kind of LOADS) {
        await load(name, targetOf(name, kind), CONNECTIONS, { durationMs: WARM_UP_MS });
        let trips = { roundTrips: 0, commands: 0 };
        const cost = await setUp.databaseOf(name).costOf(async () => {
          trips = await countTrips(redis, name, targetOf(name, kind), COUNTED_REQUESTS);
        });
        progress(`${name}, ${kind}: ${trips.roundTrips} round trips, ${trips.commands} commands`);
        counted[kind] = {
          load: kind,
          connections: CONNECTIONS,
          ...trips,
          ...databaseFigures(cost, COUNTED_REQUESTS),
        };
      }
      figures[name] = counted;
    }

    await redis.setDelay(DELAY_MS);
    for (let round = 1; round <= rounds; round += 1) {
      for (const kind of LOADS) {
        for (const name of names) {
          const { durationMs } = LATENCY;
          const result = await load(name, targetOf(name, kind), CONNECTIONS, { durationMs });
          latenciesMs[name][kind].push(...result.latenciesMs);
        }
        const p50s = names.map((name) => quantile(latenciesMs[name][kind], 0.5).toFixed(1));
        progress(`${kind}, round ${round} of ${rounds}: p50 ${p50s.join(' · ')} ms`);
      }
    }

    progress('signing and verifying');
    const microseconds = await tokenCosts(setUp.joseUrl);
    const cases: CaseResult[] = [];
    for (const name of names) {
      for (const kind of LOADS) Object.assign(figures[name][kind], latencyFigures(latenciesMs[name][kind]));
      const { load: _, connections: __, ...headline } = figures[name].refresh;
      const database = name === 'gatehouse on PostgreSQL' ? 'postgres' : 'd1';
      cases.push({ name, database, ...headline, loads: Object.values(figures[name]) });
    }
    Object.assign(cases[0] ?? {}, { microseconds });
    return { question: 'refresh', cases };
  },
};

/** Makes sure that ours rotates, and that better-auth extends a session where it is to and only reads it elsewhere. */
export async function assertRefreshes({ targets }: SetUp): Promise<void> {
  for (const [name, target] of targets) {
    if (name !== 'better-auth') {
      await load(name, target.refresh, CONNECTIONS, { requests: 3 * CONNECTIONS });
      await load(name, target.read, CONNECTIONS, { requests: CONNECTIONS });
      continue;
    }
    for (const kind of LOADS) {
      const before = await expiryOf(target[kind]);
      await setTimeout(5);
      const extended = (await expiryOf(target[kind])) > before;
      if (extended !== (kind === 'refresh')) throw new Error(`better-auth, ${kind}: extended the session: ${extended}`);
    }
  }
}
