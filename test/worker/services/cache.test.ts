import { describe, expect, test } from 'vitest';

import { CacheService } from '../../../src/services/cache.service';
import type { RedisClient } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { createRedisClient } from '../../../src/redis/client';
import { configOf } from '../../../src/config/env';
import type { RequestScope } from '../../../src/services/scope';
import { bindings, inRequest, isolateFor } from '../support/request';

const ttlSeconds = 600;
let n = 0;
/** A namespace that no other test has used. */
const fresh = () => `ns${(n += 1)}`;

/** Promise and its resolver. */
function gate() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe('an invalidation while a loader runs', () => {
  const user = 'u-race';
  test.each<[string, Parameters<typeof CacheService.invalidate>[0] | 'key', 'same' | 'other']>([
    ['by key', 'key', 'same'],
    ['by namespace', { namespaces: ['race'] }, 'same'],
    ['by tag', { tags: ['race-tag'] }, 'same'],
    ['by user', { users: [user] }, 'same'],
    ['by key from another isolate', 'key', 'other'],
    ['by namespace from another isolate', { namespaces: ['race'] }, 'other'],
    ['by tag from another isolate', { tags: ['race-tag'] }, 'other'],
    ['by user from another isolate', { users: [user] }, 'other'],
  ])('%s: the old value is never served again', async (_name, change, where) => {
    const options = { namespace: 'race', args: { n: (n += 1) }, user, tags: ['race-tag'], ttlSeconds };
    const isolate = isolateFor();
    const elsewhere = where === 'same' ? isolate : isolateFor();
    let value = 'old';
    const { open, opened } = gate();

    const slow = inRequest(
      () =>
        CacheService.query(options, async () => {
          const read = value;
          await opened;
          return read;
        }),
      { isolate },
    );
    await expect.poll(() => isolate.singleFlight.size).toBe(1);
    value = 'new';
    await inRequest(
      async () => {
        const keys = change === 'key' ? { keys: [CacheService.keyOf(options)] } : change;
        expect(await CacheService.invalidate(keys)).toEqual({ pending: false });
      },
      { isolate: elsewhere },
    );
    open();
    expect(await slow).toBe('old');

    for (const reader of [isolate, elsewhere]) {
      expect(await inRequest(() => CacheService.query(options, async () => value), { isolate: reader })).toBe('new');
    }
  });

  test('a fill that comes after a flush is not served', async () => {
    const options = { namespace: fresh(), args: 1, ttlSeconds };
    const isolate = isolateFor();
    let value = 'old';
    const { open, opened } = gate();
    const slow = inRequest(
      () =>
        CacheService.query(options, async () => {
          const read = value;
          await opened;
          return read;
        }),
      { isolate },
    );
    await expect.poll(() => isolate.singleFlight.size).toBe(1);
    value = 'new';
    await inRequest(
      async ({ batch }) => {
        await CacheService.invalidate({ namespaces: [options.namespace] });
        const { entryKey, tagVersionKeys } = CacheService.keyOf(options);
        // What FLUSHALL does to this entry.
        await Promise.all([entryKey, ...tagVersionKeys].map((key) => batch.send('UNLINK', key)));
      },
      { isolate },
    );
    open();
    await slow;
    expect(await inRequest(() => CacheService.query(options, async () => value), { isolate })).toBe('new');
  });

  test('cacheUser stores nothing once its user was invalidated', async () => {
    const isolate = isolateFor();
    await inRequest(
      async () => {
        expect(await CacheService.getCachedUser('u-guarded')).toBeNull();
        await inRequest(() => CacheService.invalidateUser('u-guarded'), { isolate });
        await CacheService.cacheUser('u-guarded', { name: 'old' });
      },
      { isolate },
    );
    expect(await inRequest(() => CacheService.getCachedUser('u-guarded'), { isolate })).toBeNull();
  });
});

/** A client that counts its requests, and can be made to fail. */
function countingClient() {
  const { url, token } = configOf(bindings()).redis;
  const real = createRedisClient({ url, token });
  const state = { trips: 0, commands: 0, down: false };
  const client: RedisClient = {
    async execute(commands) {
      state.trips += 1;
      state.commands += commands.length;
      if (state.down) throw new RedisUnavailable('refused');
      return real.execute(commands);
    },
  };
  return { client, state };
}

test('a hit costs one trip, whatever its tags; a miss one more, after the answer', async () => {
  const { client, state } = countingClient();
  const isolate = isolateFor(bindings(), { client });
  const options = { namespace: fresh(), args: 1, user: 'u1', tags: ['a', 'b', 'c'], ttlSeconds };
  const read = (value: string) => inRequest(() => CacheService.query(options, async () => value), { isolate });
  // The first of all makes the tag versions, and teaches the server the script.
  await read('first');
  await inRequest(() => CacheService.invalidate({ keys: [CacheService.keyOf(options)] }), { isolate });

  state.trips = 0;
  expect(await read('miss')).toBe('miss');
  expect(state.trips).toBe(2);
  state.trips = 0;
  state.commands = 0;
  expect(await read('not asked')).toBe('miss');
  expect(state.trips).toBe(1);
  expect(state.commands).toBe(1);
});

test('a hundred misses at once load once', async () => {
  const isolate = isolateFor();
  const options = { namespace: fresh(), args: 1, ttlSeconds };
  await inRequest(() => CacheService.query(options, async () => ({ value: 0 })), { isolate });
  await inRequest(() => CacheService.invalidate({ keys: [CacheService.keyOf(options)] }), { isolate });
  let loads = 0;
  let missed = 0;
  const { open, opened } = gate();
  const load = async () => {
    loads += 1;
    await opened;
    return { value: 7 };
  };
  const read = async ({ batch }: RequestScope) => {
    CacheService.prefetch(CacheService.keyOf(options));
    await batch.send('PING');
    missed += 1;
    // Once the last one has missed and waits as well, the loader may return.
    if (missed === 100) setTimeout(open, 100);
    return CacheService.query(options, load);
  };
  const values = await Promise.all(Array.from({ length: 100 }, () => inRequest(read, { isolate })));
  expect(new Set(values.map((value) => value?.value))).toEqual(new Set([7]));
  expect(loads).toBe(1);
});

test('a loader that fails poisons nothing', async () => {
  const isolate = isolateFor();
  const options = { namespace: fresh(), args: 1, ttlSeconds };
  const failing = inRequest(() => CacheService.query(options, () => Promise.reject(new Error('no'))), { isolate });
  await expect(failing).rejects.toThrow('no');
  expect(await inRequest(() => CacheService.query(options, async () => 1), { isolate })).toBe(1);
});

test('without Redis every read goes to its loader', async () => {
  const { client, state } = countingClient();
  state.down = true;
  const isolate = isolateFor(bindings(), { client });
  const options = { namespace: fresh(), args: 1, ttlSeconds };
  await inRequest(
    async ({ degraded }) => {
      expect(await CacheService.query(options, async () => 'loaded')).toBe('loaded');
      expect([...degraded]).toEqual(['cache=bypass']);
      expect(await CacheService.invalidate({ namespaces: [options.namespace] })).toEqual({ pending: true });
    },
    { isolate },
  );
});

test('an entry that is not ours is a miss, and is replaced', async () => {
  const isolate = isolateFor();
  const options = { namespace: fresh(), args: 1, ttlSeconds };
  for (const garbage of [
    '',
    'x',
    '0123456789abcdef',
    '0123456789abcdef[1,2]\n{}',
    '0123456789abcdef{"a":1}\nnull',
    '{"json":true}',
  ]) {
    await inRequest(({ batch }) => batch.send('SET', CacheService.keyOf(options).entryKey, garbage, 'EX', 60), {
      isolate,
    });
    expect(await inRequest(() => CacheService.query(options, async () => garbage.length), { isolate })).toBe(
      garbage.length,
    );
    expect(await inRequest(() => CacheService.query(options, async () => -1), { isolate })).toBe(garbage.length);
  }
});

test('an entry of other arguments under the same key is a miss', async () => {
  const isolate = isolateFor();
  const namespace = fresh();
  const [mine, other] = [1, 2].map((args) => ({ namespace, args, ttlSeconds }));
  if (mine === undefined || other === undefined) throw new Error('unreachable');
  await inRequest(() => CacheService.query(other, async () => 'theirs'), { isolate });
  await inRequest(
    async ({ batch }) => {
      const stolen = await batch.send('GET', CacheService.keyOf(other).entryKey);
      await batch.send('SET', CacheService.keyOf(mine).entryKey, String(stolen), 'EX', 60);
      expect(await CacheService.query(mine, async () => 'mine')).toBe('mine');
    },
    { isolate },
  );
});
