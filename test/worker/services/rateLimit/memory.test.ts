import { expect, test } from 'vitest';

import { slidingWindow } from '../../../../src/services/rateLimit.service';
import { LocalLimiter } from '../../../../src/services/rateLimit/local';
import type { LocalDemand } from '../../../../src/services/rateLimit/local';
import { Reports } from '../../../../src/services/rateLimit/reports';
import { randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';

const START_MS = 1_800_000_000_000;
const WINDOW_MS = 900_000;

const demand = (key: string, limit = 5): LocalDemand => ({
  key,
  policy: 'p',
  limits: [slidingWindow(limit, WINDOW_MS)],
  cost: 1,
});

const admits = (local: LocalLimiter, of: LocalDemand, nowMs: number) =>
  local.consume([of], nowMs)[0]!.every(({ admitted }) => admitted);

test('a flood of other keys lifts no limit, and the memory stays bounded', () => {
  const local = new LocalLimiter({ maxCounters: 500 });
  const random = randomOf(23);
  const victims = Array.from({ length: 20 }, (_, index) => `victim-${index}`);
  const spent = new Map<string, Spent[]>(victims.map((key) => [key, []]));
  let nowMs = START_MS;
  for (let second = 0; second < 3_000; second += 1, nowMs += 1_000) {
    for (let i = 0; i < 20; i += 1) admits(local, demand(`junk-${second}-${i}`), nowMs);
    const key = victims[random(victims.length)]!;
    if (admits(local, demand(key), nowMs)) spent.get(key)!.push({ atMs: nowMs, units: 1 });
  }
  const worst = [...spent.values()].map((times) => worstWindow(times, WINDOW_MS));
  expect(Math.max(...worst)).toBe(5);
  expect(local.size).toBeLessThanOrEqual(500 + 64);
});

test('when it is full, new identities share: each shared counter admits the limit once', () => {
  const local = new LocalLimiter({ maxCounters: 100 });
  for (let i = 0; i < 100; i += 1) expect(admits(local, demand(`known-${i}`), START_MS)).toBe(true);
  let admitted = 0;
  for (let i = 0; i < 10_000; i += 1) if (admits(local, demand(`new-${i}`), START_MS)) admitted += 1;
  expect(admitted).toBe(64 * 5);
  // Those that were there before have what they had.
  for (let i = 0; i < 100; i += 1) expect(admits(local, demand(`known-${i}`), START_MS)).toBe(true);
  // Policies do not share with each other, nor limits of other numbers.
  expect(admits(local, { ...demand('new-0'), policy: 'another' }, START_MS)).toBe(true);
  expect(admits(local, demand('new-0', 50), START_MS)).toBe(true);
  // Once there is room again, each has a counter of its own.
  expect(admits(local, demand('new-1'), START_MS + WINDOW_MS)).toBe(true);
  expect(local.verdicts(demand('new-1'), START_MS + WINDOW_MS)).toMatchObject([{ remaining: 4 }]);
});

test('two limits of one counter with different windows each count only their own limiter, within one request', () => {
  const local = new LocalLimiter();
  const [second, hour] = [1_000, 3_600_000].map((windowMs): LocalDemand => ({
    key: 'k',
    policy: 'p',
    limits: [slidingWindow(1, windowMs)],
    cost: 1,
  })) as [LocalDemand, LocalDemand];
  expect(local.consume([second, hour], START_MS).flat()).toMatchObject([{ admitted: true }, { admitted: true }]);
  expect(local.consume([second, hour], START_MS + 1_000).flat()).toMatchObject([
    { admitted: true },
    { admitted: false, waitMs: 3_599_000 },
  ]);
  // Two limiters with one window share it.
  expect(local.consume([second, second], START_MS + 5_000_000).flat()).toMatchObject([
    { admitted: true },
    { admitted: false, waitMs: Infinity },
  ]);
});

test('an identity that gets its own counter keeps the units that it has spent of a shared one', () => {
  const local = new LocalLimiter({ maxCounters: 1 });
  admits(local, demand('first'), START_MS);
  for (let i = 0; i < 5; i += 1) expect(admits(local, demand('second'), START_MS + 10)).toBe(true);
  // The first has left its window, and its place is free.
  const laterMs = START_MS + WINDOW_MS;
  expect(admits(local, demand('second'), laterMs)).toBe(false);
  expect(admits(local, demand('second'), laterMs + 10)).toBe(true);
});

test('counts that Redis has as well may be forgotten: the least used first', () => {
  const local = new LocalLimiter({ maxCounters: 10 });
  for (let i = 0; i < 10; i += 1)
    local.mirror({ ...demand(`known-${i}`), cost: i === 3 ? 5 : 1 }, START_MS, { counterAtMs: START_MS });
  for (let i = 0; i < 1_000; i += 1) local.mirror(demand(`new-${i}`), START_MS, { counterAtMs: START_MS });
  expect(local.verdicts(demand('known-3'), START_MS)).toMatchObject([{ admitted: false }]);
  expect(local.size).toBe(10);
});

test('a unit that Redis has admitted leaves the window here no later than there, however late its reply was', () => {
  for (const algorithm of ['sliding-window', 'token-bucket'] as const) {
    const local = new LocalLimiter();
    const one: LocalDemand = { ...demand('caller'), limits: [{ algorithm, maxRequests: 2, windowMs: 1_000 }] };
    local.mirror(one, START_MS - 5_000, { counterAtMs: START_MS - 5_000 });
    // Two were asked at once. Each looks at the counter when its reply arrives, and is noted then.
    for (const arrivedMs of [START_MS + 40, START_MS + 60]) {
      expect(local.contradiction(one, arrivedMs)).toBeUndefined();
      local.mirror(one, START_MS, { counterAtMs: START_MS }, arrivedMs);
    }
    expect(local.contradiction(one, START_MS + 400)).toMatchObject([{ admitted: false }]);
    expect(local.contradiction({ ...one, cost: 2 }, START_MS + 1_000)).toBeUndefined();
  }
});

test('counts that Redis does not have are not forgotten to make room for those that it has', () => {
  const local = new LocalLimiter({ maxCounters: 10 });
  for (let i = 0; i < 5; i += 1) for (let n = 0; n < 2; n += 1) admits(local, demand(`own-${i}`), START_MS);
  for (let i = 0; i < 1_000; i += 1)
    local.mirror({ ...demand(`known-${i}`), cost: 5 }, START_MS, { counterAtMs: START_MS });
  for (let i = 0; i < 5; i += 1) {
    expect(local.verdicts(demand(`own-${i}`), START_MS)).toMatchObject([{ remaining: 3 }]);
  }
});

test('reports are bounded, and never have more than was spent, nor an earlier time', () => {
  const reports = new Reports();
  const limits = [slidingWindow(1_000_000, WINDOW_MS)];
  for (let i = 0; i < 20_000; i += 1) {
    reports.add('k', limits, { id: String(i), units: 1, atMs: START_MS + i, sent: false });
  }
  const report = reports.takeOf('k')!;
  expect(report.items.length).toBeLessThanOrEqual(512);
  expect(report.items.reduce((sum, { units }) => sum + units, 0)).toBe(20_000);
  let before = 0;
  for (const { atMs, units } of report.items) {
    before += units;
    expect(atMs).toBeGreaterThanOrEqual(START_MS + before - 1);
  }
  for (let i = 0; i < 20_000; i += 1) {
    reports.add(`k${i}`, limits, { id: 'x', units: 1, atMs: START_MS, sent: false });
  }
  expect(reports.size).toBe(10_000);
});
