import { expect, test } from 'vitest';

import { CacheService } from '../../../../src/services/cache.service';
import { TAG_VERSION_TTL_MS } from '../../../../src/services/cache/entry';
import { cacheRenew } from '../../../../src/redis/scripts/cacheRenew';
import { cacheScene, freshNamespace } from '../../support/cache';
import type { Scene } from '../../support/cache';

const DAY_MS = 86_400_000;

/** The keys that were renewed; a script's first run is sent twice. */
const renewals = ({ state }: Scene) => [
  ...new Set(
    state.sent.flat().flatMap(([name, script, , key]) => {
      const renews = name.startsWith('EVAL') && (script === cacheRenew.sha || script === cacheRenew.text);
      return renews ? [String(key)] : [];
    }),
  ),
];

const leftOf = (scene: Scene, key: string) =>
  scene.run(async ({ batch }) => Number(await batch.send('PTTL', key)), scene.elsewhere);

test('a tag version in use never expires: it is renewed after the response, once a day', async () => {
  const scene = cacheScene();
  const namespace = freshNamespace();
  const given = { namespace, args: 1, ttlSeconds: 30 * 86_400 };
  const read = () => scene.query(given, async () => 'value');
  const version = scene.isolate.keys.namespaceVersion(namespace);
  await read();
  await read();
  expect(renewals(scene)).toEqual([]);

  // Six of its seven days have gone.
  await scene.run(async ({ batch }) => batch.send('PEXPIRE', version, DAY_MS), scene.elsewhere);
  scene.clock.ms += 6 * DAY_MS;
  scene.state.sent = [];
  await read();
  expect(renewals(scene).sort()).toEqual([scene.isolate.keys.flushSentinel, version].sort());
  // Two trips: the read, and what is sent after the response (a script's first run may take one more).
  expect(scene.state.sent[0]!.map(([name]) => name)).toEqual(['MGET']);
  expect(await leftOf(scene, version)).toBeGreaterThan(TAG_VERSION_TTL_MS - 60_000);

  scene.state.sent = [];
  for (let round = 0; round < 5; round += 1) await read();
  expect(renewals(scene)).toEqual([]);
  scene.clock.ms += DAY_MS;
  await read();
  expect(renewals(scene)).toContain(version);
});

test('a version that is not the app’s is replaced, and nothing is served or filled by it', async () => {
  for (const foreign of ['', '0', '<html>', 'x'.repeat(200)]) {
    const scene = cacheScene();
    const namespace = freshNamespace();
    const given = { namespace, args: 1, ttlSeconds: 60 };
    const version = scene.isolate.keys.namespaceVersion(namespace);
    await scene.run(async ({ batch }) => batch.send('SET', version, foreign), scene.elsewhere);
    expect(await scene.query(given, async () => 'first')).toBe('first');
    expect(await scene.query(given, async () => 'second')).toBe('second');
    expect(await scene.query(given, async () => 'third')).toBe('second');
  }
});

test.each([
  ['numbers', [0, 0]],
  ['arrays', [[], []]],
  ['too few', [null]],
  ['too many', [null, null, null, null, null]],
])('an MGET that answers %s is no response: the loader is asked, and nothing is filled', async (_, garbage) => {
  const scene = cacheScene();
  const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 60 };
  await scene.query(given, async () => 'cached');
  scene.state.sent = [];
  scene.state.rewrite = (replies) => replies.map(() => ({ value: garbage }));
  const result = await scene.run(async () => CacheService.result(given, async () => 'loaded'));
  expect(result).toMatchObject({ value: 'loaded', from: 'bypass' });
  expect(scene.state.sent).toHaveLength(1);
  scene.state.rewrite = undefined;
  expect(await scene.query(given, async () => 'again')).toBe('cached');
});

test('a fill whose reply is garbage does not set the isolate’s idea of the server’s clock', async () => {
  for (const garbage of [0, 1, 5, -7, 9e15, '', '1', '<html>', [], null]) {
    const scene = cacheScene();
    const given = { namespace: freshNamespace(), args: 1, ttlSeconds: 60 };
    scene.state.rewrite = (replies) =>
      replies.map((reply, at) => (at === 0 && typeof reply.value === 'number' ? { value: garbage } : reply));
    await scene.query(given, async () => 'first');
    scene.state.rewrite = undefined;
    expect(Math.abs(scene.isolate.cacheMemory.serverTime(Date.now()) - Date.now())).toBeLessThan(60_000);
  }
});
