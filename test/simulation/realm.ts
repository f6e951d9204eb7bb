import { AsyncLocalStorage } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { Script } from 'node:vm';

import { createCrypto } from './crypto.ts';
import type { Random } from './random.ts';

/** The Worker's default export. */
export interface Worker {
  fetch(request: Request, env: object, ctx: object): Promise<Response>;
  scheduled(controller: object, env: object, ctx: object): Promise<void>;
}

/** What the globals of an isolate stand for while a run uses it. */
export interface Surroundings {
  /** The isolate's own clock, in milliseconds since the Unix epoch. */
  nowMs(): number;
  random: Random;
  setTimer(run: () => void, ms: number): number;
  clearTimer(id: number): void;
  fetch(url: string, init: { body: string; headers?: Record<string, string> }): Promise<unknown>;
  /** `connect` of `cloudflare:sockets`. */
  connect(): object;
  log(line: string): void;
}

/** A Worker in an isolate whose clock, timers, randomness, network and log belong to the simulation. */
export interface Realm {
  readonly worker: Worker;
  /** The run's isolate that lives in it. What an earlier one has left behind is never called again. */
  surroundings: Surroundings | undefined;
}

const NAMES = [
  'require',
  'Date',
  'Math',
  'performance',
  'setTimeout',
  'clearTimeout',
  'setInterval',
  'fetch',
  'crypto',
  'console',
  'caches',
  'navigator',
  'WeakRef',
] as const;

/** In place of `WeakRef`: when the collector runs must not decide what happens. */
class StrongRef<T> {
  readonly #target: T;

  constructor(target: T) {
    this.#target = target;
  }

  deref(): T {
    return this.#target;
  }
}

/** Compiles the bundle once; each call of the result evaluates it anew, which is what makes a new isolate's module state. */
export function realmsOf(bundle: string): () => Realm {
  const script = new Script(`(function (${NAMES.join(', ')}) {\n${bundle}\nreturn worker.default; })`, {
    filename: 'worker.js',
  });
  return () => {
    const evaluate = script.runInThisContext() as (...globals: unknown[]) => Worker;
    const realm: { worker?: Worker; surroundings: Surroundings | undefined } = { surroundings: undefined };
    const own = (): Surroundings => {
      if (realm.surroundings === undefined) throw new Error('code of an isolate runs outside a simulation');
      return realm.surroundings;
    };
    const globals = globalsOf(own);
    realm.worker = evaluate(...NAMES.map((name) => globals[name]));
    return realm as Realm;
  };
}

function globalsOf(own: () => Surroundings): Record<(typeof NAMES)[number], unknown> {
  const { webcrypto, forNode } = createCrypto(() => own().random);
  const require = createRequire(import.meta.url);

  class SimulatedDate extends Date {
    constructor(...given: unknown[]) {
      if (given.length === 0) super(Math.floor(own().nowMs()));
      else super(...(given as [number]));
    }

    static override now(): number {
      return Math.floor(own().nowMs());
    }
  }

  const math = Object.create(Math) as Math;
  math.random = () => own().random.next();
  const write = (...parts: unknown[]) => own().log(parts.join(' '));

  return {
    require(name: string): unknown {
      if (name === 'cloudflare:sockets') return { connect: () => own().connect() };
      return name === 'node:crypto' || name === 'crypto' ? forNode : require(name);
    },
    Date: SimulatedDate,
    Math: math,
    performance: { now: () => own().nowMs() },
    setTimeout(run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) {
      // Timers run in the asynchronous context that set them, as in workerd.
      const inContext = AsyncLocalStorage.bind(() => run(...args));
      return own().setTimer(inContext, ms);
    },
    clearTimeout: (id: number | undefined) => (id === undefined ? undefined : own().clearTimer(id)),
    setInterval() {
      throw new Error('setInterval is not simulated');
    },
    fetch: (url: string, init: { body: string }) => own().fetch(url, init),
    crypto: webcrypto,
    console: { debug: write, info: write, log: write, warn: write, error: write },
    caches: undefined,
    navigator: { userAgent: 'Cloudflare-Workers' },
    WeakRef: StrongRef,
  };
}
