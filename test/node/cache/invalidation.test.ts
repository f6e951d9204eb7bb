import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, startRedis } from '../../support/redisServers.ts';
import { bundleCacheWorker, newPrefix, startCacheApp, startTruth } from './scene.ts';
import type { CacheApp, Truth } from './scene.ts';

const TOKEN = 'cache-token';
const MINUTE_MS = 60_000;

let worker: Awaited<ReturnType<typeof bundleCacheWorker>>;
beforeAll(async () => {
  worker = await bundleCacheWorker();
});
afterAll(() => worker.remove());

const ENGINES: [string, boolean, () => Promise<{ url?: string; stop(): Promise<void> }>][] = [
  ['the embedded engine', true, async () => ({ stop: async () => undefined })],
  ['Redis', hasRedisServer, startRedis],
  ['Redis Cluster', hasRedisServer, startCluster],
];

describe.each(ENGINES)('two isolates on %s', (engine, available, startEngine) => {
  describe.skipIf(!available)(`${engine}${available ? '' : `: ${REDIS_MISSING}`}`, () => {
    let gateway: Awaited<ReturnType<typeof startGateway>>;
    let server: Awaited<ReturnType<typeof startEngine>>;
    let truth: Truth;
    let here: CacheApp;
    let there: CacheApp;

    beforeAll(async () => {
      server = await startEngine();
      gateway = await startGateway({
        token: TOKEN,
        port: 0,
        ...(server.url !== undefined && { redisUrl: server.url }),
      });
      truth = await startTruth();
      const prefix = { KEY_PREFIX: newPrefix() };
      const start = () => startCacheApp(worker.bundle, { url: gateway.url, token: TOKEN }, truth, prefix);
      [here, there] = [await start(), await start()];
    });
    afterAll(async () => {
      await here[Symbol.asyncDispose]();
      await there[Symbol.asyncDispose]();
      await truth[Symbol.asyncDispose]();
      await gateway.close();
      await server.stop();
    });

    const redis = async (...command: (string | number)[]): Promise<unknown> => {
      const response = await fetch(gateway.url, {
        method: 'POST',
        headers: { Authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify(command),
      });
      const { result, error } = (await response.json()) as { result?: unknown; error?: string };
      if (error !== undefined) throw new Error(error);
      return result;
    };

    /** Something to read, its first value `old`. */
    function fresh(extra: object = {}) {
      const name = randomUUID();
      truth.values.set(name, 'old');
      const options = { namespace: name, args: { a: 1 }, user: name, tags: [name, 'all'], ttlSeconds: 60, ...extra };
      return { name, request: { options, name }, options };
    }

    const entryOf = async (options: object) =>
      (await here.post<{ entryKey: string; tagVersionKeys: string[] }>('/key', options)).body;

    async function changeOf(by: string, { name, options }: ReturnType<typeof fresh>): Promise<object> {
      switch (by) {
        case 'key':
          return { keys: [await entryOf(options)] };
        case 'tag':
          return { tags: [name] };
        case 'namespace':
          return { namespaces: [name] };
        default:
          return { users: [name] };
      }
    }

    async function expectNewEverywhere(request: object): Promise<void> {
      for (const app of [here, there, here])
        expect((await app.post('/query', request)).body).toMatchObject({ value: 'new' });
    }

    const places = ['key', 'tag', 'namespace', 'user'].flatMap((by) => [
      [by, 'the same isolate', 'the first time'] as const,
      [by, 'another isolate', 'the first time'] as const,
      [by, 'another isolate', 'again, with what it depends on known'] as const,
    ]);

    test.each(places)(
      'an invalidation by %s in %s during a fill, %s: the old value is never served',
      async (by, where, when) => {
        const thing = fresh();
        if (when !== 'the first time') {
          await here.post('/query', { ...thing.request, options: { ...thing.options, args: 'other' } });
        }
        const reads = truth.reads.get(thing.name) ?? 0;
        const release = truth.hold(thing.name);
        const filling = here.post('/query', thing.request);
        await truth.read(thing.name, reads + 1);
        truth.values.set(thing.name, 'new');
        const change = await changeOf(by, thing);
        const invalidated = await (where === 'the same isolate' ? here : there).post('/invalidate', change);
        expect(invalidated.body).toEqual({ pending: false });
        release();
        expect((await filling).body).toMatchObject({ value: 'old' });
        await expectNewEverywhere(thing.request);
      },
    );

    test.each([['key'], ['tag'], ['namespace'], ['user']])(
      'by %s during the refresh of a stale value: likewise',
      async (by) => {
        const thing = fresh({ staleSeconds: 600 });
        await here.post('/query', thing.request);
        await expectStored((await entryOf(thing.options)).entryKey);
        const release = truth.hold(thing.name);
        expect((await here.post('/query', thing.request, 2 * MINUTE_MS)).body).toMatchObject({
          value: 'old',
          from: 'stale',
        });
        await truth.read(thing.name, 2);
        truth.values.set(thing.name, 'new');
        await there.post('/invalidate', await changeOf(by, thing));
        release();
        await expectNewEverywhere(thing.request);
      },
    );

    test('a fill after its tombstone, or the entry that it was missed in, is gone is refused', async () => {
      const thing = fresh({ staleSeconds: 600 });
      await here.post('/query', thing.request);
      await expectStored((await entryOf(thing.options)).entryKey);
      const { entryKey } = await entryOf(thing.options);
      const release = truth.hold(thing.name);
      await here.post('/query', thing.request, 2 * MINUTE_MS);
      await truth.read(thing.name, 2);
      truth.values.set(thing.name, 'new');
      await there.post('/invalidate', { keys: [{ entryKey }] });
      // What the end of its life does to a tombstone.
      await redis('UNLINK', entryKey);
      release();
      await expectNewEverywhere(thing.request);
    });

    /** After a flush an isolate's first load fills nothing, and later reads do not join it. Waits until loads are stored. */
    async function expectFills(app: CacheApp): Promise<void> {
      const secondRead = async () => {
        const { request } = fresh();
        await app.post('/query', request);
        return (await app.post('/query', request)).body.from;
      };
      await expect.poll(secondRead, { interval: 20 }).toBe('hit');
    }

    async function expectStored(entryKey: string): Promise<void> {
      await expect.poll(() => redis('EXISTS', entryKey)).toBe(1);
    }

    test('a fill after an invalidation and a flush is not served', async () => {
      for (const by of ['key', 'tag', 'namespace', 'user']) {
        const thing = fresh();
        const release = truth.hold(thing.name);
        const filling = here.post('/query', thing.request);
        await truth.read(thing.name);
        truth.values.set(thing.name, 'new');
        await there.post('/invalidate', await changeOf(by, thing));
        await redis('FLUSHALL');
        release();
        expect((await filling).body).toMatchObject({ value: 'old' });
        await expectNewEverywhere(thing.request);
      }
    });

    test('cacheUser stores nothing that was invalidated since its getCachedUser', async () => {
      const thing = fresh();
      const user = { userId: thing.name, name: thing.name };
      const release = truth.hold(thing.name);
      const filling = here.post('/user', user);
      await truth.read(thing.name);
      truth.values.set(thing.name, 'new');
      await there.post('/invalidate', { users: [thing.name] });
      release();
      await filling;
      for (const app of [here, there]) expect((await app.post('/user', user)).body).toMatchObject({ value: 'new' });
      expect((await here.post('/user', user)).body).toEqual({ value: 'new', from: 'hit' });
    });

    test('a stale hit is refreshed for both isolates', async () => {
      const thing = fresh({ staleSeconds: 600 });
      await here.post('/query', thing.request);
      await expectStored((await entryOf(thing.options)).entryKey);
      truth.values.set(thing.name, 'new');
      expect((await there.post('/query', thing.request, 2 * MINUTE_MS)).body).toMatchObject({
        value: 'old',
        from: 'stale',
      });
      await truth.read(thing.name, 2);
      await expect
        .poll(async () => (await here.post('/query', thing.request, 2 * MINUTE_MS)).body)
        .toMatchObject({ value: 'new', from: 'hit' });
    });

    test('100 misses at once load once an isolate', async () => {
      for (const app of [here, there]) await expectFills(app);
      const thing = fresh();
      const release = truth.hold(thing.name);
      const answers = Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? here : there).post('/query', thing.request));
      await truth.read(thing.name, 2);
      // Time for all hundred to have asked.
      setTimeout(release, 500);
      const values = await Promise.all(answers);
      expect(new Set(values.map(({ body }) => body.value))).toEqual(new Set(['old']));
      expect(truth.reads.get(thing.name)).toBe(2);
    });

    test('100 misses at once with a lease load once in all', async () => {
      // An isolate waits for another one's load for 5 s: what takes longer on a machine that stalls is tried again.
      let reads = 0;
      for (const app of [here, there]) await expectFills(app);
      for (let tookMs = Infinity; tookMs > 4_000;) {
        const thing = fresh({ lease: true });
        const release = truth.hold(thing.name);
        const startMs = performance.now();
        const responses = Array.from({ length: 100 }, (_, i) =>
          (i % 2 === 0 ? here : there).post('/query', thing.request),
        );
        await truth.read(thing.name);
        setTimeout(release, 500);
        const values = await Promise.all(responses);
        tookMs = performance.now() - startMs;
        expect(new Set(values.map(({ body }) => body.value))).toEqual(new Set(['old']));
        expect(new Set(values.map(({ degraded }) => degraded))).toEqual(new Set(['']));
        reads = truth.reads.get(thing.name) ?? 0;
      }
      expect(reads).toBe(1);
    });

    const GARBAGE: [string, (key: string) => (string | number)[]][] = [
      ['text', (key) => ['SET', key, 'rubbish']],
      ['a forged entry', (key) => ['SET', key, '0123456789abcdef["g2",1,9e99,9e99,0,[],"x",0]\n"forged"']],
      ['bytes beyond ASCII', (key) => ['SET', key, 'ÿþ\u0000é'.repeat(9)]],
      ['a list', (key) => ['RPUSH', key, 'a']],
      ['a hash', (key) => ['HSET', key, 'a', 'b']],
      ['a set', (key) => ['SADD', key, 'a']],
      ['a sorted set', (key) => ['ZADD', key, 1, 'a']],
      ['a stream', (key) => ['XADD', key, '*', 'a', 'b']],
    ];

    test.each(GARBAGE)('%s in place of an entry or a tag version is a miss, and is healed', async (_, write) => {
      for (const place of ['entry', 'nonce', 'both'] as const) {
        const thing = fresh();
        const { entryKey, tagVersionKeys } = await entryOf(thing.options);
        const spoilt = [...(place === 'nonce' ? [] : [entryKey]), ...(place === 'entry' ? [] : tagVersionKeys)];
        for (const key of spoilt) {
          await redis('UNLINK', key);
          await redis(...write(key));
        }
        for (const app of [here, there]) {
          const { body, degraded } = await app.post('/query', thing.request);
          expect({ value: body.value, degraded }).toEqual({ value: 'old', degraded: '' });
        }
        await expect
          .poll(async () => (await here.post('/query', thing.request)).body.from, { interval: 20 })
          .toBe('hit');
      }
    });
  });
});
