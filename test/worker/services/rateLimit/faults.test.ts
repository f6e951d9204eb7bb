import { describe, expect, test } from 'vitest';

import type { RedisClient } from '../../../../src/redis/client';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { RateLimitService, slidingWindow } from '../../../../src/services/rateLimit.service';
import type { RateLimitPolicy } from '../../../../src/services/rateLimit.service';
import { clockedClient, randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';
import { bindings, inRequest, isolateFor } from '../../support/request';

const START_MS = 1_800_000_000_000;

/** `down`: not executed. `breaker`: not even sent. `lost`: executed, but no reply arrives. */
type Mode = 'up' | 'down' | 'lost' | 'breaker';

/** An isolate whose clock and Redis the test holds; the breaker stays closed unless the test wants it. */
function stage() {
  const state = { mode: 'up' as Mode, nowMs: START_MS };
  const real = clockedClient();
  const client: RedisClient = {
    async execute(commands) {
      if (state.mode === 'breaker') throw new RedisUnavailable('breaker');
      if (state.mode === 'down') throw new RedisUnavailable('refused');
      const replies = await real.execute(commands);
      if (state.mode === 'lost') throw new RedisUnavailable('timeout');
      return replies;
    },
  };
  const isolate = () => isolateFor(bindings({ BREAKER_MIN_CALLS: '100000' }), { client });
  const first = isolate();
  return {
    state,
    isolate,
    first,
    /** Redis goes back to a state before it knew of these counters. */
    lose: async (policy: RateLimitPolicy) => {
      const [found] = await real.execute([['KEYS', `*${policy.name}*`]]);
      const keys = found?.value as string[];
      expect(keys).not.toEqual([]);
      await real.execute([['DEL', ...keys]]);
    },
    consume: (policy: RateLimitPolicy, { cost = 1, of = first, identity = 'x' } = {}) =>
      inRequest(() => RateLimitService.consume({ policy, identity, cost }), { isolate: of, now: () => state.nowMs }),
    /** As an isolate sees it that has nothing to report. */
    left: (policy: RateLimitPolicy) =>
      inRequest(async () => (await RateLimitService.peek(policy, 'x'))[0]?.remaining, {
        isolate: isolate(),
        now: () => state.nowMs,
      }),
    settle: async (policy: RateLimitPolicy, units: number) =>
      inRequest(
        async () => {
          const decision = await RateLimitService.consume({ policy, identity: 'x' });
          if (decision.allowed) decision.settle(units);
        },
        { isolate: first, now: () => state.nowMs },
      ),
  };
}

let n = 0;
const policyOf = (maxRequests: number, windowMs: number): RateLimitPolicy => ({
  name: `faults-${(n += 1)}-${Math.random()}`,
  limits: [slidingWindow(maxRequests, windowMs)],
});

describe('a flapping Redis', () => {
  test('grants no quota anew: 5 in 15 minutes are 5, with Redis 6 s down and 6 s up', async () => {
    const { state, consume } = stage();
    const policy = policyOf(5, 900_000);
    const spent: Spent[] = [];
    for (; state.nowMs < START_MS + 30 * 60_000; state.nowMs += 2_000) {
      state.mode = Math.floor(state.nowMs / 6_000) % 2 === 0 ? 'down' : 'up';
      if ((await consume(policy)).allowed) spent.push({ atMs: state.nowMs, units: 1 });
    }
    expect(worstWindow(spent, 900_000)).toBe(5);
    expect(spent).toHaveLength(10);
  });

  test('random outages and losses never let one isolate exceed its limit', async () => {
    for (const algorithm of ['sliding-window', 'token-bucket'] as const) {
      const { state, consume, settle } = stage();
      const policy = { ...policyOf(6, 10_000), limits: [{ algorithm, maxRequests: 6, windowMs: 10_000 }] };
      const random = randomOf(17);
      const spent: Spent[] = [];
      for (let step = 0; step < 250; step += 1) {
        state.nowMs += random(1_200);
        if (random(4) === 0) state.mode = (['up', 'down', 'lost'] as const)[random(3)]!;
        if (random(12) === 0) await settle(policy, -1);
        else if ((await consume(policy)).allowed) spent.push({ atMs: state.nowMs, units: 1 });
      }
      expect(worstWindow(spent, 10_000)).toBeLessThanOrEqual(algorithm === 'token-bucket' ? 12 : 6);
      expect(spent.length).toBeGreaterThan(30);
    }
  });
});

describe('units that were spent while Redis was away', () => {
  test('counts once it is back', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(10, 60_000_000);
    await consume(policy);
    state.mode = 'down';
    for (let i = 0; i < 4; i += 1) expect(await consume(policy)).toMatchObject({ allowed: true, source: 'local' });
    state.mode = 'up';
    await consume(policy);
    expect(await left(policy)).toBe(4);
    await consume(policy);
    expect(await left(policy)).toBe(3);
  });

  test('is reported with its times: after four hours of outage only the last window counts', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(100, 900_000);
    state.mode = 'down';
    // 60 in each quarter of an hour.
    for (let i = 0; i < 960; i += 1, state.nowMs += 15_000) expect((await consume(policy)).allowed).toBe(true);
    state.mode = 'up';
    expect((await consume(policy)).allowed).toBe(true);
    expect(await left(policy)).toBe(100 - 60);
    // They leave at their own times, and not all at one.
    state.nowMs += 450_000;
    expect(await left(policy)).toBe(100 - 30);
  });

  test('is reported for callers that do not come back, by the next request of any', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(10, 60_000_000);
    state.mode = 'down';
    for (let i = 0; i < 4; i += 1) await consume(policy);
    state.mode = 'up';
    // A counter whose report has just failed waits for a second.
    state.nowMs += 1_000;
    await consume(policy, { identity: 'another' });
    expect(await left(policy)).toBe(6);
  });

  test('is given back when the requests cost nothing in the end, also requests that arrived together', async () => {
    const { state, consume, left, first } = stage();
    const policy = policyOf(200, 60_000_000);
    // The circuit breaker's state: nothing is sent, so the spending of one sub-window is reported as one.
    state.mode = 'breaker';
    await inRequest(
      async () => {
        const decisions = await Promise.all(
          Array.from({ length: 5 }, () => RateLimitService.consume({ policy, identity: 'x' })),
        );
        for (const decision of decisions.slice(1)) if (decision.allowed) decision.settle(-1);
      },
      { isolate: first, now: () => state.nowMs },
    );
    state.mode = 'up';
    state.nowMs += 1_000;
    await consume(policy);
    expect(await left(policy)).toBe(200 - 2);
  });

  test('is reported once, also when the report’s reply is lost', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(20, 60_000_000);
    state.mode = 'down';
    for (let i = 0; i < 4; i += 1, state.nowMs += 10) await consume(policy);
    for (const mode of ['lost', 'lost', 'up', 'up'] as const) {
      state.mode = mode;
      state.nowMs += 2_000;
      await consume(policy);
    }
    expect(await left(policy)).toBe(20 - 8);
  });
});

describe('a lost reply', () => {
  test('of a request that was charged: it counts once', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(100, 60_000_000);
    state.mode = 'lost';
    for (let i = 0; i < 60; i += 1, state.nowMs += 5) expect((await consume(policy)).allowed).toBe(true);
    state.mode = 'up';
    for (let i = 0; i < 2; i += 1) await consume(policy);
    expect(await left(policy)).toBe(38);
  });

  test('of a settlement: it counts once', async () => {
    const { state, settle, consume, left } = stage();
    const policy = policyOf(100, 60_000_000);
    await settle(policy, 4);
    state.mode = 'lost';
    await settle(policy, 4);
    await settle(policy, -1);
    state.mode = 'up';
    await consume(policy);
    expect(await left(policy)).toBe(100 - 5 - 5 - 0 - 1);
  });

  test('of a request that this isolate refuses by itself: its charge is given back', async () => {
    const { state, consume, left } = stage();
    const policy = policyOf(3, 60_000_000);
    state.mode = 'down';
    for (let i = 0; i < 3; i += 1, state.nowMs += 10) expect((await consume(policy)).allowed).toBe(true);
    state.mode = 'lost';
    // Redis has room, and charges it; this isolate has none.
    expect((await consume(policy)).allowed).toBe(false);
    state.nowMs += 10_000;
    state.mode = 'up';
    await consume(policy, { identity: 'another' });
    expect(await left(policy)).toBe(0);
    state.nowMs += 60_000_000 - 10_000;
    expect(await left(policy)).toBe(3);
  });
});

describe('a Redis that has lost a counter', () => {
  test.each(['sliding-window', 'token-bucket'] as const)(
    'units of before are not given back from those of later requests: %s',
    async (algorithm) => {
      const { state, consume, lose, first, isolate } = stage();
      const policy = { ...policyOf(10, 60_000), limits: [{ algorithm, maxRequests: 10, windowMs: 60_000 }] };
      await inRequest(
        async () => {
          const decision = await RateLimitService.consume({ policy, identity: 'x', cost: 10 });
          await lose(policy);
          state.nowMs += 10;
          expect((await consume(policy, { cost: 10, of: isolate() })).allowed).toBe(true);
          if (decision.allowed) decision.settle(-10);
        },
        { isolate: first, now: () => state.nowMs },
      );
      expect((await consume(policy, { of: isolate() })).allowed).toBe(false);
    },
  );

  test('units of a request that the counter no longer remembers are given back all the same', async () => {
    const { state, consume, left, first } = stage();
    const policy = policyOf(1_000, 60_000_000);
    await inRequest(
      async () => {
        const decision = await RateLimitService.consume({ policy, identity: 'x', cost: 100 });
        state.nowMs += 600_000;
        await Promise.all(Array.from({ length: 140 }, () => consume(policy)));
        if (decision.allowed) decision.settle(-100);
      },
      { isolate: first, now: () => state.nowMs },
    );
    expect(await left(policy)).toBe(1_000 - 140);
  });

  test.each(['sliding-window', 'token-bucket'] as const)(
    'no more is said to be left than this isolate will admit: %s',
    async (algorithm) => {
      const scene = stage();
      const { state, consume } = scene;
      const policy = { ...policyOf(10, 60_000_000), limits: [{ algorithm, maxRequests: 10, windowMs: 60_000_000 }] };
      const left = async () => {
        const decision = await consume(policy);
        return decision.allowed ? decision.quotas[0]?.remaining : decision;
      };
      for (let i = 0; i < 4; i += 1) expect(await left()).toBe(9 - i);
      await scene.lose(policy);
      for (let i = 0; i < 6; i += 1, state.nowMs += 5) expect(await left()).toBe(5 - i);
      expect(await left()).toMatchObject({ allowed: false, reason: 'limit' });
    },
  );

  test.each(['sliding-window', 'token-bucket'] as const)(
    'requests that arrive at once are admitted no more than the limit together: %s',
    async (algorithm) => {
      const scene = stage();
      const policy = { ...policyOf(4, 60_000_000), limits: [{ algorithm, maxRequests: 4, windowMs: 60_000_000 }] };
      for (let i = 0; i < 3; i += 1) expect((await scene.consume(policy)).allowed).toBe(true);
      await scene.lose(policy);
      // Replies arrive one after the other, while earlier requests still ask why Redis has fewer units.
      const decisions = await Promise.all(
        Array.from({ length: 6 }, () =>
          inRequest(() => RateLimitService.consume({ policy, identity: 'x' }), {
            isolate: scene.first,
            now: () => (scene.state.nowMs += 1),
          }),
        ),
      );
      expect(decisions.filter(({ allowed }) => allowed)).toHaveLength(1);
    },
  );
});
