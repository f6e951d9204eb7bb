import { describe, expect, test } from 'vitest';

import type { RedisBatch } from '../../../../src/redis/batch';
import { rateLimitRecord } from '../../../../src/redis/scripts/rateLimitRecord';
import { ask, recordArguments, requestId } from '../../../../src/services/rateLimit/ask';
import type { Limit, LimitVerdict } from '../../../../src/services/rateLimit/limits';
import { EXACT_UP_TO, SUB_WINDOWS } from '../../../../src/services/rateLimit/limits';
import { LocalLimiter } from '../../../../src/services/rateLimit/local';
import { clockedClient, randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';
import { inRequest, isolateFor } from '../../support/request';

const START_MS = 1_800_000_000_000;

let n = 0;
const freshKey = () => `windows:{${(n += 1)}-${requestId()}}`;

/** The two that must agree: what one identity uses of some limits, in Redis and in an isolate's memory. */
interface Limiter {
  consume(limits: readonly Limit[], cost: number, nowMs: number): Promise<{ atMs: number; verdicts: LimitVerdict[] }>;
  record(limits: readonly Limit[], units: number, atMs: number, nowMs: number): Promise<void>;
}

function inRedis(batch: RedisBatch): Limiter {
  const key = freshKey();
  return {
    async consume(limits, cost, nowMs) {
      const outcome = await ask(batch, [{ key, limits, cost }], { id: requestId(), reserveMs: 0, nowMs });
      return outcome.replies[0]!;
    },
    async record(limits, units, atMs, nowMs) {
      await batch.run(rateLimitRecord, [key], recordArguments(limits, nowMs, [{ time: atMs, units }]));
    },
  };
}

function inMemory(): Limiter {
  const local = new LocalLimiter();
  const of = (limits: readonly Limit[]) => ({ key: 'k', policy: 'p', limits });
  return {
    consume: async (limits, cost, nowMs) => ({
      atMs: nowMs,
      verdicts: local.consume([{ ...of(limits), cost }], nowMs)[0]!,
    }),
    record: async (limits, units, atMs, nowMs) => local.record(of(limits), units, { atMs, nowMs, pinned: true }),
  };
}

/** Runs a body with a limiter of each kind; the clock is the test's. */
async function withEach(body: (limiterOf: () => Limiter, name: string) => Promise<void>): Promise<void> {
  await body(inMemory, 'memory');
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(600_000);
      await body(() => inRedis(batch), 'redis');
    },
    { isolate: isolateFor(undefined, { client: clockedClient() }) },
  );
}

const admits = (verdicts: readonly LimitVerdict[]) => verdicts.every(({ admitted }) => admitted);

/** When requests come, as offsets in ms: about as many as three times the limit, at random or around a window's end. */
const SCHEDULES: Record<string, (random: (below: number) => number, limit: Limit) => number> = {
  random: (random, { windowMs, maxRequests }) => random(Math.ceil((2 * windowMs) / (3 * maxRequests)) + 1),
  bursts: (random, { windowMs, maxRequests }) => (random(3 * maxRequests) === 0 ? windowMs - random(3) : 0),
  'at the end of each window': (random, { windowMs, maxRequests }) =>
    random(3 * maxRequests) === 0 ? windowMs - 1 : random(2) * random(2),
  'just after half has left': (random, { windowMs, maxRequests }) =>
    random(2 * maxRequests) === 0 ? Math.floor(windowMs / 2) + random(2) : random(2) * random(2),
};

const LIMITS: [string, Limit][] = [
  ['an exact log', { algorithm: 'sliding-window', windowMs: 1_000, maxRequests: 7 }],
  ['sub-windows', { algorithm: 'sliding-window', windowMs: 5_000, maxRequests: EXACT_UP_TO + 30 }],
];

test.each(LIMITS)(
  'a sliding window with %s admits at most its limit in any window, and at most 1/N less',
  async (_, limit) => {
    const { windowMs, maxRequests } = limit;
    // Sub-windows hold a unit until the end of its own has left.
    const stepMs = maxRequests > EXACT_UP_TO ? Math.ceil(windowMs / SUB_WINDOWS) : 1;
    await withEach(async (limiterOf, kind) => {
      const play = async (name: string, seed: number) => {
        const place = `${kind}, ${name}, seed ${seed}`;
        const next = SCHEDULES[name]!;
        const random = randomOf(seed);
        const limiter = limiterOf();
        const spent: Spent[] = [];
        let nowMs = START_MS + random(windowMs);
        let refused = 0;
        for (let step = 0; step < 8 * maxRequests + 300; step += 1) {
          nowMs += next(random, limit);
          const cost = random(10) === 0 ? 1 + random(3) : 1;
          const { verdicts } = await limiter.consume([limit], cost, nowMs);
          const sum = (within: number) =>
            spent.filter(({ atMs }) => atMs > nowMs - within).reduce((total, { units }) => total + units, 0);
          if (admits(verdicts)) spent.push({ atMs: nowMs, units: cost });
          else {
            refused += 1;
            // Refused rightly: within one sub-window more, there are too many.
            expect(sum(windowMs + stepMs - 1) + cost, `${place}, step ${step}`).toBeGreaterThan(maxRequests);
          }
        }
        expect(worstWindow(spent, windowMs), `${place}, in all`).toBeLessThanOrEqual(maxRequests);
        expect(refused, `${place}, refused`).toBeGreaterThan(20);
      };
      // Side by side their commands travel together: a trip costs far more than a command.
      await Promise.all(Object.keys(SCHEDULES).flatMap((name) => [1, 2, 3].map((seed) => play(name, seed))));
    });
  },
);

test('two isolates, one 2 windows ahead and one 2 behind, share one window and lock no caller out', async () => {
  const limit: Limit = { algorithm: 'sliding-window', windowMs: 1_000, maxRequests: 5 };
  let nowMs = START_MS;
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(600_000);
      const random = randomOf(5);
      const key = freshKey();
      const spent: Spent[] = [];
      for (let step = 0; step < 600; step += 1) {
        nowMs += random(90);
        const skewMs = [2_000, -2_000, 0][random(3)]!;
        const { replies } = await ask(batch, [{ key, limits: [limit], cost: 1 }], {
          id: requestId(),
          reserveMs: 0,
          nowMs: nowMs + skewMs,
        });
        if (admits(replies[0]!.verdicts)) spent.push({ atMs: nowMs, units: 1 });
      }
      expect(worstWindow(spent, 1_000)).toBe(5);
      // As many as there is room for: none was locked out.
      expect(spent.length).toBeGreaterThan(0.95 * 5 * ((nowMs - START_MS) / 1_000));
    },
    { isolate: isolateFor(undefined, { client: clockedClient(() => nowMs) }) },
  );
});

test.each([
  ['a little behind', 400],
  ['more than a window behind', 50_000],
])('a failover to a node whose clock is %s resets nothing, and locks no caller out', async (_, behindMs) => {
  const limit: Limit = { algorithm: 'sliding-window', windowMs: 1_000, maxRequests: 5 };
  let [trueMs, skewMs] = [START_MS, 0];
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(600_000);
      const key = freshKey();
      const spent: Spent[] = [];
      const call = async () => {
        const demand = { key, limits: [limit], cost: 1 };
        const { replies } = await ask(batch, [demand], { id: requestId(), reserveMs: 0, nowMs: trueMs });
        if (admits(replies[0]!.verdicts)) spent.push({ atMs: trueMs, units: 1 });
      };
      for (let step = 0; step < 20; step += 1, trueMs += 20) await call();
      skewMs = -behindMs;
      const failoverMs = trueMs;
      for (; trueMs < failoverMs + 6_000; trueMs += 20) await call();
      expect(worstWindow(spent, 1_000)).toBe(5);
      // At most one window is lost.
      const after = spent.filter(({ atMs }) => atMs >= failoverMs).length;
      expect(after).toBeGreaterThanOrEqual(5 * 4);
    },
    { isolate: isolateFor(undefined, { client: clockedClient(() => trueMs + skewMs) }) },
  );
});

describe.each(['sliding-window', 'token-bucket'] as const)('%s', (algorithm) => {
  const limits: Limit[] = [
    { algorithm, windowMs: 1_000, maxRequests: 7 },
    { algorithm, windowMs: 6_000, maxRequests: EXACT_UP_TO + 50 },
  ];

  test('the exact wait admits, and one millisecond earlier does not', async () => {
    await withEach(async (limiterOf) => {
      let waited = 0;
      const play = async (limit: Limit) => {
        const random = randomOf(7);
        const limiter = limiterOf();
        let nowMs = START_MS;
        for (let step = 0; step < 300; step += 1) {
          const cost = 1 + random(4);
          const { verdicts } = await limiter.consume([limit], cost, nowMs);
          if (admits(verdicts)) {
            nowMs += random(40);
            continue;
          }
          waited += 1;
          const { waitMs } = verdicts[0]!;
          expect(waitMs).toBeGreaterThan(0);
          expect(admits((await limiter.consume([limit], cost, nowMs + waitMs - 1)).verdicts)).toBe(false);
          expect(admits((await limiter.consume([limit], cost, nowMs + waitMs)).verdicts)).toBe(true);
          nowMs += waitMs;
        }
      };
      await Promise.all(limits.map(play));
      expect(waited).toBeGreaterThan(100);
    });
  });

  test('the wait is infinite for a cost that never fits', async () => {
    await withEach(async (limiterOf) => {
      const { verdicts } = await limiterOf().consume([limits[0]!], 8, START_MS);
      expect(verdicts).toMatchObject([{ admitted: false, waitMs: Infinity }]);
    });
  });

  test('units that are given back go to the time of their charge: they never make room for more than the limit', async () => {
    await withEach(async (limiterOf) => {
      const play = async (limit: Limit) => {
        const random = randomOf(13);
        const limiter = limiterOf();
        const spent: Spent[] = [];
        let nowMs = START_MS;
        for (let step = 0; step < 400; step += 1) {
          nowMs += random(6) === 0 ? random(limit.windowMs / 3) : random(10);
          const { atMs, verdicts } = await limiter.consume([limit], 1 + random(3) * random(2), nowMs);
          if (admits(verdicts)) spent.push({ atMs, units: 1 });
          const back = random(9) === 0 ? spent[spent.length - 1 - random(8)] : undefined;
          if (back === undefined) continue;
          await limiter.record([limit], -back.units, back.atMs, nowMs);
          spent.splice(spent.indexOf(back), 1);
        }
        // A bucket lets a burst pass and then its flow: in any time t, at most L + L·t/W.
        const most = algorithm === 'token-bucket' ? 2 * limit.maxRequests : limit.maxRequests;
        expect(worstWindow(spent, limit.windowMs)).toBeLessThanOrEqual(most);
        expect(spent.length).toBeGreaterThan(30);
      };
      await Promise.all(limits.map(play));
    });
  });

  test('ten used, ten admitted once they have left, the first ten given back: no more are admitted at that instant', async () => {
    const limit: Limit = { algorithm, windowMs: 60_000, maxRequests: 10 };
    await withEach(async (limiterOf) => {
      const limiter = limiterOf();
      const { atMs } = await limiter.consume([limit], 10, START_MS);
      expect(admits((await limiter.consume([limit], 10, START_MS + 60_000)).verdicts)).toBe(true);
      await limiter.record([limit], -10, atMs, START_MS + 60_000);
      expect(admits((await limiter.consume([limit], 1, START_MS + 60_000)).verdicts)).toBe(false);
    });
  });

  test('units that are given back while they count are free again at once', async () => {
    const limit: Limit = { algorithm, windowMs: 60_000, maxRequests: 10 };
    await withEach(async (limiterOf) => {
      const limiter = limiterOf();
      const { atMs } = await limiter.consume([limit], 10, START_MS);
      await limiter.record([limit], -4, atMs, START_MS + 5);
      expect((await limiter.consume([limit], 4, START_MS + 5)).verdicts).toMatchObject([{ admitted: true }]);
      expect((await limiter.consume([limit], 2, START_MS + 5)).verdicts).toMatchObject([{ admitted: false }]);
    });
  });
});

test('a token bucket lets a burst pass, then its flow: at most L + L·t/W in any time t', async () => {
  const limit: Limit = { algorithm: 'token-bucket', windowMs: 1_000, maxRequests: 20 };
  await withEach(async (limiterOf) => {
    const random = randomOf(3);
    const limiter = limiterOf();
    const spent: Spent[] = [];
    let nowMs = START_MS;
    for (let step = 0; step < 500; step += 1) {
      nowMs += random(random(120) + 1);
      if (admits((await limiter.consume([limit], 1, nowMs)).verdicts)) spent.push({ atMs: nowMs, units: 1 });
    }
    for (const time of [50, 250, 1_000, 3_000]) {
      expect(worstWindow(spent, time)).toBeLessThanOrEqual(20 + (20 * time) / 1_000);
    }
  });
});

test('the script and the memory agree on every step, whatever the limits', async () => {
  const limits: Limit[] = [
    { algorithm: 'sliding-window', windowMs: 1_000, maxRequests: 7 },
    { algorithm: 'sliding-window', windowMs: 10_000, maxRequests: EXACT_UP_TO + 10 },
    { algorithm: 'token-bucket', windowMs: 3_000, maxRequests: 15 },
    { algorithm: 'token-bucket', windowMs: 7_000, maxRequests: EXACT_UP_TO + 20 },
  ];
  await inRequest(
    async ({ batch }) => {
      batch.setDeadline(600_000);
      const random = randomOf(42);
      const [redis, memory] = [inRedis(batch), inMemory()];
      let nowMs = START_MS;
      let refused = 0;
      // Redis keeps the time of what was written; memory that of what was asked.
      let wrote = false;
      for (let step = 0; step < 2_000; step += 1) {
        // Now and then a clock lags behind the one that wrote, also by more than all windows.
        const lagMs = random(20) === 0 ? 300 : random(300) === 0 ? 20_000 : 0;
        nowMs += random(200) - (wrote ? lagMs : 0);
        if (random(8) === 0) {
          const [units, atMs] = [random(7) - 3 || 4, nowMs - random(1_500)];
          for (const limiter of [redis, memory]) await limiter.record(limits, units, atMs, nowMs);
          wrote = true;
          continue;
        }
        const cost = random(4);
        const [theirs, mine] = await Promise.all([
          redis.consume(limits, cost, nowMs),
          memory.consume(limits, cost, nowMs),
        ]);
        expect(theirs.verdicts, `step ${step}`).toEqual(
          mine.verdicts.map((verdict) => ({ ...verdict, undecided: false })),
        );
        if (!admits(mine.verdicts)) refused += 1;
        wrote = admits(mine.verdicts) && cost > 0;
      }
      expect(refused).toBeGreaterThan(100);
    },
    { isolate: isolateFor(undefined, { client: clockedClient() }) },
  );
});
