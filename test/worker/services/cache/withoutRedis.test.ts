import { describe, expect, test } from 'vitest';

import { CacheService } from '../../../../src/services/cache.service';
import { FreshSingleFlight } from '../../../../src/services/freshSingleFlight';
import { cacheScene, freshNamespace, gate } from '../../support/cache';

/** A value that loads read at once, and give when they are let. */
function heldTruth() {
  const truth = { value: 'old', loads: 0, hold: undefined as Promise<void> | undefined };
  const load = async () => {
    truth.loads += 1;
    const { value, hold } = truth;
    await hold;
    return value;
  };
  return { truth, load };
}

const options = () => ({ namespace: freshNamespace(), args: 1, ttlSeconds: 60 });

describe('with Redis away', () => {
  test('a load that began before a change does not answer a read that came after it, wherever the change was made', async () => {
    const scene = cacheScene();
    const given = options();
    const { truth, load } = heldTruth();
    const held = gate();
    scene.state.down = true;
    truth.hold = held.opened;
    const before = scene.query(given, load);
    while (truth.loads === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    // Another isolate's change: this one is not notified of it.
    truth.value = 'new';
    const after = scene.query(given, load);
    held.open();
    expect(await before).toBe('old');
    expect(await after).toBe('new');
  });

  test('nor does one of several that are asked for together', async () => {
    const scene = cacheScene();
    const namespace = freshNamespace();
    const { truth, load } = heldTruth();
    const held = gate();
    scene.state.down = true;
    truth.hold = held.opened;
    const requests = [1, 2, 3].map((args) => ({ namespace, args, ttlSeconds: 60 }));
    const many = () =>
      scene.run(async () => CacheService.getMany(requests, async (missing) => Promise.all(missing.map(load))));
    const before = many();
    while (truth.loads === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    truth.value = 'new';
    const after = [many(), scene.query(requests[1]!, load)];
    held.open();
    expect(await before).toEqual(['old', 'old', 'old']);
    expect(await Promise.all(after)).toEqual([['new', 'new', 'new'], 'new']);
  });

  test('reads that come while a load runs share the next one', async () => {
    const scene = cacheScene();
    const given = options();
    const { truth, load } = heldTruth();
    const held = gate();
    scene.state.down = true;
    truth.hold = held.opened;
    const first = scene.query(given, load);
    while (truth.loads === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const others = Array.from({ length: 30 }, () => scene.query(given, load));
    setTimeout(held.open, 20);
    expect(await Promise.all([first, ...others])).toEqual(Array.from({ length: 31 }, () => 'old'));
    expect(truth.loads).toBe(2);
  });

  test('a load that fails fails for those who share it, and not for who comes after', async () => {
    const scene = cacheScene();
    const given = options();
    scene.state.down = true;
    await expect(scene.query(given, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await scene.query(given, async () => 'works')).toBe('works');
    expect(scene.isolate.freshLoads.size).toBe(0);
  });
});

describe('fresh single flight', () => {
  test('of a request that died are not waited for', async () => {
    const singleFlight = new FreshSingleFlight<string>();
    const kept = { waitUntil: () => undefined, lostAfterMs: 10 };
    void singleFlight.load('key', () => new Promise(() => {}), kept);
    // The leader of the next one dies as well, before it begins.
    expect(await singleFlight.load('key', async () => 'mine', kept)).toBe('mine');
    expect(singleFlight.size).toBe(0);
  });

  test('of many keys that were left behind are swept', async () => {
    const singleFlight = new FreshSingleFlight<string>();
    const kept = { waitUntil: () => undefined, lostAfterMs: -1 };
    for (let key = 0; key < 2_000; key += 1) void singleFlight.load(String(key), () => new Promise(() => {}), kept);
    expect(singleFlight.size).toBeLessThanOrEqual(1_001);
  });
});
