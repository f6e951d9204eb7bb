import { Hono } from 'hono';
import { expect, test } from 'vitest';

import { rateLimiter } from '../../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../../src/middlewares/services.middleware';
import type { RedisClient } from '../../../../src/redis/client';
import { RateLimitService, slidingWindow } from '../../../../src/services/rateLimit.service';
import { OverrideMemory } from '../../../../src/services/rateLimit/overrides';
import { clockedClient } from '../../support/limits';
import { bindings, callerOf, inRequest, isolateFor } from '../../support/request';

test('of many requests that find no copy in Redis one a second reads D1, whether D1 replies or not', () => {
  const memory = new OverrideMemory();
  const nowMs = 1_800_000_000_000;
  const turns = (atMs: number) => Array.from({ length: 50 }, () => memory.takeTurn(atMs)).filter(Boolean).length;
  expect([0, 1, 999, 1_000, 1_500, 2_000].map((ms) => turns(nowMs + ms))).toEqual([1, 0, 0, 1, 0, 1]);
  // A clock that was set back ends the pause.
  expect(turns(nowMs - 10_000)).toBe(1);
});

test('limits of a policy are the same array until they change', () => {
  const memory = new OverrideMemory();
  const windows = (maxRequests: number) => [{ maxRequests, windowMs: 60_000 }];
  memory.learn({ version: 1, policies: { api: windows(5) } }, 0);
  const first = memory.limits('api', 'sliding-window');
  memory.learn({ version: 2, policies: { api: windows(5), login: windows(2) } }, 1);
  expect(memory.limits('api', 'sliding-window')).toBe(first);
  memory.learn({ version: 3, policies: { api: windows(6) } }, 2);
  expect(memory.limits('api', 'sliding-window')).toEqual([{ algorithm: 'sliding-window', ...windows(6)[0] }]);
  expect(memory.limits('login', 'sliding-window')).toBeUndefined();
});

test('a charge that goes back because of an override leaves the charges of other requests where they are', async () => {
  let nowMs = 1_800_000_000_000;
  const name = `overridden-${Math.random()}`;
  const policy = { name, limits: [slidingWindow(2, 1_000)] };
  const bound = bindings({ LIMIT_OVERRIDES_SECONDS: '20' });
  const redis = clockedClient(() => nowMs);
  const other = isolateFor(bound, { client: redis, now: () => nowMs });
  const consume = () =>
    inRequest(() => RateLimitService.consume({ policy, identity: 'address:203.0.113.9' }), {
      isolate: other,
      now: () => nowMs,
    });
  const spentMs: number[] = [];
  let isFirst = true;
  const client: RedisClient = {
    async execute(commands) {
      const replies = await redis.execute(commands);
      if (!isFirst) return replies;
      isFirst = false;
      // The reply names other numbers. Before the request is decided by them, another isolate's request is admitted.
      nowMs += 5;
      expect((await consume()).allowed).toBe(true);
      spentMs.push(nowMs);
      nowMs += 5;
      const table = { version: 1, policies: { [name]: [{ maxRequests: 2, windowMs: 1_000 }] } };
      return replies.map((reply, index) =>
        commands[index]?.[0] === 'HGET' ? { value: JSON.stringify(table) } : reply,
      );
    },
  };
  const isolate = isolateFor(bound, { client, now: () => nowMs });
  const app = new Hono<AppEnv>().use(services({ isolate, now: () => nowMs }));
  app.get('/', rateLimiter({ name, windowMs: 1_000, maxRequests: 50 }), (c) => c.text('in'));
  expect((await callerOf(app, bound)('GET', '/')).status).toBe(200);
  spentMs.push(nowMs);
  // One window after the charge that went back, the two that stand are younger than a window.
  nowMs = 1_800_000_000_000 + 1_000;
  expect(await consume()).toMatchObject({ allowed: false, retryAfterMs: 5 });
  nowMs += 5;
  expect((await consume()).allowed).toBe(true);
  expect(nowMs - spentMs[0]!).toBe(1_000);
});
