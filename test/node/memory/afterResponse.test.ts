import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { start } from '../../bench/questions/memory/setUp.ts';
import type { SetUp } from '../../bench/questions/memory/setUp.ts';
import { startBenchRedis } from '../../bench/support/redis.ts';
import type { BenchRedis } from '../../bench/support/redis.ts';
import { until } from '../../support/redisServers.ts';

let redis: BenchRedis;
let setUp: SetUp;

beforeAll(async () => {
  redis = await startBenchRedis();
  setUp = await start(redis);
});

afterAll(async () => {
  await setUp[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const get = async (path: string): Promise<string> => (await fetch(setUp.target('gatehouse', path).url)).text();

const ENDED = /This request has ended.*executionCtx\.waitUntil/s;

describe('static calls after the response, in the real runtime', () => {
  it('work in a promise that a handler gave to executionCtx.waitUntil', async () => {
    expect(await get('/bench/wait-until')).toBe('{}');
    await until(async () => (await get('/bench/waited')) === '"x"', 'the handler has written');
  });

  it('fail in a detached promise, with an error that says what to do', async () => {
    expect(await get('/bench/detached')).toBe('{}');
    await until(async () => (await get('/bench/detached-outcome')) !== '""', 'the promise has settled');
    expect(await get('/bench/detached-outcome')).toMatch(ENDED);
  });

  it('work in a streamed body whose end was given to waitUntil, and fail in another with that error', async () => {
    expect(await get('/bench/streamed?keep')).toBe('read');
    // A report of metrics may keep the request's scope for longer than the body takes: another request then has none.
    await until(async () => ENDED.test(await get('/bench/streamed')), 'the scope ends before the body');
  });
});
