import { AsyncLocalStorage } from 'node:async_hooks';

import type { Database } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { CacheReads } from './cache/reader';
import type { ManualFills } from './cache/intents';
import { RequestAccounts } from './requestAccounts';
import type { Device } from './session/device';

/** An isolate's services by name. Each service module adds its own by declaration merging. */
// oxlint-disable-next-line typescript/no-empty-interface, typescript/no-empty-object-type -- filled by the service modules
export interface ServiceMap {}

/** What one request brings along. */
export interface ScopeParts {
  services: ServiceMap;
  /** The request's own pipeline to Redis, with the deadline that all its calls share. */
  batch: RedisBatch;
  database: Database;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random: () => number;
  /** The runtime's: keeps the request's context alive until the promise has settled. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** Where the request comes from. */
  origin: () => Device;
  /** Called with each new degradation. */
  onDegraded?: (what: string) => void;
  /** Entries that are fresh for less than this are loaded anew before they are served: for warming. */
  refreshWithinMs?: number;
}

/**
 * What belongs to one request, as opposed to its isolate: the services are made once and find the scope of the request
 * that calls them. It ends when the response is made and everything that was given to {@link waitUntil} has settled.
 */
export class RequestScope {
  readonly services: ServiceMap;
  readonly batch: RedisBatch;
  readonly database: Database;
  readonly now: () => number;
  readonly random: () => number;
  readonly origin: () => Device;
  readonly refreshWithinMs: number | undefined;
  /** Policies that this request had to fall back on, such as `limiter=local`: for a response header and the log. */
  readonly degraded = new Set<string>();
  /** Called once the response is made. */
  readonly afterResponse: (() => void)[] = [];
  /** Cache entries that this request has read. */
  readonly cacheReads: CacheReads = new Map();
  /** Users that this request has read along with its check for revoked tokens. */
  readonly accounts = new RequestAccounts(
    () => this.cacheReads,
    () => this.now(),
  );
  /** Values that this request loads by itself, between `getCachedUser` and `cacheUser`. */
  readonly manualFills: ManualFills = new Map();
  readonly #runtimeWaitUntil: ScopeParts['waitUntil'];
  readonly #onDegraded: ScopeParts['onDegraded'];
  /** The response, and promises given to `waitUntil`, that are not settled yet. */
  #pending = 1;
  #handle: ScopeHandle | undefined;

  constructor(parts: ScopeParts) {
    this.services = parts.services;
    this.batch = parts.batch;
    this.database = parts.database;
    this.now = parts.now;
    this.random = parts.random;
    this.origin = parts.origin;
    this.refreshWithinMs = parts.refreshWithinMs;
    this.#runtimeWaitUntil = parts.waitUntil;
    this.#onDegraded = parts.onDegraded;
  }

  /** Keeps this scope, and the runtime's context, until the promise has settled. */
  waitUntil(promise: Promise<unknown>): void {
    this.track(promise);
    this.#runtimeWaitUntil(promise);
  }

  /** Keeps this scope until the promise has settled: for one that the runtime has been given already. */
  track(promise: Promise<unknown>): void {
    this.#pending += 1;
    const settled = () => this.#settled();
    promise.then(settled, settled);
  }

  /** Notes that this request was served by a fallback. */
  degrade(what: string): void {
    if (this.degraded.has(what)) return;
    this.degraded.add(what);
    this.#onDegraded?.(what);
  }

  /** Runs `fn`, and everything that it starts, in this scope. To be called once. */
  async run<T>(fn: () => Promise<T>): Promise<T> {
    this.#handle = new ScopeHandle(this);
    try {
      return await storage.run(this.#handle, fn);
    } finally {
      this.#settled();
    }
  }

  #settled(): void {
    this.#pending -= 1;
    if (this.#pending === 0) void this.#endIfIdle();
  }

  async #endIfIdle(): Promise<void> {
    // Others may await the promise that settled last, and give their own work to `waitUntil` in the turns that follow.
    for (let turn = 0; turn < SETTLING_TURNS; turn += 1) {
      if (this.#pending > 0) return;
      await Promise.resolve();
    }
    if (this.#pending === 0) this.#handle?.end();
  }
}

const SETTLING_TURNS = 8;

/**
 * What the AsyncLocalStorage holds. In workerd a stored object that refers to anything made while it is current (a
 * Response, a promise) is never collected, and a request that its client aborts never gets to its end. So the handle
 * refers to the scope weakly: the continuations that may still run hold it. See docs/decisions/request-scope.md.
 */
class ScopeHandle {
  #scope: WeakRef<RequestScope> | undefined;

  constructor(scope: RequestScope) {
    this.#scope = new WeakRef(scope);
  }

  get scope(): RequestScope | undefined {
    return this.#scope?.deref();
  }

  end(): void {
    this.#scope = undefined;
  }
}

const storage = new AsyncLocalStorage<ScopeHandle>();

/** @throws {Error} outside a request, and after its work is done */
export function currentScope(): RequestScope {
  const handle = storage.getStore();
  if (handle === undefined) {
    throw new Error(
      'The static calls (RedisService.get(…) and the like) work inside a request or a scheduled run. ' +
        'Elsewhere wrap the code: openScope(…).run(async () => …).',
    );
  }
  const { scope } = handle;
  if (scope === undefined) {
    throw new Error(
      'This request has ended: a static call (RedisService.get(…) and the like) came after its response. ' +
        'Give work that goes on after the response to c.executionCtx.waitUntil(…).',
    );
  }
  return scope;
}

/**
 * An object that forwards every call to the isolate's service of that name.
 *
 * @example
 * export const UserService: UserService = facade('user');
 */
export function facade<K extends keyof ServiceMap>(name: K): ServiceMap[K] {
  return new Proxy(Object.freeze({}) as unknown as ServiceMap[K] & object, {
    get: (_, property) => Reflect.get(currentScope().services[name], property) as unknown,
  });
}
