import { expect, test } from 'vitest';

import { OverrideMemory } from '../../../../src/services/rateLimit/overrides';

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
