import { setTimeout } from 'node:timers/promises';

import type { Figures } from '../question.ts';
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

/** Round trips and commands a request, those after the answer included: what passes the proxy meanwhile. */
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

export function latencyFigures(latenciesMs: readonly number[]): Pick<Figures, 'p50Ms' | 'p95Ms' | 'p99Ms'> {
  return {
    p50Ms: rounded(quantile(latenciesMs, 0.5)),
    p95Ms: rounded(quantile(latenciesMs, 0.95)),
    p99Ms: rounded(quantile(latenciesMs, 0.99)),
  };
}

export function rounded(value: number, digits = 2): number {
  return Number(value.toFixed(digits));
}
