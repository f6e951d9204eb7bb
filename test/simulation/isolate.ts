import { AsyncLocalStorage } from 'node:async_hooks';

import type { Random } from './random.ts';
import type { Realm } from './realm.ts';
import type { Scheduler } from './scheduler.ts';

/** How a clock differs from the world's. */
export interface Clock {
  offsetMs: number;
  /** Parts per million that it is fast. */
  driftPpm: number;
}

/** What keeps a request or cron run alive, as workerd's IoContext: when it ends, so do its timers and calls. */
export class Invocation {
  readonly isolate: Isolate;
  readonly label: string;
  open = true;
  /** D1 calls so far: Cloudflare allows 1,000. */
  databaseCalls = 0;
  /** The same counted as round trips. */
  databaseTrips = 0;
  /** Whether it is a request that only reads. */
  readonly isRead: boolean;
  redisCalls = 0;
  /** The last call that Redis has replied to: when it was sent, and when the reply arrived. */
  replied: { sentMs: number; atMs: number } | undefined;
  #pending = 0;
  #responded = false;

  constructor(isolate: Isolate, label: string, isRead: boolean) {
    this.isolate = isolate;
    this.label = label;
    this.isRead = isRead;
  }

  waitUntil(promise: Promise<unknown>): void {
    this.#pending += 1;
    void Promise.allSettled([promise]).then(() => {
      this.#pending -= 1;
      this.#endIfDone();
    });
  }

  /** The handler is done; what `waitUntil` was given goes on for at most `graceMs`. */
  responded(scheduler: Scheduler, graceMs: number): void {
    this.#responded = true;
    scheduler.after(graceMs, () => this.end());
    this.#endIfDone();
  }

  end(): void {
    this.open = false;
    this.isolate.invocations.delete(this);
  }

  #endIfDone(): void {
    if (this.#responded && this.#pending === 0) this.end();
  }
}

const current = new AsyncLocalStorage<Invocation>();

/** The invocation whose code runs at the moment. */
export function currentInvocation(): Invocation {
  const invocation = current.getStore();
  if (invocation === undefined) throw new Error('an isolate does something outside of every invocation');
  return invocation;
}

/** The label of a scheduled run. */
export const CRON = 'cron';

/** Work after the response may go on for this long (Cloudflare's limit for `waitUntil`); a cron run for 15 minutes. */
const GRACE_MS = 30_000;
const CRON_MS = 15 * 60_000;

export interface IsolateOptions {
  name: string;
  /** Which of the isolates it is: its successor has the same. */
  index: number;
  realm: Realm;
  env: object;
  clock: Clock;
  scheduler: Scheduler;
  random: Random;
  fetch: (invocation: Invocation, body: string) => Promise<unknown>;
  connect: (invocation: Invocation) => object;
  log: (isolate: Isolate, line: string) => void;
}

/** One life of an isolate: module state, clock and everything that it has under way. Killed, it never runs again. */
export class Isolate {
  readonly name: string;
  readonly index: number;
  readonly clock: Clock;
  readonly bornAtMs: number;
  readonly invocations = new Set<Invocation>();
  alive = true;
  diedAtMs = Number.POSITIVE_INFINITY;
  /** When its log last said that it trusts a Redis that is back. */
  trustedAtMs = Number.NEGATIVE_INFINITY;
  /** When its log last said that a probe has failed; reset when it trusts Redis again. */
  probeFailedAtMs = Number.NEGATIVE_INFINITY;
  /** When requests arrived: an isolate finds out about Redis only while it serves. */
  readonly servedAtMs: number[] = [];
  readonly #options: IsolateOptions;
  #timers = 0;
  readonly #cancels = new Map<number, () => void>();

  constructor(options: IsolateOptions) {
    this.#options = options;
    this.name = options.name;
    this.index = options.index;
    this.clock = options.clock;
    const { scheduler } = options;
    this.bornAtMs = scheduler.nowMs;
    options.realm.surroundings = {
      nowMs: () => this.nowMs,
      random: options.random,
      setTimer: (run, ms) => this.#setTimer(run, ms),
      clearTimer: (id) => {
        this.#cancels.get(id)?.();
        this.#cancels.delete(id);
      },
      fetch: (_url, { body }) => options.fetch(currentInvocation(), body),
      connect: () => options.connect(currentInvocation()),
      log: (line) => options.log(this, line),
    };
  }

  get nowMs(): number {
    const { nowMs } = this.#options.scheduler;
    return nowMs + this.clock.offsetMs + ((nowMs - this.bornAtMs) * this.clock.driftPpm) / 1e6;
  }

  /** Never settles when the isolate dies first. */
  async serve(label: string, request: Request): Promise<{ response: Response; invocation: Invocation }> {
    const invocation = this.#begin(label, request.method === 'GET');
    const { realm, env, scheduler } = this.#options;
    this.servedAtMs.push(scheduler.nowMs);
    const ctx = {
      waitUntil: (promise: Promise<unknown>) => invocation.waitUntil(promise),
      passThroughOnException() {},
    };
    const response = await current.run(invocation, () => realm.worker.fetch(request, env, ctx));
    invocation.responded(scheduler, GRACE_MS);
    return { response, invocation };
  }

  async scheduled(): Promise<void> {
    const invocation = this.#begin(CRON);
    const { realm, env, scheduler } = this.#options;
    const ctx = {
      waitUntil: (promise: Promise<unknown>) => invocation.waitUntil(promise),
      passThroughOnException() {},
    };
    scheduler.after(CRON_MS, () => invocation.end());
    await current.run(invocation, () => realm.worker.scheduled({ cron: '* * * * *' }, env, ctx));
    invocation.responded(scheduler, GRACE_MS);
  }

  kill(): void {
    this.alive = false;
    this.diedAtMs = this.#options.scheduler.nowMs;
    for (const invocation of this.invocations) invocation.open = false;
    for (const cancel of this.#cancels.values()) cancel();
    this.#cancels.clear();
    this.#options.realm.surroundings = undefined;
  }

  #begin(label: string, isRead = false): Invocation {
    const invocation = new Invocation(this, label, isRead);
    this.invocations.add(invocation);
    return invocation;
  }

  #setTimer(run: () => void, ms: number): number {
    const invocation = currentInvocation();
    const id = (this.#timers += 1);
    const cancel = this.#options.scheduler.after(Number.isFinite(ms) ? ms : 0, () => {
      this.#cancels.delete(id);
      if (invocation.open && this.alive) run();
    });
    this.#cancels.set(id, cancel);
    return id;
  }
}
