import { describe, expect, test, vi } from 'vitest';

import type { Command } from '../../../../src/redis/client';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { CacheService } from '../../../../src/services/cache.service';
import type { Invalidation } from '../../../../src/services/cache.service';
import { cacheScene, freshNamespace, gate } from '../../support/cache';
import type { Scene } from '../../support/cache';

const options = () => ({
  namespace: freshNamespace(),
  args: 1,
  user: freshNamespace(),
  tags: [freshNamespace()],
  ttlSeconds: 60,
});

/** The pipeline that makes tag versions, and the one that fills. */
const makes = (commands: readonly Command[]) => commands.some((command) => command[0] === 'SET' && command[3] === 'NX');
const fills = (commands: readonly Command[]) => commands.some(([name]) => name === 'EVALSHA' || name === 'EVAL');

/** A scene whose isolate knows the flush sentinel: any load but the first after a flush. */
async function warm(): Promise<Scene> {
  const scene = cacheScene();
  await scene.query(options(), async () => 'warm');
  scene.state.sent = [];
  return scene;
}

/** What FLUSHALL does to this entry. */
async function flush(scene: Scene, given: ReturnType<typeof options>): Promise<void> {
  await scene.run(async ({ batch }) => {
    const { entryKey, tagVersionKeys } = CacheService.keyOf(given);
    const names = [entryKey, ...tagVersionKeys, scene.elsewhere.keys.flushSentinel];
    await Promise.all(names.map((name) => batch.send('UNLINK', name)));
  }, scene.elsewhere);
}

test('the first read of a user, namespace and tag waits for one trip, as every miss does', async () => {
  const scene = await warm();
  const given = options();
  await scene.run(async () => {
    await CacheService.query(given, async () => {
      // The call that makes the tag versions is under way, and no request waits for it.
      expect(scene.state.sent.map(makes)).toEqual([false, true]);
      return 'value';
    });
  });
  expect(scene.state.sent.map(fills)).toEqual([false, false, true]);
  expect(await scene.query(given, () => Promise.reject(new Error('asked')))).toBe('value');
});

test('only the first load after a flush makes its tag versions before the loader runs', async () => {
  const scene = await warm();
  const given = options();
  await flush(scene, given);
  // Two loads that the flush sentinel is found missing by, and that therefore fill nothing they might have to regret …
  await scene.query(given, async () => 'value');
  // … and one that makes a new one first.
  await scene.query(given, async () => 'value');
  expect(await scene.query(given, () => Promise.reject(new Error('asked')))).toBe('value');
});

describe.each<[string, (given: ReturnType<typeof options>) => Invalidation]>([
  ['namespace', ({ namespace }) => ({ namespaces: [namespace] })],
  ['tag', ({ tags }) => ({ tags })],
  ['user', ({ user }) => ({ users: [user] })],
  ['key', (given) => ({ keys: [CacheService.keyOf(given)] })],
])('an invalidation by %s while a loader runs and its tag versions are being made', (_, change) => {
  /** Holds the tag versions up until they are released, or lets them through first. */
  async function expectNew(
    order:
      | 'before the tag versions'
      | 'after the tag versions'
      | 'before them, and a flush'
      | 'before them, and others after a flush',
  ) {
    const scene = await warm();
    const given = options();
    const tagVersions = gate();
    const loader = gate();
    let made = false;
    scene.state.before = async (commands) => {
      if (!makes(commands)) return;
      if (order !== 'after the tag versions') await tagVersions.opened;
      made = true;
    };
    let value = 'old';
    const answer = scene.query(given, async () => {
      const read = value;
      await loader.opened;
      return read;
    });
    await expect.poll(() => scene.state.sent.some(makes)).toBe(true);
    if (order === 'after the tag versions') {
      await expect.poll(() => made).toBe(true);
      await scene.run(({ batch }) => batch.send('PING'));
    }
    value = 'new';
    await scene.run(async () => CacheService.invalidate(change(given)), scene.elsewhere);
    if (order.endsWith('flush')) await flush(scene, given);
    if (order.startsWith('before them, and others'))
      await scene.run(async () => CacheService.query(options(), async () => 1), scene.newcomer());
    tagVersions.open();
    loader.open();
    expect(await answer).toBe('old');
    scene.state.before = undefined;
    for (const where of [scene.isolate, scene.elsewhere]) {
      expect(await scene.run(async () => CacheService.query(given, async () => value), where)).toBe('new');
    }
  }

  /** An isolate's read after a load that began before the invalidation, which a flush then removes. */
  async function expectNoJoin({
    versions,
    lost = 'everything',
    afterwards,
  }: {
    versions: 'missing' | 'initial';
    lost?: 'everything' | 'tag versions';
    afterwards?: 'loaded elsewhere';
  }) {
    const scene = await warm();
    const given = options();
    const newValue = (where: typeof scene.isolate) =>
      scene.run(async () => CacheService.query(given, async () => 'new'), where);
    // It knows the flush sentinel, so its first load after the flush makes tag versions and fills nothing.
    await scene.run(async () => CacheService.query(options(), async () => 1), scene.elsewhere);
    if (versions === 'initial') {
      await scene.query(given, async () => 'older');
      await scene.run(({ batch }) => batch.send('UNLINK', CacheService.keyOf(given).entryKey), scene.elsewhere);
    }
    const loader = gate();
    let [hasVersions, hasBegun] = [versions === 'initial', false];
    scene.state.rewrite = (replies) => {
      hasVersions ||= replies.some(({ value }) => value === 'OK');
      return replies;
    };
    const first = scene.query(given, async () => {
      hasBegun = true;
      await loader.opened;
      return 'old';
    });
    await expect.poll(() => hasVersions && hasBegun).toBe(true);
    await scene.run(async () => CacheService.invalidate(change(given)), scene.elsewhere);
    if (lost === 'everything') await flush(scene, given);
    else {
      const { tagVersionKeys } = await scene.run(async () => CacheService.keyOf(given));
      await scene.run(
        ({ batch }) => batch.send('UNLINK', tagVersionKeys[0]!, ...tagVersionKeys.slice(1)),
        scene.elsewhere,
      );
    }
    if (afterwards === 'loaded elsewhere') await newValue(scene.elsewhere);
    expect(await newValue(scene.isolate)).toBe('new');
    loader.open();
    expect(await first).toBe('old');
    for (const where of [scene.isolate, scene.elsewhere]) expect(await newValue(where)).toBe('new');
  }

  test('and that a flush makes Redis forget: later reads join no load from before', () =>
    expectNoJoin({ versions: 'missing' }));
  test('nor when a shard loses the tag versions alone', () =>
    expectNoJoin({ versions: 'missing', lost: 'tag versions' }));
  test('nor when another isolate has made tag versions since', () =>
    expectNoJoin({ versions: 'missing', afterwards: 'loaded elsewhere' }));
  test('nor a load that found tag versions of an earlier load', () => expectNoJoin({ versions: 'initial' }));
  test('nor that one, when another isolate has made tag versions since', () =>
    expectNoJoin({ versions: 'initial', afterwards: 'loaded elsewhere' }));
  test('that comes first is not undone by them', () => expectNew('before the tag versions'));
  test('that comes last outdates them', () => expectNew('after the tag versions'));
  test('and that a flush makes Redis forget before they arrive', () => expectNew('before them, and a flush'));
  test('and that a flush makes Redis forget, after which others go on', () =>
    expectNew('before them, and others after a flush'));
});

test('a read that Redis served before a load’s tag versions were there joins that load, however late its reply is', async () => {
  const scene = await warm();
  const given = options();
  const [loader, tagVersions, reads] = [gate(), gate(), gate()];
  const arrived = { made: false, read: false };
  let loads = 0;
  const query = () =>
    scene.query(given, async () => {
      loads += 1;
      await loader.opened;
      return 'value';
    });
  scene.state.before = (commands) => (makes(commands) ? tagVersions.opened : undefined);
  const first = query();
  await expect.poll(() => loads).toBe(1);
  scene.state.before = (commands) => (makes(commands) ? undefined : reads.opened);
  const sent = scene.state.sent.length;
  const second = query();
  await expect.poll(() => scene.state.sent.length).toBe(sent + 1);
  scene.state.rewrite = (replies) => {
    arrived.made = true;
    return replies;
  };
  tagVersions.open();
  await expect.poll(() => arrived.made).toBe(true);
  // The reply that Redis would have given before.
  scene.state.rewrite = (replies) => {
    arrived.read = true;
    return replies.map((reply) => (Array.isArray(reply.value) ? { value: reply.value.map(() => null) } : reply));
  };
  reads.open();
  await expect.poll(() => arrived.read).toBe(true);
  loader.open();
  expect(await Promise.all([first, second])).toEqual(['value', 'value']);
  expect(loads).toBe(1);
});

test.each([
  ['one isolate', 'isolate'],
  ['two isolates', 'elsewhere'],
] as const)('loads side by side that miss the same tag version, in %s, all fill', async (_, other) => {
  const scene = await warm();
  await scene.run(async () => CacheService.query(options(), async () => 1), scene.elsewhere);
  const namespace = freshNamespace();
  const given = Array.from({ length: 6 }, (__, args) => ({ namespace, args, ttlSeconds: 60 }));
  const all = (loader: () => Promise<string>) =>
    Promise.all(
      given.map((one, at) =>
        scene.run(async () => CacheService.query(one, loader), at % 2 === 0 ? scene.isolate : scene[other]),
      ),
    );
  await all(async () => 'value');
  expect(await all(() => Promise.reject(new Error('asked')))).toEqual(given.map(() => 'value'));
});

test('a load whose tag versions are lost on the way fills nothing', async () => {
  const scene = await warm();
  const given = options();
  scene.state.before = (commands) => (makes(commands) ? Promise.reject(new RedisUnavailable('timeout')) : undefined);
  expect(await scene.query(given, async () => 'one')).toBe('one');
  scene.state.before = undefined;
  expect(await scene.query(given, async () => 'two')).toBe('two');
});

describe('a fill that comes after its tombstone has ended', () => {
  test.each([
    ['of a load', 'query'],
    ['of cacheUser', 'cacheUser'],
  ])('%s is refused by Redis', async (_, way) => {
    // A tombstone lives for a second here, and the fill is on its way for longer.
    const scene = cacheScene({ TOMBSTONE_SECONDS: '1', LOADER_DEADLINE_MS: '500' });
    const user = freshNamespace();
    const given = { namespace: freshNamespace(), args: 1, user, ttlSeconds: 60 };
    const key = await scene.run(async () => (way === 'query' ? CacheService.keyOf(given) : CacheService.userKey(user)));
    // Its tag versions are there; the entry is not.
    await scene.run(async () => {
      await CacheService.query(given, async () => 1);
      await CacheService.cacheUser(user, 1);
    });
    await scene.run(async ({ batch }) => batch.send('UNLINK', key.entryKey));
    scene.state.before = async (commands) => {
      if (!fills(commands)) return;
      await scene.run(async () => CacheService.invalidate({ keys: [key] }), scene.elsewhere);
      // The server's own clock ends the tombstone: there is no other to turn.
      await vi.waitFor(
        async () => expect(await scene.run(({ batch }) => batch.send('EXISTS', key.entryKey), scene.elsewhere)).toBe(0),
        { timeout: 60_000, interval: 50 },
      );
    };
    if (way === 'query') await scene.query(given, async () => 'old');
    else {
      await scene.run(async () => {
        await CacheService.getCachedUser(user);
        await CacheService.cacheUser(user, 'old');
      });
    }
    scene.state.before = undefined;
    expect(await scene.run(({ batch }) => batch.send('EXISTS', key.entryKey), scene.elsewhere)).toBe(0);
  });
});
