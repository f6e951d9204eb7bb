import { describe, expect, test } from 'vitest';

import { CacheService } from '../../../../src/services/cache.service';
import { hashCanonical } from '../../../../src/services/cache/canonical';
import { stateOf } from '../../../../src/services/cache/loaderRunner';
import { LockService } from '../../../../src/services/lock.service';
import { inRequest } from '../../support/request';
import { cacheScene, freshNamespace, gate } from '../../support/cache';
import type { Scene } from '../../support/cache';

const options = (extra: object = {}) => ({
  namespace: freshNamespace(),
  args: 1,
  ttlSeconds: 60,
  lease: true,
  ...extra,
});
type Options = ReturnType<typeof options>;

/** Reads by the machine's own clock: leases are waited for. */
const read = <T>(isolate: Scene['isolate'], given: Options, loader: () => Promise<T>, ms = 0) =>
  inRequest(async () => CacheService.query<T>(given, loader), { isolate, now: () => Date.now() + ms });

/** Takes what a load takes that has found neither the entry nor its tag version, and keeps it. */
async function takesLease(scene: Scene, given: ReturnType<typeof options>): Promise<boolean> {
  return inRequest(
    async () => {
      const state = stateOf(CacheService.keyOf(given), { writeId: '', tagVersions: [null] });
      return (await LockService.acquire(`cache:${hashCanonical(state)}`, { leaseMs: 60_000 })).acquired;
    },
    { isolate: scene.elsewhere },
  );
}

describe('with a lease', () => {
  test('fifty misses in two isolates load once', async () => {
    const scene = cacheScene();
    const given = options();
    let loads = 0;
    const load = async () => {
      loads += 1;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return 'value';
    };
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => read(n % 2 === 0 ? scene.isolate : scene.elsewhere, given, load)),
    );
    expect(new Set(answers)).toEqual(new Set(['value']));
    expect(loads).toBe(1);
  });

  test('a stale value is refreshed by one of two isolates, and served by both meanwhile', async () => {
    const scene = cacheScene();
    const given = options({ staleSeconds: 600 });
    await read(scene.isolate, given, async () => 'old');
    const { open, opened } = gate();
    let loads = 0;
    const load = async () => {
      loads += 1;
      await opened;
      return 'new';
    };
    const first = read(scene.isolate, given, load, 61_000);
    await expect.poll(() => loads).toBe(1);
    for (let reads = 0; reads < 3; reads += 1) expect(await read(scene.elsewhere, given, load, 61_000)).toBe('old');
    open();
    expect(await first).toBe('old');
    expect(loads).toBe(1);
    expect(await read(scene.elsewhere, given, load, 61_000)).toBe('new');
  });

  test('a holder that died or hangs costs a bounded wait, and poisons nothing', async () => {
    const scene = cacheScene({ LOADER_DEADLINE_MS: '600' });
    const given = options();
    expect(await takesLease(scene, given)).toBe(true);
    const startMs = Date.now();
    expect(await read(scene.isolate, given, async () => 'own')).toBe('own');
    expect(Date.now() - startMs).toBeGreaterThanOrEqual(550);
    // Less than a wait for the end of the holder's lease.
    expect(Date.now() - startMs).toBeLessThan(30_000);
    expect(await read(scene.elsewhere, given, () => Promise.reject(new Error('asked')))).toBe('own');
  });

  test('a loader that fails gives the lease back', async () => {
    const scene = cacheScene();
    const given = options();
    await expect(read(scene.isolate, given, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect.poll(() => takesLease(scene, given)).toBe(true);
  });

  test('after a loader that failed the next one loads', async () => {
    const scene = cacheScene();
    const given = options();
    await expect(read(scene.isolate, given, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await read(scene.elsewhere, given, async () => 'value')).toBe('value');
  });

  test('a value that is invalidated during its load is not served to those who waited', async () => {
    const scene = cacheScene();
    const given = options();
    let value = 'old';
    const { open, opened } = gate();
    let loading = 0;
    const load = async () => {
      const found = value;
      loading += 1;
      if (loading === 1) await opened;
      return found;
    };
    const first = read(scene.isolate, given, load);
    await expect.poll(() => loading).toBe(1);
    value = 'new';
    await inRequest(async () => CacheService.invalidate({ namespaces: [given.namespace] }), {
      isolate: scene.elsewhere,
    });
    const second = read(scene.elsewhere, given, load);
    setTimeout(open, 100);
    expect(await first).toBe('old');
    expect(await second).toBe('new');
  });

  test('without Redis each request loads', async () => {
    const scene = cacheScene();
    scene.state.down = true;
    expect(await read(scene.isolate, options(), async () => 'value')).toBe('value');
  });
});
