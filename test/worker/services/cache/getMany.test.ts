import { describe, expect, test, vi } from 'vitest';

import { DatabaseUnavailable } from '../../../../src/db/client';
import { CacheService } from '../../../../src/services/cache.service';
import { cacheScene, freshNamespace, gate } from '../../support/cache';

const unasked = () => Promise.reject(new Error('the loader was asked'));

function manyOf(count: number, extra: object = {}) {
  const namespace = freshNamespace();
  return Array.from({ length: count }, (_, id) => ({ namespace, args: { id }, tags: ['t'], ttlSeconds: 60, ...extra }));
}

const double = async (missing: readonly { args: { id: number } }[]) => missing.map(({ args }) => args.id * 2);

describe('getMany', () => {
  test('reads ten keys in one command, and fills the missing ones in one trip after the answer', async () => {
    const scene = cacheScene();
    const requests = manyOf(10);
    // Flush sentinel, clock and tag versions are known from then on.
    await scene.query({ ...requests[0]!, args: 'other' }, async () => 1);
    scene.state.sent = [];
    await scene.run(async () => {
      expect(await CacheService.getMany(requests, double)).toEqual([0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
      expect(scene.state.sent.map((commands) => commands.length)).toEqual([1]);
      // Ten entries, and the two tag versions that they share.
      expect(scene.state.sent[0]?.[0]).toHaveLength(1 + 10 + 2);
    });
    expect(scene.state.sent.map((commands) => commands.length)).toEqual([1, 10]);
    scene.state.sent = [];
    expect(await scene.run(async () => CacheService.getMany(requests, unasked))).toHaveLength(10);
    expect(scene.state.sent).toHaveLength(1);
  });

  test('loads only the missing entries, each once, in one call', async () => {
    const scene = cacheScene();
    const requests = manyOf(4);
    await scene.run(async () => CacheService.getMany(requests.slice(1, 3), double));
    const loader = vi.fn<typeof double>(double);
    const asked = [...requests, requests[0]!, requests[3]!];
    expect(await scene.run(async () => CacheService.getMany(asked, loader))).toEqual([0, 2, 4, 6, 0, 6]);
    expect(loader).toHaveBeenCalledOnce();
    expect(loader.mock.calls[0]?.[0]).toEqual([requests[0], requests[3]]);
  });

  test('shares entries with query, and nothing with null and notFound()', async () => {
    const scene = cacheScene();
    const [a, b, c] = manyOf(3) as [
      ReturnType<typeof manyOf>[0],
      ReturnType<typeof manyOf>[0],
      ReturnType<typeof manyOf>[0],
    ];
    await scene.query<number | string>(a, async () => 'a');
    const values = await scene.run(async () =>
      CacheService.getMany<number | string>([a, b, c], async (_, { notFound }) => [null, notFound()]),
    );
    expect(values).toEqual(['a', null, null]);
    expect(await scene.query<number | string>(b, async () => 'b')).toBe('b');
    expect(await scene.query<number | string>(c, unasked)).toBeNull();
  });

  test('joins loads of single keys that are under way', async () => {
    const scene = cacheScene();
    const requests = manyOf(2);
    await scene.query({ ...requests[0]!, args: 'other' }, async () => 1);
    const { open, opened } = gate();
    const single = scene.query(requests[0]!, async () => {
      await opened;
      return 'single';
    });
    await expect.poll(() => scene.isolate.singleFlight.size).toBe(1);
    const many = scene.run(async () =>
      CacheService.getMany<string>(requests, async (missing) => {
        open();
        return missing.map(({ args }) => `many ${JSON.stringify(args)}`);
      }),
    );
    expect(await many).toEqual(['single', 'many {"id":1}']);
    expect(await single).toBe('single');
  });

  test('refreshes stale entries together, and serves them when the loader fails', async () => {
    const scene = cacheScene();
    const requests = manyOf(3, { staleSeconds: 10, staleIfErrorSeconds: 100 });
    await scene.run(async () => CacheService.getMany(requests, double));
    scene.clock.ms += 65_000;
    const loader = vi.fn<() => Promise<number[]>>(async () => [10, 20, 30]);
    expect(await scene.run(async () => CacheService.getMany(requests, loader))).toEqual([0, 2, 4]);
    expect(loader).toHaveBeenCalledOnce();
    expect(await scene.run(async () => CacheService.getMany(requests, unasked))).toEqual([10, 20, 30]);
    scene.clock.ms += 75_000;
    const down = () => Promise.reject(new DatabaseUnavailable('down'));
    expect(await scene.run(async () => CacheService.getMany(requests, down))).toEqual([10, 20, 30]);
  });

  test('refreshes together entries that would have a lease if they were read alone', async () => {
    const scene = cacheScene();
    const requests = manyOf(3, { staleSeconds: 10, lease: true });
    await scene.run(async () => CacheService.getMany(requests, double));
    scene.clock.ms += 65_000;
    const loader = vi.fn<() => Promise<number[]>>(async () => [10, 20, 30]);
    expect(await scene.run(async () => CacheService.getMany(requests, loader))).toEqual([0, 2, 4]);
    expect(loader).toHaveBeenCalledOnce();
    expect(await scene.run(async () => CacheService.getMany(requests, unasked))).toEqual([10, 20, 30]);
  });

  test('refuses a loader that does not answer for every key', async () => {
    await expect(cacheScene().run(async () => CacheService.getMany(manyOf(2), async () => [1]))).rejects.toThrow(
      'one value for each key',
    );
  });

  test('without keys asks neither Redis nor the loader', async () => {
    const scene = cacheScene();
    expect(await scene.run(async () => CacheService.getMany([], unasked))).toEqual([]);
    expect(scene.state.sent).toEqual([]);
  });

  test('goes to the loader while Redis is away', async () => {
    const scene = cacheScene();
    scene.state.down = true;
    expect(await scene.run(async () => CacheService.getMany(manyOf(3), double))).toEqual([0, 2, 4]);
  });
});
