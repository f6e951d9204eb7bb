import { describe, expect, test } from 'vitest';

import { RateLimitService, slidingWindow } from '../../../../src/services/rateLimit.service';
import type { Limit } from '../../../../src/services/rateLimit.service';
import { exactRatelimit } from '../../../../src/services/rateLimit/upstash';
import { clockedClient } from '../../support/limits';
import { inRequest, isolateFor } from '../../support/request';

const START_MS = 1_800_000_000_000;

/** An isolate whose engine has no clock: the test's decides. */
const clockedIsolate = () => isolateFor(undefined, { client: clockedClient() });

describe.each(['sliding-window', 'token-bucket'] as const)('%s', (algorithm) => {
  test('one request in ten seconds is one, also two milliseconds later', async () => {
    const policy = { name: `slow-${algorithm}`, limits: [{ algorithm, maxRequests: 1, windowMs: 10_000 }] };
    let nowMs = START_MS + 9_999;
    const isolate = clockedIsolate();
    const ask = () =>
      inRequest(() => RateLimitService.consume({ policy, identity: 'x' }), { isolate, now: () => nowMs });
    expect((await ask()).allowed).toBe(true);
    nowMs += 2;
    expect(await ask()).toMatchObject({ allowed: false, retryAfterMs: 9_998 });
    // Refused from memory one millisecond before, admitted at it.
    nowMs += 9_997;
    expect((await ask()).allowed).toBe(false);
    nowMs += 1;
    expect((await ask()).allowed).toBe(true);
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

test.each([0.5, -1, Number.NaN, Infinity, 2 ** 53])('%d is no number of units', async (units) => {
  const policy = { name: 'units', limits: [slidingWindow(10, 60_000)] };
  await inRequest(async () => {
    await expect(RateLimitService.consume({ policy, identity: 'x', cost: units })).rejects.toThrow('whole number');
    await expect(RateLimitService.penalty(policy, 'x', units)).rejects.toThrow('whole number');
    await expect(RateLimitService.reward(policy, 'x', units)).rejects.toThrow('whole number');
    expect(await RateLimitService.peek(policy, 'x')).toMatchObject([{ remaining: 10 }]);
  });
});

describe('several windows', () => {
  const policy = { name: 'stacked', limits: [slidingWindow(3, 60_000), slidingWindow(5, 86_400_000)] };

  test('are decided together: a request that one rejects counts in none, and the refusal names it', async () => {
    let nowMs = START_MS;
    const isolate = clockedIsolate();
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
  const isolate = clockedIsolate();
  let nowMs = START_MS;
  let admitted = 0;
  let asked = 0;
  const windows = 20;
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(60_000);
      for (let step = 0; step < windows * 100 * load; step += 1) {
        nowMs = START_MS + Math.floor((step * 1_000) / (100 * load));
        if (RateLimitService.block(policy, 'x') !== undefined) continue;
        asked += 1;
        if ((await RateLimitService.consume({ policy, identity: 'x' })).allowed) admitted += 1;
      }
    },
    { isolate, now: () => nowMs },
  );
  expect(admitted).toBeGreaterThanOrEqual(0.98 * 100 * windows);
  expect(admitted).toBeLessThanOrEqual(100 * windows);
  expect(asked).toBeLessThan(windows * 100 * load);
});

describe('the block list', () => {
  const identity = 'shared-identity';

  test('a refusal by one limit says nothing of another on the same counter', async () => {
    const [tight, wide] = [2, 1_000].map((maxRequests) => ({
      name: 'blocks-of-limits',
      limits: [slidingWindow(maxRequests, 600_000)],
    }));
    await inRequest(
      async () => {
        for (let i = 0; i < 3; i += 1) await RateLimitService.consume({ policy: tight!, identity });
        expect(RateLimitService.block(tight!, identity)).toMatchObject({ violated: ['blocks-of-limits'] });
        expect(RateLimitService.block(wide!, identity)).toBeUndefined();
        expect(await RateLimitService.consume({ policy: wide!, identity })).toMatchObject({ allowed: true });
        // Limits differ by window and algorithm as well.
        expect(
          RateLimitService.block({ name: 'blocks-of-limits', limits: [slidingWindow(2, 6_000)] }, identity),
        ).toBeUndefined();
        const bucket: Limit = { algorithm: 'token-bucket', maxRequests: 2, windowMs: 600_000 };
        expect(RateLimitService.block({ name: 'blocks-of-limits', limits: [bucket] }, identity)).toBeUndefined();
      },
      { isolate: isolateFor() },
    );
  });

  test('a refusal of one cost says nothing of another, which has its own time to wait', async () => {
    const policy = { name: 'blocks-of-costs', limits: [slidingWindow(3, 600_000)] };
    await inRequest(
      async () => {
        await RateLimitService.consume({ policy, identity, cost: 2 });
        await RateLimitService.consume({ policy, identity, cost: 2 });
        expect(RateLimitService.block(policy, identity, 2)).toBeDefined();
        expect(RateLimitService.block(policy, identity, 1)).toBeUndefined();
        expect(RateLimitService.block(policy, identity, 3)).toBeUndefined();
      },
      { isolate: isolateFor() },
    );
  });

  test('ends when the clock is set back', async () => {
    const policy = { name: 'blocks-of-clocks', limits: [slidingWindow(1, 600_000)] };
    let nowMs = START_MS;
    await inRequest(
      async () => {
        for (let i = 0; i < 2; i += 1) await RateLimitService.consume({ policy, identity });
        expect(RateLimitService.block(policy, identity)).toBeDefined();
        nowMs -= 3_600_000;
        expect(RateLimitService.block(policy, identity)).toBeUndefined();
      },
      { isolate: clockedIsolate(), now: () => nowMs },
    );
  });
});

test('two limiters of one name keep their windows apart', async () => {
  const [fast, slow] = [3_600_000, 86_400_000].map((windowMs) => ({
    name: 'shared',
    limits: [slidingWindow(2, windowMs)],
  }));
  await inRequest(async () => {
    const seen: boolean[] = [];
    for (let i = 0; i < 3; i += 1) {
      for (const policy of [fast!, slow!]) {
        seen.push((await RateLimitService.consume({ policy, identity: 'x' })).allowed);
      }
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

test('settling gives back no more than was charged, and charges on top', async () => {
  const policy = { name: 'refund', limits: [slidingWindow(5, 60_000_000)] };
  const identity = 'one';
  const isolate = isolateFor();
  const left = () => inRequest(async () => (await RateLimitService.peek(policy, identity))[0]?.remaining, { isolate });
  const settle = (...units: number[]) =>
    inRequest(
      async () => {
        const decision = await RateLimitService.consume({ policy, identity });
        if (!decision.allowed) throw new Error('refused');
        for (const more of units) decision.settle(more);
      },
      { isolate },
    );
  await settle(-1, -1);
  expect(await left()).toBe(5);
  await settle(2);
  expect(await left()).toBe(2);
});

test('a request that one counter can never pay, asked by two limiters of it, has no time to come back', async () => {
  const policy = { name: 'twice', limits: [slidingWindow(3, 60_000)] };
  await inRequest(async () => {
    await RateLimitService.consume({ policy, identity: 'x' });
    const twice = { policy, identity: 'x', cost: 2 };
    expect(await RateLimitService.consumeAll([twice, twice])).toMatchObject([
      { allowed: false, reason: 'together' },
      { allowed: false, reason: 'limit', retryAfterMs: Infinity },
    ]);
  });
});

test('the largest penalties of a token bucket hold in every isolate', async () => {
  const limit: Limit = { algorithm: 'token-bucket', maxRequests: 1, windowMs: 86_400_000 };
  const policy = { name: 'penalties', limits: [limit] };
  const punishing = isolateFor();
  await inRequest(
    async () => {
      for (let i = 0; i < 3; i += 1) await RateLimitService.penalty(policy, 'x', 1_000_000_000);
    },
    { isolate: punishing },
  );
  await inRequest(
    async ({ degraded }) => {
      expect(await RateLimitService.consume({ policy, identity: 'x' })).toMatchObject({
        allowed: false,
        source: 'redis',
      });
      expect([...degraded]).toEqual([]);
    },
    { isolate: isolateFor() },
  );
});

test('every counter has a TTL, of one window at most', async () => {
  const isolate = isolateFor();
  const policy = { name: 'ttl', limits: [slidingWindow(5, 60_000), slidingWindow(500, 90_000)] };
  await inRequest(
    async ({ batch }) => {
      await RateLimitService.consume({ policy, identity: 'x' });
      const ttl = Number(await batch.send('PTTL', isolate.keys.rateLimit('ttl', 'x')));
      // The end of the last sub-window, of which there are a hundred.
      expect(ttl).toBeGreaterThan(80_000);
      expect(ttl).toBeLessThanOrEqual(90_900);
    },
    { isolate },
  );
});

test('a value of another type is no decision: the local limiter makes one', async () => {
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
