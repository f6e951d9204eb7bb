import { blockedMs } from './busy';
import type { Breaker } from './breaker';
import type { Command, RedisClient, Reply } from './client';
import { RedisUnavailable } from './errors';

export interface TripOptions {
  client: RedisClient;
  breaker: Breaker;
  /** Keeps a call alive after the answer. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** What this request may wait for Redis in all, in milliseconds. */
  deadlineMs: number;
  /** When the client gives a call up, in milliseconds. */
  callTimeoutMs: number;
  now?: () => number;
}

/**
 * One request's HTTP calls to Redis: scored for the breaker, and waited for within ONE deadline for all of them.
 */
export class Trips {
  readonly #options: TripOptions;
  readonly #now: () => number;
  #remainingMs: number;

  constructor(options: TripOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#remainingMs = options.deadlineMs;
  }

  set deadlineMs(deadlineMs: number) {
    this.#remainingMs = deadlineMs;
  }

  /** `breaker` or `deadline` when a call would be in vain. */
  get refused(): RedisUnavailable | undefined {
    if (this.#options.breaker.state !== 'closed') return new RedisUnavailable('breaker');
    return this.#remainingMs <= 0 ? new RedisUnavailable('deadline') : undefined;
  }

  /**
   * A call that the request waits for. At the deadline the request stops waiting, but the call goes on: a slow first
   * connection warms up, and the breaker learns the real outcome.
   *
   * @throws {RedisUnavailable}
   */
  async wait(commands: readonly Command[]): Promise<Reply[]> {
    const { refused } = this;
    if (refused !== undefined) throw refused;
    const startMs = this.#now();
    const blockedAtStart = blockedMs();
    let settled = false;
    const call = this.call(commands).finally(() => {
      settled = true;
    });
    this.#options.waitUntil(call.catch(() => undefined));

    let timer: ReturnType<typeof setTimeout> | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        void lookAgain(() => settled).then(() => reject(new RedisUnavailable('deadline')));
      }, this.#remainingMs);
    });
    try {
      return await Promise.race([call, deadline]);
    } finally {
      clearTimeout(timer);
      this.#remainingMs -= this.#now() - startMs - (blockedMs() - blockedAtStart);
    }
  }

  /** A call, scored. @throws {RedisUnavailable} */
  async call(commands: readonly Command[]): Promise<Reply[]> {
    const { client, breaker, callTimeoutMs } = this.#options;
    const ticket = breaker.ticket();
    const startMs = this.#now();
    const blockedAtStart = blockedMs();
    try {
      const replies = await client.execute(commands);
      // A server that refuses one command in this way (a replica, out of memory) has not kept up with what it was told:
      // what it says to the others is not to be trusted either.
      const state = replies.find((reply) => reply.error instanceof RedisUnavailable);
      if (state?.error !== undefined) throw state.error;
      breaker.record(true, ticket);
      return replies;
    } catch (error) {
      // When this isolate was computing for most of the time, a timeout says nothing about Redis.
      const freeMs = this.#now() - startMs - (blockedMs() - blockedAtStart);
      const ours = error instanceof RedisUnavailable && error.reason === 'timeout' && freeMs < callTimeoutMs / 2;
      if (!ours) breaker.record(false, ticket);
      throw error;
    }
  }
}

/**
 * A timer that fires late (the isolate was busy) must not beat an answer that has already arrived: lets the event loop
 * take in what is there. Head and body of a response need a turn each.
 */
async function lookAgain(done: () => boolean): Promise<void> {
  for (let turn = 0; turn < 4 && !done(); turn += 1) {
    await new Promise<void>((resolve) => {
      setTimeout(resolve, 0);
    });
  }
}
