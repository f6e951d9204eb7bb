import { afterAll, beforeAll, expect, test } from 'vitest';

import { startScene, until } from './scene.ts';
import type { Scene } from './scene.ts';

let scene: Scene;
beforeAll(async () => {
  scene = await startScene({ BREAKER_PROBE_MS: '50', BREAKER_PROBE_MAX_MS: '100' });
});
afterAll(() => scene[Symbol.asyncDispose]());

const health = async () => (await scene.call('GET', '/health')).body as object;
const UNKNOWN = { status: 'ok', redis: 'unknown', redisAvailable: false, redisShardsOut: 0 };
const DOWN = { status: 'ok', redis: 'down', redisAvailable: false, redisShardsOut: 0 };
const UP = { status: 'ok', redis: 'up', redisAvailable: true, redisShardsOut: 0 };
const signIn = () =>
  scene.call('POST', '/v1/auth/login', { body: { email: 'nobody@example.com', password: 'wrong horse battery' } });

test('/health says `unknown` of a Redis that has never responded, and shows when it goes and comes', async () => {
  const { redis } = scene;
  redis.mode = { kind: 'refuse' };
  expect(await health()).toEqual(UNKNOWN);
  // One failed call is no outage, and no response either.
  await scene.call('GET', '/ready');
  expect(await health()).toEqual(UNKNOWN);
  await until('the breaker opens', async () => {
    await signIn();
    return ((await health()) as { redis: string }).redis !== 'unknown';
  });
  expect(await health()).toEqual(DOWN);
  await redis.clear();
  await until('a probe has closed it', async () => ((await health()) as { redis: string }).redis !== 'down');
  expect(await health()).toEqual(UP);
});

test('the first response is enough', async () => {
  await using fresh = await startScene();
  expect((await fresh.call('GET', '/health')).body).toEqual(UNKNOWN);
  await fresh.call('GET', '/ready');
  expect((await fresh.call('GET', '/health')).body).toEqual(UP);
});
