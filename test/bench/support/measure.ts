import { setTimeout } from 'node:timers/promises';

import type { DatabaseFigures, Figures } from '../question.ts';
import type { DatabaseCounts } from './database.ts';
import { runLoad } from './load.ts';
import type { LoadResult, Target } from './load.ts';
import type { BenchRedis } from './redis.ts';
import { quantile } from './statistics.ts';

/** {@link runLoad}, whose failure says which case it was. */
export async function load(name: string, ...args: Parameters<typeof runLoad>): Promise<LoadResult> {
  try {
    return await runLoad(...args);
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
  }
}

/** Round trips and commands a request, those after the response included: what passes the proxy meanwhile. */
export async function countTrips(
  redis: BenchRedis,
  name: string,
  target: Target,
  requests: number,
): Promise<{ roundTrips: number; commands: number }> {
  const before = await redis.counts();
  await load(name, target, 4, { requests });
  await setTimeout(100);
  const after = await redis.counts();
  return {
    roundTrips: rounded((after.trips - before.trips) / requests),
    commands: rounded((after.commands - before.commands) / requests),
  };
}

/** Longer than an isolate remembers what Redis said. */
const REMEMBERED_MS = 1_500;

export interface Paced {
  /** One a caller. */
  tokens: readonly string[];
  perSecond: number;
  /** Of each caller. */
  requests: number;
}

/** {@link countTrips} of callers who each send so many requests a second, evenly and not at the same time. */
export async function countPaced(
  redis: BenchRedis,
  { url, headers = {} }: Target,
  { tokens, perSecond, requests }: Paced,
): Promise<{ roundTrips: number; commands: number }> {
  const intervalMs = 1_000 / perSecond;
  const send = async (each: number) => {
    const startMs = performance.now();
    await Promise.all(
      tokens.map(async (token, caller) => {
        for (let sent = 0; sent < each; sent += 1) {
          const dueMs = startMs + (sent + caller / tokens.length) * intervalMs;
          await setTimeout(Math.max(0, dueMs - performance.now()));
          const answer = await fetch(url, { headers: { ...headers, Authorization: `Bearer ${token}` } });
          await answer.arrayBuffer();
          if (answer.status !== 200) throw new Error(`a paced caller was answered ${answer.status}`);
        }
      }),
    );
  };
  // As with the others, entries are there before anything is counted; and nothing is remembered any more.
  await send(1);
  await setTimeout(REMEMBERED_MS);
  const before = await redis.counts();
  await send(requests);
  await setTimeout(100);
  const after = await redis.counts();
  const sent = tokens.length * requests;
  return {
    roundTrips: rounded((after.trips - before.trips) / sent),
    commands: rounded((after.commands - before.commands) / sent),
  };
}

export function latencyFigures(latenciesMs: readonly number[]): Pick<Figures, 'p50Ms' | 'p95Ms' | 'p99Ms'> {
  return {
    p50Ms: rounded(quantile(latenciesMs, 0.5)),
    p95Ms: rounded(quantile(latenciesMs, 0.95)),
    p99Ms: rounded(quantile(latenciesMs, 0.99)),
  };
}

/** What so many requests have cost the database, for each of them. */
export function databaseFigures(cost: DatabaseCounts, requests: number): Required<DatabaseFigures> {
  return {
    databaseTrips: rounded(cost.trips / requests),
    databaseBatches: rounded(cost.batches / requests),
    databaseQueries: rounded(cost.queries / requests),
    rowsRead: rounded(cost.rowsRead / requests),
    rowsWritten: rounded(cost.rowsWritten / requests),
  };
}

export function rounded(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
