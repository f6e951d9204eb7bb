import { blockedMs } from './busy';
import type { Breaker } from './breaker';
import type { Argument, Command, RedisClient, RedisValue, Reply } from './client';
import { RedisReplyError, RedisUnavailable } from './errors';
import type { Script } from './script';

export interface RedisBatchOptions {
  client: RedisClient;
  breaker: Breaker;
  /** Keeps a call alive after the answer. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** What this request may wait for Redis in all, in milliseconds. */
  deadlineMs: number;
  now?: () => number;
}

interface Slot {
  command: Command;
  script: Script | undefined;
  resolve: (value: RedisValue) => void;
  reject: (error: unknown) => void;
}

/** Blocking round trips and commands of one request, for the benchmark and for tests. */
export interface BatchCounts {
  blockingTrips: number;
  deferredTrips: number;
  commands: number;
}

/**
 * One request's way to Redis. Commands issued in the same turn leave as ONE pipeline, in the order issued, and each
 * gets its own result or error.
 *
 * @example
 * const [name, visits] = await Promise.all([batch.send('GET', key), batch.send('INCR', counter)]); // one HTTP request
 */
export class RedisBatch {
  readonly counts: BatchCounts = { blockingTrips: 0, deferredTrips: 0, commands: 0 };
  readonly #options: RedisBatchOptions;
  readonly #now: () => number;
  #slots: Slot[] = [];
  #deferred: { command: Command; script: Script | undefined }[] = [];
  #held = 0;
  #scheduled = false;
  #answered = false;
  #remainingMs: number;

  constructor(options: RedisBatchOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#remainingMs = options.deadlineMs;
  }

  /** Gives the request another deadline for the Redis work that it has yet to do (auth routes have a longer one). */
  setDeadline(deadlineMs: number): void {
    this.#remainingMs = deadlineMs;
  }

  /** @throws {RedisUnavailable | RedisReplyError} */
  send(...command: Command): Promise<RedisValue> {
    return this.#enqueue(command, undefined);
  }

  /** Runs a script by its SHA; a server that does not know it yet gets its text, in one more trip. */
  run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue> {
    return this.#enqueue(['EVALSHA', script.sha, keys.length, ...keys, ...args], script);
  }

  /** Sends a command after the answer, together with the others of its kind. Its outcome is only logged. */
  defer(...command: Command): void {
    this.#later(command, undefined);
  }

  /** {@link run}, after the answer. */
  deferRun(script: Script, keys: readonly string[], args: readonly Argument[]): void {
    this.#later(['EVALSHA', script.sha, keys.length, ...keys, ...args], script);
  }

  /**
   * Collects across turns: nothing leaves until the returned function is called. With `false` it drops what was
   * collected, and those calls are rejected.
   */
  hold(): (send?: boolean) => void {
    this.#held += 1;
    let released = false;
    return (send = true) => {
      if (released) return;
      released = true;
      this.#held -= 1;
      if (!send) for (const slot of this.#slots.splice(0)) slot.reject(new RedisUnavailable('breaker'));
      else if (this.#held === 0) this.#flush();
    };
  }

  /** Sends what was deferred, as one pipeline. Called once the answer is made, in `waitUntil`. */
  async settle(): Promise<void> {
    this.#answered = true;
    const deferred = this.#deferred.splice(0);
    if (deferred.length === 0 || this.#options.breaker.state !== 'closed') return;
    this.counts.deferredTrips += 1;
    this.counts.commands += deferred.length;
    const replies = await this.#call(deferred.map(({ command }) => command));
    const unknown = deferred.filter((_, index) => isNoScript(replies[index]));
    if (unknown.length > 0) await this.#call(unknown.map(({ command, script }) => withText(command, script)));
  }

  #later(command: Command, script: Script | undefined): void {
    this.#deferred.push({ command, script });
    // A load that outlived its request still fills the cache.
    if (!this.#answered || this.#deferred.length > 1) return;
    queueMicrotask(() => {
      this.#options.waitUntil(this.settle().catch(() => undefined));
    });
  }

  #enqueue(command: Command, script: Script | undefined): Promise<RedisValue> {
    return new Promise((resolve, reject) => {
      this.#slots.push({ command, script, resolve, reject });
      if (this.#held > 0 || this.#scheduled) return;
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        if (this.#held === 0) this.#flush();
      });
    });
  }

  #flush(): void {
    const slots = this.#slots.splice(0);
    if (slots.length === 0) return;
    this.#dispatch(slots).catch((error: unknown) => {
      for (const slot of slots) slot.reject(error);
    });
  }

  /** Settles every slot, or throws what they all fail with. */
  async #dispatch(slots: readonly Slot[]): Promise<void> {
    const replies = await this.#wait(slots.map((slot) => slot.command));
    const unknown: Slot[] = [];
    slots.forEach((slot, index) => {
      const reply = replies[index];
      if (slot.script !== undefined && isNoScript(reply)) unknown.push(slot);
      else settleSlot(slot, reply);
    });
    if (unknown.length === 0) return;
    const healed = await this.#wait(unknown.map((slot) => withText(slot.command, slot.script)));
    unknown.forEach((slot, index) => settleSlot(slot, healed[index]));
  }

  /** One trip that the request waits for, within what is left of its deadline. */
  async #wait(commands: readonly Command[]): Promise<Reply[]> {
    if (this.#options.breaker.state !== 'closed') throw new RedisUnavailable('breaker');
    if (this.#remainingMs <= 0) throw new RedisUnavailable('deadline');
    this.counts.blockingTrips += 1;
    this.counts.commands += commands.length;

    const startMs = this.#now();
    const blockedAtStart = blockedMs();
    let settled = false;
    const call = this.#call(commands).finally(() => {
      settled = true;
    });
    // The request may stop waiting; the call goes on, so that a slow first connection warms up and the breaker learns.
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

  /** One trip, scored. */
  async #call(commands: readonly Command[]): Promise<Reply[]> {
    const { client, breaker } = this.#options;
    const blockedAtStart = blockedMs();
    try {
      const replies = await client.execute(commands);
      breaker.record(!replies.some((reply) => reply.error instanceof RedisUnavailable));
      return replies;
    } catch (error) {
      // A timeout while this isolate computed says nothing about Redis.
      const ours = error instanceof RedisUnavailable && error.reason === 'timeout' && blockedMs() > blockedAtStart;
      if (!ours) breaker.record(false);
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

function settleSlot(slot: Slot, reply: Reply | undefined): void {
  if (reply === undefined) slot.reject(new RedisUnavailable('garbage'));
  else if (reply.error === undefined) slot.resolve(reply.value);
  else slot.reject(reply.error);
}

function isNoScript(reply: Reply | undefined): boolean {
  return reply?.error instanceof RedisReplyError && reply.error.code === 'NOSCRIPT';
}

/** The EVALSHA command as the EVAL that means the same. */
function withText([, , ...rest]: Command, script: Script | undefined): Command {
  return ['EVAL', script?.text ?? '', ...rest];
}
