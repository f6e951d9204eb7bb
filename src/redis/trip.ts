import { afterFree, blockedMs } from '../util/busy';
import type { InSpan } from '../util/spans';
import type { Breaker } from './breaker';
import type { Command, RedisClient, Reply } from './client';
import { RedisUnavailable } from './errors';
import { createShards } from './shards';
import type { Shards } from './shards';

export interface TripOptions {
  client: RedisClient;
  breaker: Breaker;
  /** The isolate's knowledge of Redis's shards. @default a new one, which lives only as long as the request */
  shards?: Shards;
  /** Keeps a call alive after the response. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** Called after each call with its duration, the reason of its failure (`''`: none), and its number of commands. */
  observe?: TripObserver | undefined;
  /** `undefined`: the request is not traced. */
  inSpan?: InSpan | undefined;
  /** Counts the calls that the request waits for. */
  counts?: TripCounts | undefined;
  /** How long this request may wait for Redis in all, in milliseconds. */
  deadlineMs: number;
  /** A call that the request no longer waits for is abandoned after this time, in milliseconds. */
  callTimeoutMs: number;
  now?: () => number;
}

export type TripObserver = (durationMs: number, error: string, commands: number) => void;

export interface TripCounts {
  blocking: number;
}

/**
 * The HTTP calls of one request to Redis. The breakers score each call. All calls share ONE deadline: the total time in
 * which the request waits for at least one of them.
 */
export class Trips {
  readonly #options: TripOptions;
  readonly #shards: Shards;
  readonly #now: () => number;
  /** Not reduced by a wait that is still in progress. */
  #remainingMs: number;
  /** The number of calls that the request waits for at present; below, when it began to wait. */
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

  /** Why a call would be pointless: `breaker` or `deadline`. */
  get refused(): RedisUnavailable | undefined {
    if (this.#options.breaker.state !== 'closed') return new RedisUnavailable('breaker');
    return this.#leftMs() <= 0 ? new RedisUnavailable('deadline') : undefined;
  }

  /**
   * A call that the request waits for. At the deadline the request stops waiting, but the call continues: a slow first
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
    if (this.#options.counts !== undefined) this.#options.counts.blocking += 1;
    const { outcome, giveUpAfter } = this.#start(commands);
    this.#options.waitUntil(outcome.catch(() => undefined));
    let cancel = () => {};
    try {
      return await new Promise<Reply[]>((resolve, reject) => {
        cancel = afterFree(
          leftMs,
          () => {
            reject(new RedisUnavailable('deadline'));
            giveUpAfter(this.#options.callTimeoutMs - leftMs);
          },
          this.#now,
        );
        outcome.then(resolve, reject);
      });
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

  /** The remaining deadline. Time in which this isolate itself was blocked does not count. */
  #leftMs(): number {
    if (this.#waits === 0) return this.#remainingMs;
    return this.#remainingMs - (this.#now() - this.#waitingSinceMs - (blockedMs() - this.#blockedAtStart));
  }

  /**
   * Starts a call without the commands of shards that are out, and scores its outcome. An abandoned call is not aborted:
   * the runtime aborts it when the request's last promise has settled, and an abort signal for every call would cost more
   * than it saves.
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

  /** Every call is made here. */
  #call(commands: readonly Command[]): { outcome: Promise<Reply[]>; giveUpAfter: (ms: number) => void } {
    const { client, breaker, waitUntil, observe, inSpan } = this.#options;
    const ticket = breaker.ticket();
    const startedMs = this.#now();
    let cancel = () => {};
    let giveUp: (error: RedisUnavailable) => void = () => {};
    const record = (score: boolean | undefined) => {
      if (score !== undefined) breaker.record(score, ticket);
    };
    const received = new Promise<Reply[]>((resolve, reject) => {
      giveUp = reject;
      const replies =
        inSpan === undefined
          ? client.execute(commands)
          : inSpan('redis PIPELINE', { ...REDIS_SPAN, 'db.operation.batch.size': commands.length }, () =>
              client.execute(commands),
            );
      replies.then(resolve, reject);
    });
    const outcome = received.then(
      (replies) => {
        cancel();
        const judged = this.#shards.judge(commands, replies);
        if (judged.score instanceof Promise) waitUntil(judged.score.then(record));
        else record(judged.score);
        observe?.(this.#now() - startedMs, judged.score === true ? '' : failureOf(replies), commands.length);
        return judged.replies;
      },
      (error: unknown) => {
        cancel();
        record(false);
        observe?.(this.#now() - startedMs, reasonOf(error), commands.length);
        throw error;
      },
    );
    return {
      outcome,
      giveUpAfter: (ms) => {
        cancel = afterFree(Math.max(1, ms), () => giveUp(new RedisUnavailable('timeout')), this.#now);
      },
    };
  }
}

const REDIS_SPAN = { 'db.system.name': 'redis', 'db.operation.name': 'PIPELINE' };

/** Why some of the commands could not be served. */
function failureOf(replies: readonly Reply[]): string {
  for (const { error } of replies) if (error instanceof RedisUnavailable) return error.reason;
  return '';
}

const reasonOf = (error: unknown) => (error instanceof RedisUnavailable ? error.reason : 'other');

const noCall = () => ({ outcome: Promise.resolve<Reply[]>([]), giveUpAfter: () => undefined });
