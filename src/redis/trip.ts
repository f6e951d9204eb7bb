import { afterFree, blockedMs } from './busy';
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
    const call = this.call(commands);
    this.#options.waitUntil(call.catch(() => undefined));
    let cancel = () => {};
    const deadline = new Promise<never>((_, reject) => {
      cancel = afterFree(this.#remainingMs, () => reject(new RedisUnavailable('deadline')), this.#now);
    });
    try {
      return await Promise.race([call, deadline]);
    } finally {
      cancel();
      this.#remainingMs -= this.#now() - startMs - (blockedMs() - blockedAtStart);
    }
  }

  /** A call, scored. @throws {RedisUnavailable} */
  async call(commands: readonly Command[]): Promise<Reply[]> {
    const { client, breaker } = this.#options;
    const ticket = breaker.ticket();
    try {
      const replies = await client.execute(commands);
      // A server that refuses one command in this way (a replica, out of memory) has not kept up with what it was told:
      // what it says to the others is not to be trusted either.
      const state = replies.find((reply) => reply.error instanceof RedisUnavailable);
      if (state?.error !== undefined) throw state.error;
      breaker.record(true, ticket);
      return replies;
    } catch (error) {
      breaker.record(false, ticket);
      throw error;
    }
  }
}
