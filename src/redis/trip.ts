import { afterFree, blockedMs } from './busy';
import type { Breaker } from './breaker';
import type { Command, RedisClient, Reply } from './client';
import { RedisUnavailable } from './errors';
import { createShards } from './shards';
import type { Shards } from './shards';

export interface TripOptions {
  client: RedisClient;
  breaker: Breaker;
  /** What the isolate knows of Redis's shards. @default nothing yet, and it is forgotten with the request */
  shards?: Shards;
  /** Keeps a call alive after the response. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** What this request may wait for Redis in all, in milliseconds. */
  deadlineMs: number;
  /** When a call that the request no longer waits for is given up, in milliseconds. */
  callTimeoutMs: number;
  now?: () => number;
}

/**
 * One request's HTTP calls to Redis: scored for the breakers, and waited for within ONE deadline for all of them. The
 * deadline is the time during which the request waits for at least one of them.
 */
export class Trips {
  readonly #options: TripOptions;
  readonly #shards: Shards;
  readonly #now: () => number;
  /** Without the wait that is going on. */
  #remainingMs: number;
  /** Calls that the request waits for at present, and since when it has waited for at least one. */
  #waits = 0;
  #waitingSinceMs = 0;
  #blockedAtStart = 0;

  constructor(options: TripOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#shards =
      options.shards ?? createShards({ client: options.client, probeMs: 1_000, probeMaxMs: 30_000, now: this.#now });
    this.#remainingMs = options.deadlineMs;
  }

  set deadlineMs(deadlineMs: number) {
    this.#remainingMs = deadlineMs;
    this.#beginWaiting();
  }

  /** `breaker` or `deadline` when a call would be in vain. */
  get refused(): RedisUnavailable | undefined {
    if (this.#options.breaker.state !== 'closed') return new RedisUnavailable('breaker');
    return this.#leftMs() <= 0 ? new RedisUnavailable('deadline') : undefined;
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
    const leftMs = this.#leftMs();
    if (this.#waits === 0) this.#beginWaiting();
    this.#waits += 1;
    const { outcome, giveUpAfter } = this.#start(commands);
    let cancel = () => {};
    const deadline = new Promise<never>((_, reject) => {
      cancel = afterFree(
        leftMs,
        () => {
          reject(new RedisUnavailable('deadline'));
          giveUpAfter(this.#options.callTimeoutMs - leftMs);
        },
        this.#now,
      );
    });
    this.#options.waitUntil(outcome.catch(() => undefined));
    try {
      return await Promise.race([outcome, deadline]);
    } finally {
      cancel();
      this.#remainingMs = this.#leftMs();
      this.#beginWaiting();
      this.#waits -= 1;
    }
  }

  /** A call that the request does not wait for. @throws {RedisUnavailable} */
  call(commands: readonly Command[]): Promise<Reply[]> {
    const { outcome, giveUpAfter } = this.#start(commands);
    giveUpAfter(this.#options.callTimeoutMs);
    return outcome;
  }

  #beginWaiting(): void {
    this.#waitingSinceMs = this.#now();
    this.#blockedAtStart = blockedMs();
  }

  /** What is left of the deadline now. Time in which this isolate itself was blocked is free. */
  #leftMs(): number {
    if (this.#waits === 0) return this.#remainingMs;
    return this.#remainingMs - (this.#now() - this.#waitingSinceMs - (blockedMs() - this.#blockedAtStart));
  }

  /**
   * Starts a call without the commands of shards that are out, and scores its outcome. What is given up is not aborted:
   * the runtime does that when the request's last promise has settled, and a signal for every call would cost more than
   * all that it could save.
   */
  #start(commands: readonly Command[]): { outcome: Promise<Reply[]>; giveUpAfter: (ms: number) => void } {
    const shards = this.#shards;
    const sent = commands.filter((command) => !shards.isOut(command));
    if (sent.length === commands.length) return this.#call(commands);
    const isSent = new Set(sent);
    const { outcome, giveUpAfter } = sent.length > 0 ? this.#call(sent) : noCall();
    const whole = outcome.then((replies) => {
      const arrived = replies.values();
      return commands.map((command): Reply => {
        const reply = isSent.has(command) ? arrived.next().value : undefined;
        return reply ?? { error: new RedisUnavailable('breaker') };
      });
    });
    return { outcome: whole, giveUpAfter };
  }

  /** The one place where a call is made. */
  #call(commands: readonly Command[]): { outcome: Promise<Reply[]>; giveUpAfter: (ms: number) => void } {
    const { client, breaker, waitUntil } = this.#options;
    const ticket = breaker.ticket();
    let giveUp: (error: RedisUnavailable) => void = () => {};
    let cancel = () => {};
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    const record = (score: boolean | undefined) => {
      if (score !== undefined) breaker.record(score, ticket);
    };
    const attempt = async () => {
      try {
        const received = await Promise.race([client.execute(commands), givenUp]);
        const { replies, score } = this.#shards.judge(commands, received);
        if (score instanceof Promise) waitUntil(score.then(record));
        else record(score);
        return replies;
      } catch (error) {
        record(false);
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

const noCall = () => ({ outcome: Promise.resolve<Reply[]>([]), giveUpAfter: () => undefined });
