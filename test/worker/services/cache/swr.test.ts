import { describe, expect, test, vi } from 'vitest';

import { DatabaseUnavailable } from '../../../../src/db/client';
import { CacheService } from '../../../../src/services/cache.service';
import type { Invalidation } from '../../../../src/services/cache.service';
import { cacheScene, freshNamespace, gate } from '../../support/cache';

const unasked = () => Promise.reject(new Error('the loader was asked'));
const options = () => ({
  namespace: freshNamespace(),
  args: 1,
  user: 'u-swr',
  tags: ['t'],
  ttlSeconds: 60,
  staleSeconds: 30,
});

/** A scene with one cached value, which is a second past its TTL. */
async function stale(given = options()) {
  const scene = cacheScene();
  await scene.query(given, async () => 'old');
  scene.clock.ms += 61_000;
  return { scene, given };
}

describe('a stale hit', () => {
  test('is answered at once with one trip, and is really refreshed', async () => {
    const { scene, given } = await stale();
    const order: string[] = [];
    const { open, opened } = gate();
    scene.state.sent = [];
    await scene.run(async () => {
      const value = await CacheService.query(given, async () => {
        await opened;
        order.push('loaded');
        return 'new';
      });
      order.push(`answered with ${value} after ${scene.state.sent.length} trip`);
      open();
    });
    expect(order).toEqual(['answered with old after 1 trip', 'loaded']);
    expect(await scene.query(given, unasked)).toBe('new');
    // For a whole TTL.
    scene.clock.ms += 53_000;
    expect(await scene.query(given, unasked)).toBe('new');
  });

  test('of twenty requests at once is refreshed by one', async () => {
    const { scene, given } = await stale();
    let loads = 0;
    const { open, opened } = gate();
    const answers = Array.from({ length: 20 }, () =>
      scene.query(given, async () => {
        loads += 1;
        await opened;
        return 'new';
      }),
    );
    // The leader's request ends with its refresh; the others' with their answers.
    const firstNineteen = await Promise.all(
      answers.map((answer) => Promise.race([answer, opened.then(() => 'late')])).slice(1),
    );
    open();
    await Promise.all(answers);
    expect(new Set(firstNineteen)).toEqual(new Set(['old']));
    expect(loads).toBe(1);
  });

  test('is refreshed though the request has no time left for Redis', async () => {
    const { scene, given } = await stale();
    await scene.run(async ({ batch }) => {
      expect(await CacheService.query(given, async () => 'new')).toBe('old');
      batch.setDeadline(0);
    });
    expect(await scene.query(given, unasked)).toBe('new');
  });

  test('is served for staleSeconds after its TTL, and no millisecond longer', async () => {
    const last = await stale();
    last.scene.clock.ms += 28_999;
    expect(await last.scene.query(last.given, async () => 'new')).toBe('old');
    const late = await stale();
    late.scene.clock.ms += 29_000;
    expect(await late.scene.query(late.given, async () => 'new')).toBe('new');
  });

  test('does not exist without staleSeconds', async () => {
    const { scene, given } = await stale({ ...options(), staleSeconds: 0 });
    expect(await scene.query(given, async () => 'new')).toBe('new');
  });

  test.each<[string, (given: ReturnType<typeof options>) => Invalidation]>([
    ['key', (given) => ({ keys: [CacheService.keyOf(given)] })],
    ['namespace', ({ namespace }) => ({ namespaces: [namespace] })],
    ['tag', ({ tags }) => ({ tags })],
    ['user', ({ user }) => ({ users: [user] })],
  ])('that is invalidated by %s while it is refreshed is not refreshed with the old value', async (_, change) => {
    const { scene, given } = await stale();
    const { open, opened } = gate();
    let value = 'old';
    const answer = scene.query(given, async () => {
      const read = value;
      await opened;
      return read;
    });
    await expect.poll(() => scene.isolate.singleFlight.size).toBe(1);
    value = 'new';
    await scene.run(async () => CacheService.invalidate(change(given)), scene.elsewhere);
    open();
    expect(await answer).toBe('old');
    expect(await scene.query(given, async () => value)).toBe('new');
    expect(await scene.query(given, unasked)).toBe('new');
  });

  test('that was invalidated is not served, whatever its window', async () => {
    const { scene, given } = await stale();
    await scene.run(async () => CacheService.invalidate({ tags: given.tags }), scene.elsewhere);
    await expect(scene.query(given, () => Promise.reject(new DatabaseUnavailable('down')))).rejects.toThrow('down');
  });

  test('whose refresh fails is served on, and the loader is left alone for a while', async () => {
    const { scene, given } = await stale({ ...options(), staleSeconds: 600 });
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    let tries = 0;
    const failing = () => {
      tries += 1;
      return Promise.reject(new DatabaseUnavailable('down'));
    };
    for (let reads = 0; reads < 5; reads += 1) expect(await scene.query(given, failing)).toBe('old');
    expect(tries).toBe(1);
    expect(log.mock.calls.map(([line]) => (JSON.parse(String(line)) as { event: string }).event)).toEqual([
      'cache.refresh_failed',
    ]);
    scene.clock.ms += 1_001;
    for (let reads = 0; reads < 5; reads += 1) expect(await scene.query(given, failing)).toBe('old');
    expect(tries).toBe(2);
    // Twice as long after the second failure.
    scene.clock.ms += 1_001;
    expect(await scene.query(given, failing)).toBe('old');
    expect(tries).toBe(2);
    scene.clock.ms += 1_000;
    expect(await scene.query(given, async () => 'new')).toBe('old');
    expect(await scene.query(given, unasked)).toBe('new');
    log.mockRestore();
  });

  test('whose refresh fails again and again is tried after 1 s, doubling to 30 s', async () => {
    const { scene, given } = await stale({ ...options(), staleSeconds: 3_600 });
    const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    let tries = 0;
    const read = () =>
      scene.query(given, () => {
        tries += 1;
        return Promise.reject(new DatabaseUnavailable('down'));
      });
    await read();
    for (const waitMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      const before = tries;
      scene.clock.ms += waitMs - 1;
      await read();
      expect({ waitMs, tries }).toEqual({ waitMs, tries: before });
      scene.clock.ms += 1;
      await read();
      expect({ waitMs, tries }).toEqual({ waitMs, tries: before + 1 });
    }
    log.mockRestore();
  });

  test('whose loader finds nothing any more is gone', async () => {
    const { scene, given } = await stale();
    expect(await scene.query(given, async () => null)).toBe('old');
    expect(await scene.query(given, async () => null)).toBeNull();
  });
});

test.each([
  [0, 60_000],
  [1 - 2 ** -53, 54_000],
])(
  'with a chance of %d a value is fresh for %d of 60,000 ms: its TTL, or up to a tenth less',
  async (chance, freshMs) => {
    const scene = cacheScene();
    const given = options();
    scene.chance.value = chance;
    await scene.query(given, async () => 'old');
    scene.chance.value = 0;
    let loads = 0;
    const read = () =>
      scene.query(given, async () => {
        loads += 1;
        return 'new';
      });
    scene.clock.ms += freshMs - 1;
    expect([await read(), loads]).toEqual(['old', 0]);
    scene.clock.ms += 1;
    expect([await read(), loads]).toEqual(['old', 1]);
  },
);

test('a request keeps what it has read for a second, and no longer', async () => {
  const scene = cacheScene();
  const given = options();
  await scene.query(given, async () => 'old');
  await scene.run(async () => {
    const read = () => CacheService.query(given, async () => 'new');
    expect(await read()).toBe('old');
    await scene.run(async () => CacheService.invalidate({ tags: given.tags }), scene.elsewhere);
    scene.clock.ms += 1_000;
    expect(await read()).toBe('old');
    scene.clock.ms += 1;
    expect(await read()).toBe('new');
  });
});

describe('early refresh', () => {
  /** A value whose loader takes a second, ten seconds before its end. */
  async function soonStale(random: number) {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 60 };
    await scene.query(given, async () => {
      scene.clock.ms += 1_000;
      return 'first';
    });
    scene.clock.ms += 50_000;
    scene.chance.value = random;
    let loads = 0;
    const value = await scene.query(given, async () => {
      loads += 1;
      return 'second';
    });
    scene.chance.value = 0;
    return { value, loads, next: await scene.query(given, unasked) };
  }

  test('by chance, the likelier the nearer the end, and never in the way of an answer', async () => {
    // -ln(1 - r) of a second reaches ten seconds ahead from r = 1 - e^-10 on.
    expect(await soonStale(1 - Math.exp(-9.9))).toEqual({ value: 'first', loads: 0, next: 'first' });
    expect(await soonStale(1 - Math.exp(-10.1))).toEqual({ value: 'first', loads: 1, next: 'second' });
  });
});
