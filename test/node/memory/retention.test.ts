import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { casesOf } from '../../bench/questions/memory/cases.ts';
import type { MemoryCase } from '../../bench/questions/memory/cases.ts';
import { start } from '../../bench/questions/memory/setUp.ts';
import type { SetUp } from '../../bench/questions/memory/setUp.ts';
import { heapOf, survivingBytes } from '../../bench/support/inspector.ts';
import { runLoad } from '../../bench/support/load.ts';
import { startBenchRedis } from '../../bench/support/redis.ts';
import type { BenchRedis } from '../../bench/support/redis.ts';

let redis: BenchRedis;
let setUp: SetUp;
let cases: MemoryCase[];

beforeAll(async () => {
  redis = await startBenchRedis();
  setUp = await start(redis);
  cases = casesOf(setUp, redis);
});

afterAll(async () => {
  await setUp[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

/** Code that is compiled meanwhile, and maps that are not full, count as well: a leaked request is 7,000 bytes and more. */
const MOST_BYTES = 800;

/** Heap that each of 1,500 requests of this kind leaves behind, in bytes. */
async function retainedBytes(name: string): Promise<number> {
  const found = cases.find((one) => one.name === name);
  if (found === undefined) throw new Error(`there is no case "${name}"`);
  const { isolate, run } = found;
  const worker = { name: isolate, url: setUp.workers.urls.get(isolate) ?? '' };
  await run(1_000);
  const before = await heapOf(setUp.workers.inspector ?? '', worker);
  await run(1_500);
  return ((await heapOf(setUp.workers.inspector ?? '', worker)) - before) / 1_500;
}

/** What has been allocated since the last collection of young objects, of whose space V8 takes up to 32 MB, counts as well. */
it('a request that is over is garbage for a collection of young objects', async () => {
  const requests = 1_500;
  const bytes = await survivingBytes(setUp.workers.inspector ?? '', 'gatehouse', {
    allocatedBy: 'ballast',
    work: () => runLoad(setUp.target('gatehouse', '/bench/ballast'), 4, { requests }),
  });
  expect(bytes).toBeGreaterThan(0);
  expect(bytes / requests).toBeLessThan(64_000 / 2);
});

describe('an isolate keeps nothing of a request', () => {
  it.each(['hit', 'promise that never settles', 'aborted: miss'])('%s', async (name) => {
    expect(await retainedBytes(name)).toBeLessThan(MOST_BYTES);
  });
});
