import { describe, expect, test } from 'vitest';
import * as z from 'zod';

import { cacheScene, freshNamespace } from '../../support/cache';

const unasked = () => Promise.reject(new Error('the loader was asked'));

describe('notFound()', () => {
  test('is cached as nothing, for its own time', async () => {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600 };
    expect(await scene.query(given, async ({ notFound }) => notFound(5))).toBeNull();
    scene.clock.ms += 4_400;
    expect(await scene.query(given, unasked)).toBeNull();
    scene.clock.ms += 700;
    expect(await scene.query(given, async () => 'found')).toBe('found');
  });

  test('lasts half a minute by default, and is never served stale', async () => {
    const scene = cacheScene();
    const given = {
      namespace: freshNamespace(),
      args: 1,
      ttlSeconds: 600,
      staleSeconds: 600,
      staleIfErrorSeconds: 600,
    };
    await scene.query(given, async ({ notFound }) => notFound());
    scene.clock.ms += 26_000;
    expect(await scene.query(given, unasked)).toBeNull();
    scene.clock.ms += 5_000;
    await expect(scene.query(given, unasked)).rejects.toThrow('asked');
  });

  test('ends with its namespace', async () => {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600 };
    await scene.query(given, async ({ notFound }) => notFound());
    await scene.run(async ({ services }) => services.cache.invalidate({ namespaces: [given.namespace] }));
    expect(await scene.query(given, async () => 'created')).toBe('created');
  });
});

test('null and undefined are not cached', async () => {
  const scene = cacheScene();
  const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600 };
  expect(await scene.query(given, async () => null)).toBeNull();
  expect(await scene.query(given, async () => 'there')).toBe('there');
});

test.each([[false], [0], [''], [[]]])('%o is a value like any other', async (value) => {
  const scene = cacheScene();
  const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600 };
  expect(await scene.query<unknown>(given, async () => value)).toEqual(value);
  expect(await scene.query<unknown>(given, unasked)).toEqual(value);
});

describe('a schema', () => {
  const v1 = z.object({ name: z.string() });
  const v2 = z.object({ name: z.string(), since: z.coerce.date() });

  test('makes a miss of a cached value that does not pass, and the value is replaced', async () => {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600 };
    await scene.query({ ...given, schema: v1 }, async () => ({ name: 'Ada' }));
    const since = new Date(1_000);
    const load = async () => ({ name: 'Ada', since });
    expect(await scene.query({ ...given, schema: v2 }, load)).toEqual({ name: 'Ada', since });
    // From the cache it is a date as well.
    expect(await scene.query({ ...given, schema: v2 }, unasked)).toEqual({ name: 'Ada', since });
  });

  test('refuses a value of its own loader that does not pass, and caches nothing', async () => {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600, schema: v1 };
    await expect(scene.query(given, async () => ({ nome: 'Ada' }) as never)).rejects.toThrow(/schema/);
    expect(await scene.query(given, async () => ({ name: 'Ada' }))).toEqual({ name: 'Ada' });
  });

  test('does not stand in the way of nothing', async () => {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600, schema: v1 };
    await scene.query(given, async ({ notFound }) => notFound());
    expect(await scene.query(given, unasked)).toBeNull();
  });

  test('that is asynchronous is refused', async () => {
    const scene = cacheScene();
    const schema = {
      '~standard': { version: 1 as const, vendor: 'x', validate: async (value: unknown) => ({ value }) },
    };
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 600, schema };
    await expect(scene.query(given, async () => 1)).rejects.toThrow(TypeError);
  });
});

test.each([0, -1, Number.NaN])('a TTL of %d is refused', async (ttlSeconds) => {
  await expect(cacheScene().query({ namespace: 'n', args: 1, ttlSeconds }, async () => 1)).rejects.toThrow(RangeError);
});
