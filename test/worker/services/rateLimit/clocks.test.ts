import { describe, expect, test } from 'vitest';

import type { RedisClient } from '../../../../src/redis/client';
import { RateLimitService } from '../../../../src/services/rateLimit.service';
import type { LimitAlgorithm, RateLimitPolicy } from '../../../../src/services/rateLimit.service';
import { recordedAtMs } from '../../../../src/services/rateLimit/limits';
import { usageOf } from '../../../../src/services/rateLimit/usage';
import { clockedClient, randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';
import { inRequest, isolateFor } from '../../support/request';

/** On a border of sub-windows, by Redis's clock. */
const START_MS = 1_800_000_000_000;
const WINDOW_MS = 60_000;
const MAX = 200;
const WITHIN_MS = 1_000;

let n = 0;

/** One isolate, whose clock is ahead of Redis's. Pipelines take some milliseconds each way. */
function stage(algorithm: LimitAlgorithm, aheadMs: number, longestMs: number) {
  const state = { nowMs: START_MS };
  const random = randomOf(11 + n);
  const limit = { algorithm, maxRequests: MAX, windowMs: WINDOW_MS };
  const policy: RateLimitPolicy = { name: `clocks-${(n += 1)}-${Math.random()}`, limits: [limit] };
  const redis = clockedClient(() => state.nowMs);
  const client: RedisClient = {
    async execute(commands) {
      state.nowMs += random(longestMs + 1);
      const replies = await redis.execute(commands);
      state.nowMs += random(longestMs + 1);
      return replies;
    },
  };
  const now = () => state.nowMs + aheadMs;
  const isolate = isolateFor(undefined, { client, now });
  const requests = (cost: number) => [{ policy, identity: 'x', cost }];
  return {
    state,
    random,
    /** As a guard decides, with leases or without; corrects the cost if told to. */
    request: (cost: number, { withinMs = 0, more = 0 } = {}) =>
      inRequest(
        async ({ batch, degraded }) => {
          batch.setDeadline(600_000);
          const startedMs = state.nowMs;
          const [fromLease] = RateLimitService.recall(requests(cost), withinMs) ?? [];
          const [decision] =
            fromLease === undefined ? await RateLimitService.consumeAll(requests(cost), withinMs) : [fromLease()];
          if (decision!.allowed && more !== 0) decision!.settle(more);
          return { decision: decision!, startedMs, degraded: [...degraded] };
        },
        { isolate, now },
      ),
    lose: () => redis.execute([['DEL', isolate.keys.rateLimit(policy.name, 'x')]]),
  };
}

/** Costs, and pauses that fill a window in a while. */
const play = ({ state, random }: ReturnType<typeof stage>) => {
  state.nowMs += random(4) === 0 ? random(6_000) : random(90);
  return 1 + random(9);
};

const CASES: [LimitAlgorithm, number][] = [
  ...[0, 300, -300, 17_450, -90_250].map((aheadMs): [LimitAlgorithm, number] => ['sliding-window', aheadMs]),
  ...[0, 300, 17_450].map((aheadMs): [LimitAlgorithm, number] => ['token-bucket', aheadMs]),
];

describe.each(CASES)('%s, in an isolate whose clock is %d ms ahead of Redis', (algorithm, aheadMs) => {
  test.each([0, WITHIN_MS])(
    'refuses nothing that Redis admits: who waits as told is admitted; within %d',
    async (withinMs) => {
      const scene = stage(algorithm, aheadMs, 8);
      const { state, random, request } = scene;
      let waited = 0;
      for (let step = 0; step < 200; step += 1) {
        const cost = play(scene);
        const more = random(5) === 0 ? -random(cost) : random(9) === 0 ? 2 : 0;
        const first = await request(cost, { withinMs: random(2) * withinMs, more });
        expect(first.degraded, `step ${step}`).toEqual([]);
        if (first.decision.allowed || first.decision.reason !== 'limit') continue;
        waited += 1;
        state.nowMs += first.decision.retryAfterMs;
        const { decision, degraded } = await request(cost);
        expect([decision.allowed, degraded], `step ${step}, after its wait`).toEqual([true, []]);
      }
      expect(waited).toBeGreaterThan(12);
    },
  );

  test('nor after a burst of the whole limit', async () => {
    const { state, request } = stage(algorithm, aheadMs, 8);
    for (let round = 0; round < 20; round += 1) {
      state.nowMs += 2 * WINDOW_MS;
      expect((await request(MAX)).decision.allowed).toBe(true);
      const { decision: refusal } = await request(1);
      if (refusal.allowed || refusal.reason !== 'limit') throw new Error(`round ${round}: the limit was not reached`);
      state.nowMs += refusal.retryAfterMs;
      const { decision, degraded } = await request(1);
      expect([decision.allowed, degraded], `round ${round}, after its wait`).toEqual([true, []]);
    }
  });

  test('admits no more than the limit in any window when Redis loses the counter', async () => {
    const scene = stage(algorithm, aheadMs, 0);
    const spent: Spent[] = [];
    let refusedByOwn = 0;
    for (let step = 0; step < 250; step += 1) {
      const cost = play(scene);
      if (scene.random(20) === 0) await scene.lose();
      const { decision, startedMs } = await scene.request(cost);
      if (decision.allowed) spent.push({ atMs: startedMs, units: cost });
      else if (decision.reason === 'limit' && decision.source === 'local') refusedByOwn += 1;
    }
    // A bucket lets a burst pass, and its flow.
    const most = algorithm === 'token-bucket' ? 2 * MAX : MAX;
    expect(worstWindow(spent, WINDOW_MS)).toBeLessThanOrEqual(most);
    expect(refusedByOwn).toBeGreaterThan(3);
  });
});

test('the mirrored charges of a sub-window get few times, none later than Redis counts them', () => {
  const [windowMs, aheadMs] = [3_600_000, 17_450];
  const limit = { algorithm: 'sliding-window', maxRequests: 100_000, windowMs } as const;
  const usage = usageOf(limit);
  const random = randomOf(5);
  const times = new Set<number>();
  for (let sent = 0; sent < 1_000; sent += 1) {
    const atMs = START_MS - aheadMs + 1_000 + sent;
    const counterAtMs = atMs + aheadMs + random(50);
    const time = usage.mirroredAtMs(limit, atMs, counterAtMs);
    expect(time).toBeGreaterThanOrEqual(atMs);
    expect(time).toBeLessThanOrEqual(recordedAtMs(limit, counterAtMs) - aheadMs);
    times.add(time);
  }
  // One for each new shortest way to Redis, of 50 that are possible.
  expect(times.size).toBeLessThan(15);
});

test('a token bucket owes what Redis has charged from when it was asked, not from its reply', () => {
  const limit = { algorithm: 'token-bucket', maxRequests: MAX, windowMs: WINDOW_MS } as const;
  const usage = usageOf(limit);
  const trip = { askedAtMs: START_MS, repliedAtMs: START_MS + 80 };
  const time = usage.mirroredAtMs(limit, trip.askedAtMs, START_MS + 40);
  usage.advance(limit, trip.repliedAtMs);
  usage.insert(limit, MAX, time, trip.askedAtMs);
  expect(usage.quota(limit)).toEqual({ remaining: 0, resetMs: WINDOW_MS - 80 });
});
