import type { Argument, Command, RedisValue, Reply } from './client';
import { RedisReplyError, RedisUnavailable } from './errors';
import type { Script } from './script';
import { Trips } from './trip';
import type { TripOptions } from './trip';

export interface RedisBatchOptions extends TripOptions {
  /** Whether the server accepts Upstash's key-locking flag at the head of scripts. @default false */
  keyLocking?: boolean;
}

interface Slot {
  command: Command;
  /** The script's text, for a server that does not have it cached. */
  text: string | undefined;
  resolve: (value: RedisValue) => void;
  reject: (error: unknown) => void;
}

/**
 * Sends the Redis commands of one request. Commands issued in the same turn leave as ONE pipeline, in the order issued.
 * Each gets its own result or error.
 *
 * @example
 * const [name, visits] = await Promise.all([batch.send('GET', key), batch.send('INCR', counter)]); // one HTTP request
 */
export interface RedisBatch {
  /** Sets another deadline for the request's further Redis work (auth routes have a longer one). */
  setDeadline(deadlineMs: number): void;
  /** @throws {RedisUnavailable | RedisReplyError} */
  send(...command: Command): Promise<RedisValue>;
  /** Runs a script by its SHA. A server without the script gets its text, in one more trip. */
  run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue>;
  /**
   * {@link run}, but sent after the response, in one pipeline with all other deferred work. The promise may be ignored: an
   * unhandled rejection is not reported.
   */
  deferRun(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue>;
  /**
   * Sends commands now, in a separate pipeline. The request does not wait for it, and it does not count against the
   * request's deadline.
   *
   * @throws {RedisUnavailable | RedisReplyError}
   */
  aside(...commands: Command[]): Promise<RedisValue[]>;
  /** {@link run}, now and in a separate pipeline, as {@link aside}. @throws {RedisUnavailable | RedisReplyError} */
  runAside(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue>;
  /** Collects commands across turns: none is sent until the returned function is called. */
  hold(): () => void;
  /** Sends the deferred commands as one pipeline. Called when the response is ready; `undefined` when there are none. */
  settle(): Promise<void> | undefined;
}

export function createRedisBatch(options: RedisBatchOptions): RedisBatch {
  return new PipelinedBatch(options);
}

class PipelinedBatch implements RedisBatch {
  readonly #trips: Trips;
  readonly #waitUntil: RedisBatchOptions['waitUntil'];
  readonly #keyLocking: boolean;
  #slots: Slot[] = [];
  #deferred: Slot[] = [];
  #held = 0;
  #scheduled = false;
  #responded = false;

  constructor(options: RedisBatchOptions) {
    this.#trips = new Trips(options);
    this.#waitUntil = options.waitUntil;
    this.#keyLocking = options.keyLocking ?? false;
  }

  setDeadline(deadlineMs: number): void {
    this.#trips.deadlineMs = deadlineMs;
  }

  send(...command: Command): Promise<RedisValue> {
    return this.#enqueue(command, undefined);
  }

  run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue> {
    const { text, sha } = this.#keyLocking ? script.locking : script;
    return this.#enqueue(['EVALSHA', sha, keys.length, ...keys, ...args], text);
  }

  deferRun(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue> {
    const { text, sha } = this.#keyLocking ? script.locking : script;
    const outcome = new Promise<RedisValue>((resolve, reject) => {
      this.#deferred.push({ command: ['EVALSHA', sha, keys.length, ...keys, ...args], text, resolve, reject });
    });
    outcome.catch(() => undefined);
    // A load that outlives its request still fills the cache.
    if (this.#responded && this.#deferred.length === 1) queueMicrotask(() => this.#waitUntil(this.#sendDeferred()));
    return outcome;
  }

  aside(...commands: Command[]): Promise<RedisValue[]> {
    const slots: Slot[] = [];
    const replies = commands.map(
      (command) =>
        new Promise<RedisValue>((resolve, reject) => slots.push({ command, text: undefined, resolve, reject })),
    );
    const all = Promise.all(replies);
    all.catch(() => undefined);
    this.#waitUntil(this.#sendUnawaited(slots));
    return all;
  }

  runAside(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<RedisValue> {
    const { text, sha } = this.#keyLocking ? script.locking : script;
    const outcome = new Promise<RedisValue>((resolve, reject) => {
      const command: Command = ['EVALSHA', sha, keys.length, ...keys, ...args];
      this.#waitUntil(this.#sendUnawaited([{ command, text, resolve, reject }]));
    });
    outcome.catch(() => undefined);
    return outcome;
  }

  hold(): () => void {
    this.#held += 1;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.#held -= 1;
      if (this.#held === 0) this.#flush();
    };
  }

  settle(): Promise<void> | undefined {
    this.#responded = true;
    return this.#deferred.length === 0 ? undefined : this.#sendDeferred();
  }

  #sendDeferred(): Promise<void> {
    return this.#sendUnawaited(this.#deferred.splice(0));
  }

  async #sendUnawaited(slots: readonly Slot[]): Promise<void> {
    try {
      const { refused } = this.#trips;
      if (refused?.reason === 'breaker') throw refused;
      await this.#dispatch(slots, (commands) => this.#trips.call(commands));
    } catch (error) {
      rejectAll(slots, error);
    }
  }

  #enqueue(command: Command, text: string | undefined): Promise<RedisValue> {
    return new Promise((resolve, reject) => {
      this.#slots.push({ command, text, resolve, reject });
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
    this.#dispatch(slots, (commands) => this.#trips.wait(commands)).catch((error: unknown) => rejectAll(slots, error));
  }

  /** Settles every slot, or throws the error that all of them fail with. */
  async #dispatch(slots: readonly Slot[], trip: (commands: Command[]) => Promise<Reply[]>): Promise<void> {
    const replies = await trip(slots.map((slot) => slot.command));
    const unknown: Slot[] = [];
    slots.forEach((slot, index) => {
      const reply = replies[index];
      if (slot.text !== undefined && isNoScript(reply)) unknown.push(slot);
      else settleSlot(slot, reply);
    });
    if (unknown.length === 0) return;
    const healed = await trip(unknown.map((slot) => withText(slot)));
    unknown.forEach((slot, index) => settleSlot(slot, healed[index]));
  }
}

/** Turns an EVALSHA command into the equivalent EVAL. */
function withText({ command: [, , ...rest], text = '' }: Slot): Command {
  return ['EVAL', text, ...rest];
}

function isNoScript(reply: Reply | undefined): boolean {
  return reply?.error instanceof RedisReplyError && reply.error.code === 'NOSCRIPT';
}

function settleSlot(slot: Slot, reply: Reply | undefined): void {
  if (reply === undefined) slot.reject(new RedisUnavailable('garbage'));
  else if (reply.error === undefined) slot.resolve(reply.value);
  else slot.reject(reply.error);
}

/** Slots that are already settled are not affected. */
function rejectAll(slots: readonly Slot[], error: unknown): void {
  for (const slot of slots) slot.reject(error);
}
