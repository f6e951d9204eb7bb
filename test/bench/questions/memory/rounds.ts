import { setTimeout } from 'node:timers/promises';

import type { CaseResult } from '../../question.ts';
import { rounded } from '../../support/measure.ts';

export const REQUESTS_A_ROUND = 10_000;
const WARM_UP_REQUESTS = 2_000;
/** For work that goes on after the last response, such as refreshes. */
const SETTLE_MS = 1_500;
/** A round that leaves no more than this behind is the last one, in bytes a request: half of the bound of 64. */
const STEADY_BYTES = 32;

export interface Load {
  name: string;
  /** Requests of a round, as a share of {@link REQUESTS_A_ROUND}. @default 1 */
  share?: number;
  /** Between the last response and a reading. @default 1_500 */
  settleMs?: number;
  /** Requests before the first reading: more than a map that fills with each request may hold. @default 2_000 */
  warmUp?: number;
  run: (requests: number) => Promise<unknown>;
}

/**
 * Reads the heap before and after a round of requests. A heap that has grown may hold code that the runtime has just compiled
 * (up to 1 MB an isolate, over some 20,000 requests) or requests that it leaks: only the leak grows as much in the next round.
 * So rounds are repeated until one is steady, `most` times at most, and the last one is reported.
 */
export async function measureRounds(
  { name, share = 1, settleMs = SETTLE_MS, warmUp = WARM_UP_REQUESTS, run }: Load,
  most: number,
  readHeap: () => Promise<number>,
): Promise<CaseResult> {
  const requests = Math.round(REQUESTS_A_ROUND * share);
  const settledHeap = async () => {
    await setTimeout(settleMs);
    return readHeap();
  };
  await run(warmUp);
  let before = await settledHeap();
  const figures: number[] = [];
  while (figures.length < most && (figures.at(-1) ?? Infinity) > STEADY_BYTES) {
    await run(requests);
    const after = await settledHeap();
    figures.push(rounded((after - before) / requests, 1));
    before = after;
  }
  const earlier = figures.slice(0, -1);
  return {
    name,
    requests,
    retainedBytes: figures.at(-1) ?? Infinity,
    ...(earlier.length > 0 && { notes: [`rounds before: ${earlier.join(', ')} bytes a request`] }),
  };
}

export function lineOf({ name, requests, retainedBytes, notes = [], failed }: CaseResult): string {
  if (failed !== undefined) return `${name}: not measured: ${failed}`;
  return `${name}: ${[`${retainedBytes} bytes a request (${requests})`, ...notes].join('; ')}`;
}
