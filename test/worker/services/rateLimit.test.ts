import { describe, expect, test } from 'vitest';

import { rateLimit } from '../../../src/redis/scripts/rateLimit';
import type { RedisClient } from '../../../src/redis/client';
import { createRedisClient } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { configOf } from '../../../src/config/env';
import { RateLimitService, slidingWindow } from '../../../src/services/rateLimit.service';
import { exactRatelimit } from '../../../src/services/rateLimit/upstash';
import type { Limit } from '../../../src/services/rateLimit.service';
import { LocalLimiter } from '../../../src/services/rateLimit/local';
import { admits, advance, consumed, waitMs } from '../../../src/services/rateLimit/limits';
import type { LimitState } from '../../../src/services/rateLimit/limits';
import { bindings, inRequest, isolateFor } from '../support/request';

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

const ALGORITHMS = ['sliding-window', 'token-bucket'] as const;

describe.each(ALGORITHMS)('%s', (algorithm) => {
  test('the exact wait always admits, and one millisecond earlier never does', () => {
    const random = randomOf(7);
    let waited = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const windowMs = 1 + Math.floor(random() * 5_000);
      const maxRequests = 1 + Math.floor(random() * 50);
      const limit: Limit = { algorithm, windowMs, maxRequests };
      const elapsedMs = Math.floor(random() * windowMs);
      const state: LimitState =
        algorithm === 'sliding-window'
          ? {
              a: 1_000,
              b: Math.floor(random() * (maxRequests + 1)),
              c: Math.floor(random() * (maxRequests + 1)),
              elapsedMs,
            }
          : { a: 1_000 * windowMs, b: Math.floor(random() * (maxRequests * windowMs + 1)), c: 0, elapsedMs: 0 };
      const cost = 1 + Math.floor(random() * maxRequests);
      const wait = waitMs(limit, state, cost);
      const nowMs = 1_000 * windowMs + state.elapsedMs;
      expect(admits(limit, advance(limit, state, nowMs + wait), cost)).toBe(true);
      if (wait === 0) continue;
      waited += 1;
      expect(admits(limit, advance(limit, state, nowMs + wait - 1), cost)).toBe(false);
    }
    expect(waited).toBeGreaterThan(1_000);
  });

  test('the wait is infinite for what never fits', () => {
    const limit: Limit = { algorithm, maxRequests: 3, windowMs: 1_000 };
    expect(waitMs(limit, advance(limit, undefined, 5_000), 4)).toBe(Infinity);
  });

  test('never admits more than its bound, by a log of every admitted request', () => {
    const random = randomOf(11);
    for (let schedule = 0; schedule < 40; schedule += 1) {
      const limit: Limit = { algorithm, windowMs: 1_000, maxRequests: 1 + Math.floor(random() * 20) };
      const local = new LocalLimiter();
      const log: number[] = [];
      let nowMs = 1_000_000;
      for (let step = 0; step < 400; step += 1) {
        nowMs += Math.floor(random() * random() * 150);
        const [verdict] = local.consume('k', [limit], 1, nowMs);
        if (verdict?.admitted !== true) continue;
        log.push(nowMs);
        const { maxRequests, windowMs } = limit;
        const inWindow = log.filter((at) => at > nowMs - windowMs).length;
        // What the counter cannot know is where in the previous window its requests lay; the bucket may be full besides.
        const unknown =
          algorithm === 'sliding-window' ? (verdict.state.c * verdict.state.elapsedMs) / windowMs : maxRequests;
        expect(inWindow).toBeLessThanOrEqual(maxRequests + unknown);
      }
      // In the long run nobody gets more than the rate (and one full burst).
      const windows = (nowMs - 1_000_000) / limit.windowMs;
      expect(log.length).toBeLessThanOrEqual(limit.maxRequests * (windows + 2));
    }
  });

  test('one request in ten seconds is one, also two milliseconds later', async () => {
    const policy = { name: `slow-${algorithm}`, limits: [{ algorithm, maxRequests: 1, windowMs: 10_000 }] };
    let nowMs = 1_800_000_009_999;
    const isolate = isolateFor();
    const ask = () =>
      inRequest(() => RateLimitService.consume({ policy, identity: 'x' }), { isolate, now: () => nowMs });
    expect((await ask()).allowed).toBe(true);
    nowMs += 2;
    const refused = await ask();
    expect(refused).toMatchObject({ allowed: false, retryAfterMs: algorithm === 'sliding-window' ? 9_999 : 9_998 });
  });

  test('a request that costs more than is left consumes nothing', async () => {
    const policy = { name: `weighted-${algorithm}`, limits: [{ algorithm, maxRequests: 10, windowMs: 60_000_000 }] };
    await inRequest(async () => {
      expect((await RateLimitService.consume({ policy, identity: 'x', cost: 7 })).allowed).toBe(true);
      for (let i = 0; i < 5; i += 1) {
        expect((await RateLimitService.consume({ policy, identity: 'x', cost: 4 })).allowed).toBe(false);
      }
      expect(await RateLimitService.peek(policy, 'x')).toMatchObject([{ remaining: 3 }]);
      await RateLimitService.penalty(policy, 'x', 2);
      expect(await RateLimitService.peek(policy, 'x')).toMatchObject([{ remaining: 1 }]);
      await RateLimitService.reward(policy, 'x', 100);
      expect(await RateLimitService.peek(policy, 'x')).toMatchObject([{ remaining: 10 }]);
    });
  });
});

test('the script and the local limiter agree on every step, whatever the limits', async () => {
  const random = randomOf(42);
  const local = new LocalLimiter();
  const limits: Limit[] = [
    { algorithm: 'sliding-window', windowMs: 1_000, maxRequests: 7 },
    { algorithm: 'sliding-window', windowMs: 10_000, maxRequests: 40 },
    { algorithm: 'token-bucket', windowMs: 3_000, maxRequests: 15 },
  ];
  const asArguments = limits.flatMap(({ algorithm, windowMs, maxRequests }) => [
    algorithm === 'token-bucket' ? 'g' : 's',
    windowMs,
    maxRequests,
  ]);
  await inRequest(async ({ batch }) => {
    batch.setDeadline(60_000);
    let nowMs = 1_800_000_000_000;
    let refused = 0;
    for (let step = 0; step < 800; step += 1) {
      // Now and then a clock lags behind the one that wrote.
      nowMs += Math.floor(random() * 260) - (random() < 0.1 ? 300 : 0);
      if (random() < 0.1) {
        const more = Math.floor(random() * 7) - 3;
        const chargedAtMs = nowMs - Math.floor(random() * 1_500);
        local.settle('k', limits, more, chargedAtMs, nowMs);
        await batch.run(rateLimit, ['agree:{k}'], [nowMs, more, 'settle', chargedAtMs, ...asArguments]);
        continue;
      }
      const cost = 1 + Math.floor(random() * 3);
      const mine = local.consume('k', limits, cost, nowMs);
      const theirs = await batch.run(rateLimit, ['agree:{k}'], [nowMs, cost, 'ask', 0, ...asArguments]);
      const admitted = mine.every((verdict) => verdict.admitted);
      expect(theirs, `step ${step}`).toEqual([
        admitted ? 1 : 0,
        ...mine.flatMap(({ admitted: fits, state: { a, b, c, elapsedMs } }) => [fits ? 1 : 0, a, b, c, elapsedMs]),
      ]);
      if (!admitted) refused += 1;
    }
    expect(refused).toBeGreaterThan(50);
  });
});

describe('several windows', () => {
  const policy = { name: 'stacked', limits: [slidingWindow(3, 60_000), slidingWindow(5, 86_400_000)] };

  test('are decided together: what one rejects counts in none, and the answer names it', async () => {
    let nowMs = 1_800_000_000_000;
    const isolate = isolateFor();
    const ask = () =>
      inRequest(() => RateLimitService.consume({ policy, identity: 'both' }), { isolate, now: () => nowMs });
    for (let i = 0; i < 3; i += 1) expect((await ask()).allowed).toBe(true);
    for (let i = 0; i < 4; i += 1) expect(await ask()).toMatchObject({ allowed: false, violated: ['stacked-1m'] });
    nowMs += 120_000;
    for (let i = 0; i < 2; i += 1) expect((await ask()).allowed).toBe(true);
    expect(await ask()).toMatchObject({ allowed: false, violated: ['stacked-1d'] });
  });

  test('a limit that is new, or has another window, begins unused', async () => {
    const isolate = isolateFor();
    const identity = 'changed';
    await inRequest(
      async () => {
        for (let i = 0; i < 3; i += 1) await RateLimitService.consume({ policy, identity });
        const changed = { name: 'stacked', limits: [slidingWindow(3, 30_000), slidingWindow(5, 86_400_000)] };
        expect(await RateLimitService.peek(changed, identity)).toMatchObject([{ remaining: 3 }, { remaining: 2 }]);
      },
      { isolate },
    );
  });
});

test.each([1.05, 2])('at %f times the limit nearly all of it is used, with the block list in front', async (load) => {
  const policy = { name: `share-${load}`, limits: [slidingWindow(100, 1_000)] };
  const isolate = isolateFor();
  let nowMs = 1_800_000_000_000;
  let admitted = 0;
  let asked = 0;
  const windows = 20;
  const ask = async () => {
    if (RateLimitService.block(policy, 'x') !== undefined) return;
    asked += 1;
    if ((await RateLimitService.consume({ policy, identity: 'x' })).allowed) admitted += 1;
  };
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(60_000);
      // The first window has none before it to weigh in: it does not count.
      for (let step = 0; step < (windows + 1) * 100 * load; step += 1) {
        if (step === Math.ceil(100 * load)) admitted = 0;
        nowMs = 1_800_000_000_000 + Math.floor((step * 1_000) / (100 * load));
        await ask();
      }
    },
    { isolate, now: () => nowMs },
  );
  expect(admitted).toBeGreaterThanOrEqual(0.98 * 100 * windows);
  expect(admitted).toBeLessThanOrEqual(100 * (windows + 1));
  expect(asked).toBeLessThan((windows + 1) * 100 * load);
});

test('two limiters of one name keep their windows apart', async () => {
  const [fast, slow] = [3_600_000, 86_400_000].map((windowMs) => ({
    name: 'shared',
    limits: [slidingWindow(2, windowMs)],
  }));
  if (fast === undefined || slow === undefined) throw new Error('unreachable');
  await inRequest(async () => {
    const seen: boolean[] = [];
    for (let i = 0; i < 3; i += 1) {
      for (const policy of [fast, slow]) seen.push((await RateLimitService.consume({ policy, identity: 'x' })).allowed);
    }
    expect(seen).toEqual([true, true, true, true, false, false]);
  });
});

test('of 200 at once exactly 100 are admitted, and the refused consume nothing', async () => {
  const isolate = isolateFor();
  await inRequest(
    async () => {
      const policy = { name: 'burst', limits: [slidingWindow(100, 60_000_000)] };
      const decisions = await Promise.all(
        Array.from({ length: 200 }, () => RateLimitService.consume({ policy, identity: 'everybody' })),
      );
      expect(decisions.filter(({ allowed }) => allowed)).toHaveLength(100);
      const refused = decisions.find((decision) => !decision.allowed);
      expect(refused).toMatchObject({ allowed: false, reason: 'limit', source: 'redis', violated: ['burst'] });
      expect(RateLimitService.block(policy, 'everybody')?.retryAfterMs).toBeGreaterThan(0);
      await RateLimitService.reset(policy, 'everybody');
      expect(await RateLimitService.peek(policy, 'everybody')).toMatchObject([{ remaining: 100 }]);
      expect(RateLimitService.block(policy, 'everybody')).toBeUndefined();
    },
    { isolate },
  );
});

test('settling gives back in the window of the charge, and never goes below zero', async () => {
  const policy = { name: 'refund', limits: [slidingWindow(3, 60_000_000)] };
  const identity = 'one';
  const isolate = isolateFor();
  await inRequest(
    async () => {
      const decision = await RateLimitService.consume({ policy, identity });
      if (!decision.allowed) throw new Error('refused');
      decision.settle(-1);
      decision.settle(-1);
    },
    { isolate },
  );
  await inRequest(async () => expect(await RateLimitService.peek(policy, identity)).toMatchObject([{ remaining: 3 }]), {
    isolate,
  });
});

test('garbage under the key is no decision: the local limiter makes one', async () => {
  const isolate = isolateFor();
  const policy = { name: 'garbage', limits: [slidingWindow(2, 60_000_000)] };
  await inRequest(
    async ({ batch, degraded }) => {
      await batch.send('LPUSH', isolate.keys.rateLimit('garbage', 'x'), 'not a window');
      await batch.send('EXPIRE', isolate.keys.rateLimit('garbage', 'x'), 60);
      const decisions = [];
      for (let i = 0; i < 3; i += 1) decisions.push(await RateLimitService.consume({ policy, identity: 'x' }));
      expect(decisions.map((d) => d.allowed)).toEqual([true, true, false]);
      expect([...degraded]).toEqual(['limiter=local']);
    },
    { isolate },
  );
});

test('what was admitted while Redis was away counts once it is back', async () => {
  const { url, token } = configOf(bindings()).redis;
  const real = createRedisClient({ url, token });
  let down = false;
  const client: RedisClient = {
    execute: (commands) => (down ? Promise.reject(new RedisUnavailable('refused')) : real.execute(commands)),
  };
  const isolate = isolateFor(bindings({ BREAKER_MIN_CALLS: '1000' }), { client });
  const policy = { name: 'reconciled', limits: [slidingWindow(10, 60_000_000)] };
  const ask = () => inRequest(() => RateLimitService.consume({ policy, identity: 'x' }), { isolate });
  const left = () => inRequest(async () => (await RateLimitService.peek(policy, 'x'))[0]?.remaining, { isolate });

  await ask();
  down = true;
  for (let i = 0; i < 4; i += 1) expect(await ask()).toMatchObject({ allowed: true, source: 'local' });
  down = false;
  await ask();
  expect(await left()).toBe(4);
  await ask();
  expect(await left()).toBe(3);
});

test('@upstash/ratelimit’s wrapper decides by the same counters', async () => {
  const policy = { name: 'wrapped', limits: [slidingWindow(2, 60_000_000)] };
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

test('the state after a request is the state before and its cost', () => {
  const window = slidingWindow(5, 1_000);
  expect(consumed(window, { a: 1, b: 2, c: 3, elapsedMs: 4 }, 2)).toEqual({ a: 1, b: 4, c: 3, elapsedMs: 4 });
});
