import { describe, expect, test, vi } from 'vitest';

import { DatabaseUnavailable } from '../../../src/db/client';
import type { RedisBatch } from '../../../src/redis/batch';
import { createBreaker } from '../../../src/redis/breaker';
import { RedisUnavailable } from '../../../src/redis/errors';
import { DATABASE_GONE_MS, look, probe } from '../../../src/services/probe';

/** An open breaker whose next probe is due, on a clock of the test's own. */
function scene() {
  const clock = { ms: 1_000_000 };
  const now = () => clock.ms;
  const breaker = createBreaker({
    windowMs: 10_000,
    minCalls: 1,
    failureRatio: 0.5,
    probeMs: 1_000,
    probeMaxMs: 30_000,
    now,
    random: () => 0.5,
  });
  breaker.record(false, breaker.ticket());
  const databaseGone = { sinceMs: undefined };
  /** One probe after another, each as soon as it is due, with these outcomes of the delivery. */
  const run = async (...outcomes: (Error | 'delivered')[]) => {
    for (const outcome of outcomes) {
      clock.ms += 2_000;
      const number = breaker.takeProbe();
      if (number === undefined) throw new Error('no probe was due');
      const batch = { send: async () => 'PONG' } as unknown as RedisBatch;
      const outbox = {
        deliverPending: async () => {
          if (outcome instanceof Error) throw outcome;
        },
      };
      await probe(number, { breaker, batch, outbox, databaseGone, now });
    }
    return breaker.state;
  };
  return { clock, run, breaker };
}

const away = new DatabaseUnavailable('no response in time');
const tries = (error: Error, count: number) => Array.from({ length: count }, () => error);

describe('a probe', () => {
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  vi.spyOn(console, 'info').mockImplementation(() => undefined);

  test('closes the breaker once everything is delivered', async () => {
    expect(await scene().run('delivered')).toBe('closed');
  });

  test.each([
    ['Redis refuses the delivery', new RedisUnavailable('state')],
    ['the database fails once', away],
  ])('leaves it open while %s', async (_, error) => {
    const { run } = scene();
    expect(await run(error)).toBe('open');
    expect(await run('delivered')).toBe('closed');
  });

  test('closes it undelivered only when the database has been away, at every probe, for as long as stated', async () => {
    const { run } = scene();
    const probes = DATABASE_GONE_MS / 2_000;
    expect(await run(...tries(away, probes))).toBe('open');
    expect(await run(away)).toBe('closed');
  });

  test('is due again as soon after any number that the database has failed', async () => {
    const { run } = scene();
    expect(await run(...tries(away, 5), 'delivered')).toBe('closed');
  });

  test('counts the database’s absence anew after each response of it', async () => {
    const { run } = scene();
    const probes = DATABASE_GONE_MS / 2_000;
    expect(await run(...tries(away, probes), new RedisUnavailable('state'), ...tries(away, probes))).toBe('open');
  });
});

describe('after failed calls that did not open the breaker', () => {
  test('one look is due once a call has succeeded, and another one when it fails', async () => {
    const clock = { ms: 0 };
    const breaker = createBreaker({
      windowMs: 10_000,
      minCalls: 10,
      failureRatio: 0.5,
      probeMs: 1_000,
      probeMaxMs: 1_000,
      now: () => clock.ms,
    });
    breaker.record(true, breaker.ticket());
    expect(breaker.takeLook()).toBe(false);
    breaker.record(false, breaker.ticket());
    expect(breaker.takeLook()).toBe(false);
    breaker.record(true, breaker.ticket());
    expect(breaker.takeLook()).toBe(true);
    expect(breaker.takeLook()).toBe(false);
    await look({ breaker, outbox: { deliverPending: () => Promise.reject(away) } });
    expect(breaker.takeLook()).toBe(false);
    clock.ms += 2_000;
    expect(breaker.takeLook()).toBe(true);
  });
});
