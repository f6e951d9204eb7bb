import { env } from 'cloudflare:workers';
import { beforeAll, expect, test } from 'vitest';

import { configOf } from '../../../../src/config/env';
import { createRedisClient } from '../../../../src/redis/client';
import type { Command, Reply } from '../../../../src/redis/client';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { runInScope } from '../../../../src/services/runInScope';
import { GuardMemoryService, hasDue } from '../../../../src/services/guardMemory.service';
import type { Isolate } from '../../../../src/services/isolate';
import { RateLimitService, slidingWindow } from '../../../../src/services/rateLimit.service';
import { requestId } from '../../../../src/services/rateLimit/ask';
import { clocked, loadClocked, randomOf, worstWindow } from '../../support/limits';
import type { Spent } from '../../support/limits';
import { bindings, isolateFor } from '../../support/request';

const START_MS = 1_800_000_000_000;
const ISOLATES = 5;
const WITHIN_MS = 1_000;
const bound = bindings({ REDIS_CALL_TIMEOUT_MS: '30000', BREAKER_MIN_CALLS: '100000' });
const { url, token } = configOf(bound).redis;
const redis = createRedisClient({ url, token });
beforeAll(() => loadClocked(redis));

/** A pipeline on its way to Redis and back. */
interface Call {
  readonly commands: readonly Command[];
  /** When Redis ran it, by the schedule's clock. */
  ranAtMs?: number;
  replies?: Reply[];
  readonly resolve: (replies: Reply[]) => void;
  readonly reject: (error: unknown) => void;
}

type Random = (below: number) => number;

/** Five isolates, their clocks apart, one counter, and a clock of its own for each schedule. */
class Schedule {
  readonly spent: (Spent & { isolate: number; leased: boolean })[] = [];
  readonly maxRequests: number;
  readonly windowMs: number;
  refused = 0;
  calls: Call[] = [];
  readonly #random: Random;
  readonly #isLossy: boolean;
  readonly #isolates: { isolate: Isolate; now: () => number }[];
  readonly #policy;
  readonly #identity = `schedule ${requestId()}`;
  #nowMs = START_MS;
  #started: Call | undefined;

  constructor(seed: number, isLossy: boolean) {
    this.#random = randomOf(seed);
    this.#isLossy = isLossy;
    const random = this.#random;
    this.maxRequests = [10, 12, 20, 20, 40, 101][random(6)]!;
    this.windowMs = [2_000, 5_000, 10_000][random(3)]!;
    this.#policy = { name: 'schedules', limits: [slidingWindow(this.maxRequests, this.windowMs)] };
    this.#isolates = Array.from({ length: ISOLATES }, () => {
      const aheadMs = random(10_001) - 5_000;
      const now = () => this.#nowMs + aheadMs;
      const client = { execute: (commands: readonly Command[]) => this.#execute(commands) };
      const isolate = isolateFor(bound, { now, client });
      // D1 has nothing to do with it.
      Object.assign(isolate.breaker, { takeLook: () => false });
      return { isolate, now };
    });
  }

  /** Something happens: time passes, a request comes, a pipeline arrives at Redis, a reply at its isolate. */
  step(queue: (call: Call, commands: readonly Command[]) => void): void {
    const random = this.#random;
    if (this.#isLossy || random(3) > 0) {
      this.#nowMs += random(Math.ceil((1.2 * this.windowMs) / this.maxRequests));
      void this.#visit(random(random(3) === 0 ? ISOLATES : 2), random(6) === 0 ? 2 : 1);
    }
    for (const call of this.calls) {
      if (call.ranAtMs === undefined && (this.#isLossy || random(3) > 0)) {
        call.ranAtMs = this.#nowMs;
        if (this.#isLossy && random(8) === 0) call.reject(new RedisUnavailable('timeout'));
        else
          queue(
            call,
            call.commands.map((command) => clocked(command, () => this.#nowMs)),
          );
      } else if (call.replies !== undefined && (this.#isLossy || random(3) > 0)) call.resolve(call.replies);
    }
  }

  /** Replies of an instant arrive in it. */
  deliver(): void {
    for (const call of this.calls) if (call.replies !== undefined) call.resolve(call.replies);
  }

  #execute(commands: readonly Command[]): Promise<Reply[]> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply[]>();
    const call: Call = { commands, resolve, reject };
    this.#started = call;
    this.calls.push(call);
    const end = () => {
      this.calls = this.calls.filter((other) => other !== call);
    };
    promise.then(end, end);
    return promise;
  }

  /** One request, decided as a guard does. */
  async #visit(index: number, cost: number): Promise<void> {
    const { isolate, now } = this.#isolates[index]!;
    const requests = [{ policy: this.#policy, identity: this.#identity, cost }];
    const waitUntil = (promise: Promise<unknown>) => void promise.catch(() => undefined);
    await runInScope({ isolate, db: env.DB, waitUntil, now }, async ({ batch }) => {
      batch.setDeadline(600_000);
      const [decide] = RateLimitService.recall(requests, WITHIN_MS) ?? [];
      if (decide !== undefined) {
        decide();
        this.spent.push({ isolate: index, atMs: this.#nowMs, units: cost, leased: true });
      } else {
        const release = batch.hold();
        const deciding = RateLimitService.consumeAll(requests, WITHIN_MS);
        this.#started = undefined;
        release();
        const call = this.#started as Call | undefined;
        const [decision] = await deciding;
        if (decision?.allowed === true) {
          const atMs = decision.source === 'redis' ? call!.ranAtMs! : this.#nowMs;
          this.spent.push({ isolate: index, atMs, units: cost, leased: false });
        } else this.refused += 1;
      }
      if (hasDue(isolate.memory, now())) GuardMemoryService.refresh();
    });
  }
}

/** Plays schedules side by side: what they send in one step travels to the engine together. */
async function play(schedules: readonly Schedule[], steps: number, isInstant: boolean): Promise<void> {
  const settle = () => new Promise<void>((resolve) => void setTimeout(resolve, 1));
  for (let step = 0; step < steps; step += 1) {
    // What follows a reply, such as what goes back, is sent in the same instant.
    for (let turn = 0; turn < (isInstant ? 3 : 1); turn += 1) {
      const queued: { call: Call; commands: readonly Command[] }[] = [];
      for (const schedule of schedules) schedule.step((call, commands) => queued.push({ call, commands }));
      const replies = queued.length === 0 ? [] : await redis.execute(queued.flatMap(({ commands }) => commands));
      let next = 0;
      for (const { call, commands } of queued) {
        call.replies = replies.slice(next, next + commands.length);
        next += commands.length;
      }
      if (isInstant) for (const schedule of schedules) schedule.deliver();
      await settle();
    }
  }
}

const SCHEDULES = 200;

test(`${SCHEDULES} random schedules over five isolates never exceed a limit`, async () => {
  let [leased, admitted, refused] = [0, 0, 0];
  const schedules = Array.from({ length: SCHEDULES }, (_, index) => new Schedule(1 + index, false));
  await play(schedules, 50, false);
  for (const [index, { spent, windowMs, maxRequests, ...schedule }] of schedules.entries()) {
    expect(worstWindow(spent, windowMs), `seed ${1 + index}`).toBeLessThanOrEqual(maxRequests);
    leased += spent.filter((one) => one.leased).length;
    admitted += spent.length;
    refused += schedule.refused;
  }
  // They are worth something: leases are used, and limits reached.
  expect(leased / admitted).toBeGreaterThan(0.1);
  expect(refused).toBeGreaterThan(SCHEDULES);
});

test('with lost replies, one isolate admits at most the limit', async () => {
  const schedules = Array.from({ length: 50 }, (_, index) => new Schedule(10_000 + index, true));
  await play(schedules, 40, true);
  for (const [seed, { spent, windowMs, maxRequests }] of schedules.entries()) {
    for (let isolate = 0; isolate < ISOLATES; isolate += 1) {
      const own = spent.filter((one) => one.isolate === isolate);
      expect(worstWindow(own, windowMs), `seed ${seed}, isolate ${isolate}`).toBeLessThanOrEqual(maxRequests);
    }
  }
});
