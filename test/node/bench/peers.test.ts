import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { behaviourOf } from '../../bench/questions/cache/behaviour.ts';
import { CASES, startCaches } from '../../bench/questions/cache/setUp.ts';
import type { Caches } from '../../bench/questions/cache/setUp.ts';
import { assertRefreshes } from '../../bench/questions/refresh/refresh.ts';
import { start as startRefresh } from '../../bench/questions/refresh/setUp.ts';
import { startBenchRedis } from '../../bench/support/redis.ts';
import { runLoad } from '../../bench/support/load.ts';
import { startBenchPostgres } from '../../bench/support/postgres.ts';
import type { BenchRedis } from '../../bench/support/redis.ts';

let redis: BenchRedis;
let caches: Caches;

beforeAll(async () => {
  redis = await startBenchRedis();
  caches = await startCaches(redis);
});

afterAll(async () => {
  await caches[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

describe('the contenders of the question "cache"', () => {
  // A benchmark of an adapter that does not cache, or does not invalidate, would flatter the others.
  it.concurrent.each(CASES)('%s caches, forgets, and invalidates by tag if it has tags', async (name) => {
    const behaviour = await behaviourOf(caches, name);

    expect(behaviour).toMatchObject({ hits: true, forgets: true });
    expect(behaviour.invalidatesTags).toBe(name === 'cachified' ? undefined : true);
    // Memory without a bus.
    expect(behaviour.seesOtherIsolates).toBe(name !== 'bentocache');
    // As README and docs/cache.md say of each.
    expect(behaviour.survivesInvalidationDuringFill).toBe(name === 'gatehouse');
    const refreshes = { cacheable: undefined, cachified: true, gatehouse: true } as Record<string, true | undefined>;
    expect(behaviour.refreshesStale).toBe(name in refreshes ? refreshes[name] : false);
    if (name === 'gatehouse') {
      expect(behaviour).toMatchObject({
        concurrentMisses: [],
        concurrentTaggedHits: [],
      });
    }
  });
});

describe('the contenders of the question "refresh"', () => {
  it('rotate, extend and read sessions as they are said to', async () => {
    await using postgres = await startBenchPostgres();
    await using setUp = await startRefresh(redis, postgres);

    await expect(assertRefreshes(setUp)).resolves.toBeUndefined();
    for (const name of ['gatehouse', 'gatehouse on PostgreSQL'] as const) {
      const target = setUp.targets.get(name);
      if (target === undefined) continue;
      const cost = await setUp.databaseOf(name).costOf(() => runLoad(target.refresh, 1, { requests: 1 }));
      // Its transaction is sent in one go. PostgreSQL has a connection to open before.
      const trips = name === 'gatehouse' ? 2 : 3;
      expect(cost).toMatchObject({ trips, batches: 2, queries: 2, rowsWritten: 1 });
    }
  });
});
