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
  /** When a call that nobody waits for any more is given up, in milliseconds. */
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
    const { outcome, giveUpAfter } = this.#start(commands);
    let cancel = () => {};
    const deadline = new Promise<never>((_, reject) => {
      cancel = afterFree(
        this.#remainingMs,
        () => {
          reject(new RedisUnavailable('deadline'));
          giveUpAfter(this.#options.callTimeoutMs - this.#remainingMs);
        },
        this.#now,
      );
    });
    this.#options.waitUntil(outcome.catch(() => undefined));
    try {
      return await Promise.race([outcome, deadline]);
    } finally {
      cancel();
      this.#remainingMs -= this.#now() - startMs - (blockedMs() - blockedAtStart);
    }
  }

  /** A call that nobody waits for. @throws {RedisUnavailable} */
  call(commands: readonly Command[]): Promise<Reply[]> {
    const { outcome, giveUpAfter } = this.#start(commands);
    giveUpAfter(this.#options.callTimeoutMs);
    return outcome;
  }

  /**
   * Starts a call and scores its outcome. What is given up is not aborted: the runtime does that when the request's last
   * promise has settled, and a signal for every call would cost more than all that it could save.
   */
  #start(commands: readonly Command[]): { outcome: Promise<Reply[]>; giveUpAfter: (ms: number) => void } {
    const { client, breaker } = this.#options;
    const ticket = breaker.ticket();
    let giveUp: (error: RedisUnavailable) => void = () => {};
    let cancel = () => {};
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    const attempt = async () => {
      try {
        const replies = await Promise.race([client.execute(commands), givenUp]);
        // A server that refuses one command in this way (a replica, out of memory) has not kept up with what it was
        // told: what it says to the others is not to be trusted either.
        const state = replies.find((reply) => reply.error instanceof RedisUnavailable);
        if (state?.error !== undefined) throw state.error;
        breaker.record(true, ticket);
        return replies;
      } catch (error) {
        breaker.record(false, ticket);
        throw error;
      } finally {
        cancel();
      }
    };
    return {
      outcome: attempt(),
      giveUpAfter: (ms) => {
        cancel = afterFree(Math.max(1, ms), () => giveUp(new RedisUnavailable('timeout')), this.#now);
      },
    };
  }
}
