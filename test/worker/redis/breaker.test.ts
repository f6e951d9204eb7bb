import { expect, test, vi } from 'vitest';

import { isRedisAvailable } from '../../../src/config/redis';
import { WATCH_MS, createBreaker } from '../../../src/redis/breaker';

function breakerOf(create: typeof createBreaker) {
  const clock = { ms: 1_000_000 };
  const breaker = create({
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

const breakerAt = () => breakerOf(createBreaker);

test('before the first response nothing is known, whatever fails', async () => {
  // Modules of its own, as a new isolate has them: what is known of Redis is the isolate's.
  vi.resetModules();
  const { isRedisAvailable, redisAvailability } = await import('../../../src/config/redis');
  const fresh = await import('../../../src/redis/breaker');
  const breakerAt = () => breakerOf(fresh.createBreaker);
  const { record } = breakerAt();
  expect([redisAvailability(), isRedisAvailable()]).toEqual(['unknown', false]);
  record(false, 9);
  expect([redisAvailability(), isRedisAvailable()]).toEqual(['unknown', false]);
  record(true);
  expect([redisAvailability(), isRedisAvailable()]).toEqual(['up', true]);
  // One failure is no outage.
  breakerAt().record(false);
  expect([redisAvailability(), isRedisAvailable()]).toEqual(['up', true]);
  breakerAt().record(false, 10);
  expect([redisAvailability(), isRedisAvailable()]).toEqual(['down', false]);
});

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
  expect(breaker.takeProbe()).toBeUndefined();
  const waits: number[] = [];
  for (let probe = 0; probe < 7; probe += 1) {
    const startMs = clock.ms;
    let number = breaker.takeProbe();
    while (number === undefined) {
      clock.ms += 100;
      number = breaker.takeProbe();
    }
    expect(breaker.takeProbe()).toBeUndefined();
    waits.push(clock.ms - startMs);
    breaker.probed(number, 'away');
  }
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  clock.ms += 30_000;
  const last = breaker.takeProbe();
  expect(last).toBeTypeOf('number');
  // One that was taken for lost reports in vain.
  breaker.probed(1, 'back');
  expect(breaker.state).toBe('half-open');
  breaker.probed(last ?? 0, 'back');
  expect(breaker.state).toBe('closed');
  expect(isRedisAvailable()).toBe(true);
});

test('a call that began before it closed says nothing any more', () => {
  const { breaker, record, clock } = breakerAt();
  const old = breaker.ticket();
  record(false, 10);
  clock.ms += 1_000;
  breaker.probed(breaker.takeProbe() ?? 0, 'back');
  for (let i = 0; i < 20; i += 1) breaker.record(false, old);
  expect(breaker.state).toBe('closed');
});

test('a probe whose request died is left to another request after a while', () => {
  const { breaker, record, clock } = breakerAt();
  record(false, 10);
  clock.ms += 1_000;
  expect(breaker.takeProbe()).toBeTypeOf('number');
  clock.ms += 29_000;
  expect(breaker.takeProbe()).toBeUndefined();
  clock.ms += 1_001;
  expect(breaker.takeProbe()).toBeTypeOf('number');
});

const isOpen = ({ state }: { readonly state: string }) => state === 'open';

/** Lives through a time in which every probe succeeds. @returns when the breaker opened */
function openings(forMs: number, call: (breaker: ReturnType<typeof createBreaker>) => void): number[] {
  const { breaker, clock } = breakerAt();
  const startMs = clock.ms;
  const opened: number[] = [];
  for (; clock.ms < startMs + forMs; clock.ms += 50) {
    const probe = breaker.takeProbe();
    if (probe !== undefined) breaker.probed(probe, 'back');
    if (breaker.state !== 'closed') continue;
    call(breaker);
    if (isOpen(breaker)) opened.push(clock.ms - startMs);
  }
  return opened;
}

test('a server that answers probes alone is tried ever more rarely', () => {
  const opened = openings(300_000, (breaker) => breaker.record(false, breaker.ticket()));
  const waits = opened.slice(1).map((ms, index) => ms - (opened[index] ?? 0));
  // Half a second of failing calls (ten, 50 ms apart) after waits of 1, 2, 4, 8, 16 and then 30 s.
  expect(waits.slice(0, 8)).toEqual([1_450, 2_450, 4_450, 8_450, 16_450, 30_450, 30_450, 30_450]);
  expect(opened.length).toBeLessThan(16);
});

test('successes among the failures do not make it flap: it takes ten of them before it opens again', () => {
  let calls = 0;
  const opened = openings(300_000, (breaker) => breaker.record((calls += 1) % 3 === 0, breaker.ticket()));
  expect(opened.length).toBeLessThan(16);
});

test('ten successes after a probe make the next wait short again', () => {
  const { breaker, clock, record } = breakerAt();
  const close = () => {
    const startMs = clock.ms;
    for (let probe = breaker.takeProbe(); ; probe = breaker.takeProbe()) {
      if (probe !== undefined) {
        breaker.probed(probe, 'back');
        return clock.ms - startMs;
      }
      clock.ms += 100;
    }
  };
  record(false, 10);
  expect(close()).toBe(1_000);
  record(false, 10);
  expect(close()).toBe(2_000);
  record(true, 9);
  record(false, 10);
  expect(close()).toBe(4_000);
  record(true, 10);
  record(false, 10);
  expect(close()).toBe(1_000);
});

/** Fails probes until the wait is the longest. */
function backedOff() {
  const made = breakerAt();
  const { clock, breaker, record } = made;
  record(false, 10);
  for (let probe = 0; probe < 6; probe += 1) {
    clock.ms += 30_000;
    breaker.probed(breaker.takeProbe()!, 'away');
  }
  expect(breaker.takeProbe()).toBeUndefined();
  return made;
}

test('while a change of this isolate is not delivered to Redis, probes are 4 s apart, whatever came before', () => {
  const { clock, breaker } = backedOff();
  clock.ms += 5_000;
  expect(breaker.takeProbe()).toBeUndefined();
  breaker.owe();
  for (let probe = 0; probe < 3; probe += 1) {
    clock.ms += 3_999;
    expect(breaker.takeProbe()).toBeUndefined();
    clock.ms += 1;
    breaker.probed(breaker.takeProbe()!, 'away');
  }
  clock.ms += 4_000;
  breaker.probed(breaker.takeProbe()!, 'back');
  expect(breaker.state).toBe('closed');
  expect(breaker.takeWatch()).toBe(false);
});

test('a probe that Redis answered, but whose database did not, leaves the wait before the next one short', () => {
  const { clock, breaker } = backedOff();
  clock.ms += 37_500;
  for (let probe = 0; probe < 3; probe += 1) {
    breaker.probed(breaker.takeProbe()!, 'unchecked');
    clock.ms += 3_999;
    expect(breaker.takeProbe()).toBeUndefined();
    clock.ms += 1;
  }
  breaker.probed(breaker.takeProbe()!, 'away');
  clock.ms += 4_000;
  expect(breaker.takeProbe()).toBeUndefined();
});

test('one request at a time waits for the next probe, and only while something is owed', () => {
  const { clock, breaker } = backedOff();
  expect(breaker.takeWatch()).toBe(false);
  breaker.owe();
  expect([breaker.takeWatch(), breaker.takeWatch()]).toEqual([true, false]);
  // Its request may have died.
  clock.ms += WATCH_MS;
  expect(breaker.takeWatch()).toBe(true);
});
