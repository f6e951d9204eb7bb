import { describe, expect, test } from 'vitest';

import { slidingWindow } from '../../../src/redis/scripts/slidingWindow';
import { RateLimitService, exactRatelimit } from '../../../src/services/rateLimit.service';
import { LocalLimiter } from '../../../src/services/rateLimit/local';
import { admits, advance, waitMs } from '../../../src/services/rateLimit/window';
import type { WindowState } from '../../../src/services/rateLimit/window';
import { inRequest, isolateFor } from '../support/request';

/** mulberry32: the same schedule on every run. */
function randomOf(seed: number) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

describe('the exact wait', () => {
  test('always admits, and one millisecond earlier never does', () => {
    const random = randomOf(7);
    let waited = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const windowMs = 1 + Math.floor(random() * 5_000);
      const maxRequests = 1 + Math.floor(random() * 50);
      const limit = { windowMs, maxRequests };
      const state: WindowState = {
        index: 1_000,
        current: Math.floor(random() * (maxRequests + 1)),
        previous: Math.floor(random() * (maxRequests + 1)),
        elapsedMs: Math.floor(random() * windowMs),
      };
      const cost = 1 + Math.floor(random() * maxRequests);
      const wait = waitMs(state, limit, cost);
      const nowMs = state.index * windowMs + state.elapsedMs;
      expect(admits(advance(state, nowMs + wait, windowMs), limit, cost)).toBe(true);
      if (wait === 0) continue;
      waited += 1;
      expect(admits(advance(state, nowMs + wait - 1, windowMs), limit, cost)).toBe(false);
    }
    expect(waited).toBeGreaterThan(1_000);
  });

  test('is infinite for what never fits', () => {
    const state = { index: 1, current: 0, previous: 0, elapsedMs: 0 };
    expect(waitMs(state, { maxRequests: 3, windowMs: 1_000 }, 4)).toBe(Infinity);
  });
});

test('the script and the local limiter agree on every step', async () => {
  const random = randomOf(42);
  const local = new LocalLimiter();
  const limit = { windowMs: 1_000, maxRequests: 7 };
  await inRequest(async ({ batch }) => {
    batch.setDeadline(60_000);
    let nowMs = 1_800_000_000_000;
    let refused = 0;
    for (let step = 0; step < 600; step += 1) {
      // Now and then a clock lags behind the one that wrote.
      nowMs += Math.floor(random() * 260) - (random() < 0.1 ? 300 : 0);
      const cost = 1 + Math.floor(random() * 3);
      const mine = local.consume('k', limit, cost, nowMs);
      const theirs = await batch.run(slidingWindow, ['agree:{k}'], [nowMs, limit.windowMs, limit.maxRequests, cost]);
      const { current, previous, elapsedMs, index } = mine.state;
      expect(theirs, `step ${step}`).toEqual([mine.allowed ? 1 : 0, current, previous, elapsedMs, index]);
      if (!mine.allowed) refused += 1;
    }
    expect(refused).toBeGreaterThan(50);
  });
});

test('of 200 at once exactly 100 are admitted, and the refused consume nothing', async () => {
  const isolate = isolateFor();
  await inRequest(
    async () => {
      const policy = { name: 'burst', maxRequests: 100, windowMs: 60_000_000 };
      const decisions = await Promise.all(
        Array.from({ length: 200 }, () => RateLimitService.consume({ policy, identity: 'everybody' })),
      );
      expect(decisions.filter(({ allowed }) => allowed)).toHaveLength(100);
      const refused = decisions.find((decision) => !decision.allowed);
      expect(refused).toMatchObject({ allowed: false, reason: 'limit', source: 'redis' });
      expect(RateLimitService.blockedMs(policy, 'everybody')).toBeGreaterThan(0);
      await RateLimitService.reset(policy, 'everybody');
      expect(await RateLimitService.peek(policy, 'everybody')).toMatchObject({ remaining: 100 });
    },
    { isolate },
  );
});

test('a refund gives back in the window of the charge, and never goes below zero', async () => {
  const policy = { name: 'refund', maxRequests: 3, windowMs: 60_000_000 };
  const identity = 'one';
  const isolate = isolateFor();
  await inRequest(
    async () => {
      const decision = await RateLimitService.consume({ policy, identity });
      if (!decision.allowed) throw new Error('refused');
      decision.refund();
      decision.refund();
    },
    { isolate },
  );
  await inRequest(async () => expect(await RateLimitService.peek(policy, identity)).toMatchObject({ remaining: 3 }), {
    isolate,
  });
});

test('garbage under the key is no decision: the local limiter makes one', async () => {
  const isolate = isolateFor();
  const policy = { name: 'garbage', maxRequests: 2, windowMs: 60_000_000 };
  await inRequest(
    async ({ batch, degraded }) => {
      await batch.send('LPUSH', isolate.keys.rateLimit('garbage', 'x'), 'not a window');
      await batch.send('EXPIRE', isolate.keys.rateLimit('garbage', 'x'), 60);
      const sources = [];
      for (let i = 0; i < 3; i += 1) sources.push(await RateLimitService.consume({ policy, identity: 'x' }));
      expect(sources.map((d) => d.allowed)).toEqual([true, true, false]);
      expect([...degraded]).toEqual(['limiter=local']);
    },
    { isolate },
  );
});

test('@upstash/ratelimit’s wrapper decides by the same counters', async () => {
  const policy = { name: 'wrapped', maxRequests: 2, windowMs: 60_000_000 };
  await inRequest(async () => {
    const ratelimit = exactRatelimit(policy);
    expect(await ratelimit.limit('caller')).toMatchObject({ success: true, limit: 2, remaining: 1 });
    await RateLimitService.consume({ policy, identity: 'caller' });
    const refused = await ratelimit.limit('caller');
    expect(refused.success).toBe(false);
    expect(refused.reset).toBeGreaterThan(Date.now());
    await ratelimit.resetUsedTokens('caller');
    expect(await ratelimit.getRemaining('caller')).toMatchObject({ remaining: 2 });
  });
});
