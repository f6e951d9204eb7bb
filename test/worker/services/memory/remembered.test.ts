import { expect, test } from 'vitest';

import { Leases } from '../../../../src/services/rateLimit/leases';
import { slidingWindow } from '../../../../src/services/rateLimit/limits';
import { Refresher } from '../../../../src/services/memory/refresher';
import { Remembered, isWithin } from '../../../../src/services/memory/remembered';

test('memory is bounded by count and by size, and forgets the least recently used first', () => {
  const memory = new Remembered<string>({ maxEntries: 3, maxBytes: 20_000 });
  for (const name of ['a', 'b', 'c']) memory.set(name, name, 1, 1);
  memory.get('a');
  memory.set('d', 'd', 1, 1);
  expect(['a', 'b', 'c', 'd'].filter((name) => memory.get(name) !== undefined)).toEqual(['a', 'c', 'd']);
  for (let i = 0; i < 1_000; i += 1) {
    memory.set(`k${i}`, 'x', 1, i);
    expect(memory.size).toBeLessThanOrEqual(3);
    expect(memory.bytes).toBeLessThanOrEqual(20_000);
  }
  // One value must not push out all others.
  memory.set('huge', 'x', 1, 10_000);
  expect(memory.get('huge')).toBeUndefined();
  for (const name of Array.from({ length: 1_000 }, (_, i) => `k${i}`)) memory.delete(name);
  expect([memory.size, memory.bytes]).toEqual([0, 0]);
});

test('a reply to an older question does not replace a newer one', () => {
  const memory = new Remembered<string>({ maxEntries: 3, maxBytes: 20_000 });
  memory.set('a', 'new', 5, 1);
  memory.set('a', 'old', 4, 1);
  expect(memory.get('a')).toMatchObject({ value: 'new', askedAtMs: 5 });
});

test('the bound counts from when the question was sent, and a clock that was set back ends it', () => {
  expect([0, 999, 1_000, -1].map((ageMs) => isWithin(5_000 - ageMs, 1_000, 5_000))).toEqual([true, true, false, false]);
});

test('one pipeline is under way at a time; one whose request has died is replaced', async () => {
  const refresher = new Refresher(3_000);
  const question = async () => undefined;
  refresher.note('a', question);
  refresher.note('a', question);
  expect(refresher.take(1_000)).toHaveLength(1);
  const ended = refresher.begin(1_000);
  refresher.note('b', question);
  expect(refresher.take(3_999)).toEqual([]);
  expect(refresher.take(4_000)).toHaveLength(1);
  const endedLater = refresher.begin(4_000);
  // The first one comes back after all: the second is still under way.
  ended();
  refresher.note('c', question);
  expect(refresher.take(4_001)).toEqual([]);
  endedLater();
  expect(refresher.take(4_001)).toHaveLength(1);
  for (let i = 0; i < 20_000; i += 1) refresher.note(`q${i}`, question);
  expect(refresher.size).toBe(5_000);
  expect(refresher.take(5_000)).toHaveLength(200);
});

test('leases are bounded by count, and units of a caller who is forgotten go back', () => {
  const leases = new Leases();
  const limits = [slidingWindow(100, 60_000)];
  for (let i = 0; i < 10_050; i += 1) {
    const units = leases.want(`k${i}`, limits, { own: 1, lifeMs: 1_000, nowMs: 1_000 });
    expect(units).toBe(9);
    leases.grant(
      `k${i}`,
      limits,
      { id: `id${i}`, askedAtMs: 1_000, endsAtMs: 2_000, recordedAtMs: 2_000, states: [], left: units },
      1_000,
    );
  }
  expect(leases.size).toBe(10_000);
  expect(leases.returns.size).toBe(50);
  expect(leases.find('k49', limits, { units: 1, withinMs: 1_000, nowMs: 1_500 })).toBeUndefined();
  expect(leases.find('k50', limits, { units: 1, withinMs: 1_000, nowMs: 1_500 })).toMatchObject({ id: 'id50' });
  leases.sweep(2_000);
  expect(leases.returns.size).toBe(5_000);
});
