import { expect, test } from 'vitest';

import { CacheService } from '../../../../src/services/cache.service';
import { cacheScene, freshNamespace } from '../../support/cache';

test('a user who was invalidated since a getCachedUser that Redis did not answer is not stored', async () => {
  const scene = cacheScene();
  const user = freshNamespace();
  await scene.run(async () => {
    scene.state.down = true;
    expect(await CacheService.getCachedUser(user)).toBeNull();
    scene.state.down = false;
    await scene.run(async () => CacheService.invalidateUser(user), scene.elsewhere);
    // Long enough for the request to ask Redis again.
    scene.clock.ms += 2_000;
    expect(await CacheService.cacheUser(user, 'old')).toBe(false);
  });
  expect(await scene.run(async () => CacheService.getCachedUser(user), scene.elsewhere)).toBeNull();
});

test('nor one who was invalidated since a getCachedUser that found none', async () => {
  const scene = cacheScene();
  const user = freshNamespace();
  await scene.run(async () => CacheService.user(user, 60, async ({ notFound }) => notFound()));
  await scene.run(async () => {
    expect(await CacheService.getCachedUser(user)).toBeNull();
    await scene.run(async () => CacheService.invalidateUser(user), scene.elsewhere);
    scene.clock.ms += 2_000;
    await CacheService.cacheUser(user, 'old');
  });
  expect(await scene.run(async () => CacheService.getCachedUser(user), scene.elsewhere)).toBeNull();
});

test('one whom this request has invalidated since is stored once it was asked for anew', async () => {
  const scene = cacheScene();
  const user = freshNamespace();
  await scene.run(async () => {
    expect(await CacheService.getCachedUser(user)).toBeNull();
    await CacheService.invalidate({ tags: ['another'] });
    expect(await CacheService.cacheUser(user, 'first')).toBe(true);
    scene.clock.ms += 700_000;
    expect(await CacheService.getCachedUser(user)).toBeNull();
    await CacheService.invalidateUser(user);
    expect(await CacheService.cacheUser(user, 'old')).toBe(false);
    await CacheService.invalidateUser(user);
    expect(await CacheService.getCachedUser(user)).toBeNull();
    expect(await CacheService.cacheUser(user, 'new')).toBe(true);
  });
  expect(await scene.run(async () => CacheService.getCachedUser(user), scene.elsewhere)).toBe('new');
});

test('a user of whom nothing was known is stored', async () => {
  const scene = cacheScene();
  const user = freshNamespace();
  await scene.run(async () => CacheService.user(user, 60, async ({ notFound }) => notFound()));
  await scene.run(async () => {
    expect(await CacheService.getCachedUser(user)).toBeNull();
    expect(await CacheService.cacheUser(user, 'Ada')).toBe(true);
  });
  expect(await scene.run(async () => CacheService.getCachedUser(user))).toBe('Ada');
});

test('an entry with something else behind its value is a miss', async () => {
  const scene = cacheScene();
  const user = freshNamespace();
  await scene.run(async ({ batch }) => {
    await CacheService.cacheUser(user, { name: 'Ada' });
    await batch.send('APPEND', CacheService.userKey(user).entryKey, 'garbage');
  });
  expect(await scene.run(async () => CacheService.getCachedUser(user))).toBeNull();
});
