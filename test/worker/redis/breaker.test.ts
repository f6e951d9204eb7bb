import { expect, test } from 'vitest';

import { isRedisAvailable } from '../../../src/config/redis';
import { createBreaker } from '../../../src/redis/breaker';

function breakerAt() {
  const clock = { ms: 1_000_000 };
  const breaker = createBreaker({
    windowMs: 10_000,
    minCalls: 10,
    failureRatio: 0.5,
    probeMs: 1_000,
    probeMaxMs: 30_000,
    probeLostMs: 30_000,
    now: () => clock.ms,
    random: () => 0.5,
  });
  const record = (ok: boolean, times = 1) => {
    for (let i = 0; i < times; i += 1) breaker.record(ok, breaker.ticket());
  };
  return { clock, breaker, record };
}

test('opens at half of at least ten calls in ten seconds', () => {
  const { breaker, record } = breakerAt();
  record(true, 5);
  record(false, 4);
  expect(breaker.state).toBe('closed');
  record(false);
  expect(breaker.state).toBe('open');
  expect(isRedisAvailable()).toBe(false);
});

test('few calls, or old failures, do not open it', () => {
  const { breaker, record, clock } = breakerAt();
  record(false, 9);
  clock.ms += 10_001;
  record(true, 9);
  record(false, 5);
  expect(breaker.state).toBe('closed');
});

test('probes one at a time, backs off to the maximum, and closes', () => {
  const { breaker, record, clock } = breakerAt();
  record(false, 10);
  expect(breaker.claimProbe()).toBeUndefined();
  const waits: number[] = [];
  for (let probe = 0; probe < 7; probe += 1) {
    const startMs = clock.ms;
    let number = breaker.claimProbe();
    while (number === undefined) {
      clock.ms += 100;
      number = breaker.claimProbe();
    }
    expect(breaker.claimProbe()).toBeUndefined();
    waits.push(clock.ms - startMs);
    breaker.probed(number, false);
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  clock.ms += 30_000;
  const last = breaker.claimProbe();
  expect(last).toBeTypeOf('number');
  // One that was taken for lost reports in vain.
  breaker.probed(1, true);
  expect(breaker.state).toBe('half-open');
  breaker.probed(last ?? 0, true);
  expect(breaker.state).toBe('closed');
  expect(isRedisAvailable()).toBe(true);
});

test('a call that began before it closed says nothing any more', () => {
  const { breaker, record, clock } = breakerAt();
  const old = breaker.ticket();
  record(false, 10);
  clock.ms += 1_000;
  breaker.probed(breaker.claimProbe() ?? 0, true);
  for (let i = 0; i < 20; i += 1) breaker.record(false, old);
  expect(breaker.state).toBe('closed');
});

test('a probe whose request died is somebody else’s after a while', () => {
  const { breaker, record, clock } = breakerAt();
  record(false, 10);
  clock.ms += 1_000;
  expect(breaker.claimProbe()).toBeTypeOf('number');
  clock.ms += 29_000;
  expect(breaker.claimProbe()).toBeUndefined();
  clock.ms += 1_001;
  expect(breaker.claimProbe()).toBeTypeOf('number');
});
