import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { bundleCacheWorker, newPrefix, startCacheApp, startTruth } from './scene.ts';
import type { CacheApp, Truth } from './scene.ts';

let worker: Awaited<ReturnType<typeof bundleCacheWorker>>;
let redis: FaultyRedis;
let truth: Truth;
let app: CacheApp;

beforeAll(async () => {
  worker = await bundleCacheWorker();
  redis = await startFaultyRedis();
  truth = await startTruth();
  app = await startCacheApp(worker.bundle, redis, truth, {
    KEY_PREFIX: newPrefix(),
    REDIS_GUARD_DEADLINE_MS: '400',
    REDIS_CALL_TIMEOUT_MS: '5000',
    LOADER_DEADLINE_MS: '700',
    // These tests are about one request, not about what many of them teach.
    BREAKER_MIN_CALLS: '100000',
  });
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await truth[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
  await worker.remove();
});

function fresh(extra: object = {}) {
  const name = randomUUID();
  truth.values.set(name, 'old');
  return {
    name,
    request: {
      name,
      options: { namespace: 'n', args: name, user: name, tags: ['a', 'b', 'c'], ttlSeconds: 60, ...extra },
    },
  };
}

/** Requests to Redis that the answer waited for, and those that it did not. */
async function counted(post: () => Promise<unknown>): Promise<{ blocking: number; deferred: number }> {
  redis.mode = { kind: 'delay', ms: 100 };
  redis.reset();
  await post();
  const blocking = redis.counts.answered;
  await redis.idle();
  const deferred = redis.counts.requests - blocking;
  redis.mode = { kind: 'none' };
  return { blocking, deferred };
}

describe('round trips', () => {
  test('a hit with three tags 1, a miss 1 and its fill after the answer, a stale hit 1 and a refresh, an invalidation 1', async () => {
    const { name, request } = fresh({ staleSeconds: 600 });
    const other = fresh();
    // The isolate's very first load, and the script's.
    await app.post('/query', other.request);
    await redis.idle();
    // A user of whom nothing is known: the tag version is made beside the loader.
    expect(await counted(() => app.post('/query', request))).toEqual({ blocking: 1, deferred: 2 });
    expect(await counted(() => app.post('/query', request))).toEqual({ blocking: 1, deferred: 0 });
    expect(await counted(() => app.post('/query', request, 120_000))).toEqual({ blocking: 1, deferred: 1 });
    expect(await counted(() => app.post('/invalidate', { users: [name] }))).toEqual({ blocking: 1, deferred: 0 });
    expect(await counted(() => app.post('/query', request))).toEqual({ blocking: 1, deferred: 1 });
  });

  test('ten keys 1', async () => {
    const options = { namespace: 'ten', tags: ['t'], ttlSeconds: 60 };
    const ten = () => app.post('/many', { options, count: { from: 0, to: 10 } });
    await ten();
    await redis.idle();
    expect(await counted(ten)).toEqual({ blocking: 1, deferred: 0 });
  });

  test('an invalidation of a tag over 20,000 entries 1, of one command', async () => {
    const options = { namespace: 'many', tags: ['many'], ttlSeconds: 3_600 };
    const read = (from: number) =>
      app.post<{ values: number }>('/many', { options, count: { from, to: from + 1_000 } });
    for (let from = 0; from < 20_000; from += 1_000) expect((await read(from)).body).toEqual({ values: 1_000 });
    await redis.idle();
    expect(Number(await redis.engine('DBSIZE'))).toBeGreaterThan(19_000);
    redis.reset();
    expect((await app.post('/invalidate', { tags: ['many'] })).body).toEqual({ pending: false });
    expect(redis.counts).toMatchObject({ requests: 1, commands: 1 });
    // Each of them is loaded anew.
    redis.reset();
    await read(10_000);
    await redis.idle();
    expect(
      redis.requests.flatMap(({ commands }) => commands).filter(([command]) => command === 'EVALSHA'),
    ).toHaveLength(1_000);
  });
});

describe('trouble', () => {
  test('a Redis that hangs costs one deadline', async () => {
    const { request } = fresh();
    await app.post('/query', request);
    await redis.idle();
    redis.mode = { kind: 'hang' };
    const startMs = performance.now();
    const answer = await app.post('/query', request);
    const tookMs = performance.now() - startMs;
    await redis.clear();
    expect(answer).toMatchObject({ status: 200, body: { value: 'old', from: 'bypass' }, degraded: 'cache=bypass' });
    expect(tookMs).toBeGreaterThanOrEqual(390);
  });

  test('a loader that hangs ends with its deadline for all who wait, and poisons nothing', async () => {
    const { name, request } = fresh();
    const release = truth.hold(name);
    const answers = await Promise.all(Array.from({ length: 20 }, () => app.post<{ code: string }>('/query', request)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([503]));
    expect(truth.reads.get(name)).toBe(1);
    release();
    expect((await app.post('/query', request)).body).toMatchObject({ value: 'old' });
  });

  test('a leader whose client has gone answers those who wait', async () => {
    const { name, request } = fresh();
    await app.post('/query', fresh().request);
    const release = truth.hold(name);
    const gone = new AbortController();
    const leader = app.post('/query', request, 0, gone.signal).catch(() => 'gone');
    await truth.read(name);
    const followers = Array.from({ length: 5 }, () => app.post('/query', request));
    await new Promise((resolve) => setTimeout(resolve, 100));
    gone.abort();
    expect(await leader).toBe('gone');
    release();
    for (const { status, body } of await Promise.all(followers)) {
      expect({ status, value: body.value }).toEqual({ status: 200, value: 'old' });
    }
    expect((await app.post('/query', request)).body).toMatchObject({ value: 'old' });
  });

  test('a database that is down is not seen until the hard end of an entry', async () => {
    const { name, request } = fresh({ staleIfErrorSeconds: 600 });
    await app.post('/query', request);
    await redis.idle();
    truth.values.delete(name);
    expect(await app.post('/query', request, 120_000)).toMatchObject({
      body: { value: 'old', from: 'fallback' },
      degraded: 'cache=stale',
    });
    expect((await app.post('/query', request, 600_000)).body).toMatchObject({ value: 'old', from: 'fallback' });
    expect((await app.post('/query', request, 700_000)).status).toBe(500);
  });

  test('a server that loses its answers, garbles them or forgets its scripts changes no value', async () => {
    const slots = (change: (slots: unknown[]) => unknown[]) => ({
      kind: 'rewrite' as const,
      rewrite: (text: string) => JSON.stringify(change(JSON.parse(text) as unknown[])),
    });
    const faults = [
      { kind: 'drop-after' as const },
      { kind: 'stall' as const },
      slots(() => []),
      slots((all) => all.map(() => ({ result: null }))),
      slots((all) => all.map(() => ({ result: 'OK' }))),
      slots((all) => all.map(() => ({ result: [['x'], 7, null] }))),
    ];
    for (const fault of faults) {
      const { name, request } = fresh();
      redis.mode = fault;
      expect((await app.post('/query', request)).body).toMatchObject({ value: 'old' });
      await redis.clear();
      truth.values.set(name, 'new');
      await app.post('/invalidate', { users: [name] });
      await redis.engine('SCRIPT', 'FLUSH');
      expect((await app.post('/query', request)).body).toMatchObject({ value: 'new' });
      expect((await app.post('/query', request)).body).toMatchObject({ value: 'new' });
    }
  });
});
