import { expect, test } from 'vitest';

import { Leases, keptUnits, leaseMs } from '../../../../src/services/rateLimit/leases';
import { slidingWindow } from '../../../../src/services/rateLimit.service';

const WINDOW_MS = 60_000;

test.each([
  // Below 10 a tenth is less than one unit.
  [9, 0],
  [10, 1],
  [50, 5],
  [99, 9],
  // From 100 on what a caller is expected to need at first.
  [100, 10],
  [1_000_000, 10],
])('the first lease of a limit of %d holds %d units', (limit, units) => {
  const leases = new Leases();
  expect(leases.want('key', [slidingWindow(limit, WINDOW_MS)], { own: 0, lifeMs: 1_000, nowMs: 0 })).toBe(units);
});

test('a lease follows what was used, at most doubles, and ends at 1,000 units', () => {
  const leases = new Leases();
  const limits = [slidingWindow(10_000_000, WINDOW_MS)];
  const wanted: number[] = [];
  for (let nowMs = 0; nowMs < 12_000; nowMs += 1_000) {
    wanted.push(leases.want('key', limits, { own: 0, lifeMs: 1_000, nowMs }));
    const lease = {
      id: String(nowMs),
      askedAtMs: nowMs,
      endsAtMs: nowMs + 1_000,
      recordedAtMs: nowMs + 1_000,
      states: [{ remaining: 10_000_000, resetAtMs: 0 }],
      left: 100_000,
    };
    leases.grant('key', limits, lease, nowMs);
    // More than it may ever lease.
    leases.spend('key', limits, lease, 100_000);
  }
  expect(wanted).toEqual([10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000, 1_000, 1_000]);
});

test('the last quarter of a limit is not leased', () => {
  expect(keptUnits(slidingWindow(100, WINDOW_MS))).toBe(25);
});

test('a lease lasts as long as it may be used, and at most a tenth of the shortest window', () => {
  expect(leaseMs([slidingWindow(100, WINDOW_MS)], 1_000)).toBe(1_000);
  expect(leaseMs([slidingWindow(100, WINDOW_MS), slidingWindow(10, 5_000)], 1_000)).toBe(500);
  expect(leaseMs([{ ...slidingWindow(100, WINDOW_MS), algorithm: 'token-bucket' }], 1_000)).toBe(0);
});
