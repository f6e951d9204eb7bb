import { AsyncLocalStorage } from 'node:async_hooks';

import { setLogContext } from '../config/log';
import type { Database } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { TripCounts } from '../redis/trip';
import type { CacheReads } from './cache/reader';
import { endManualFills } from './cache/manualFills';
import type { ManualFills } from './cache/manualFills';
import type { RecordableExecution } from './idempotency/execution';
import type { InSpan } from '../util/spans';
import { RequestAccounts } from './requestAccounts';
import type { Device } from './session/device';

/** An isolate's services by name. Each service module adds its own by declaration merging. */
// oxlint-disable-next-line typescript/no-empty-interface, typescript/no-empty-object-type -- filled by the service modules
export interface ServiceMap {}

/** What one request brings along. */
export interface ScopeParts {
  services: ServiceMap;
  /** Opens the request's own pipeline to Redis, when it first needs one. */
  openBatch: (scope: RequestScope) => RedisBatch;
  /** Opens its way to the database, likewise. */
  openDatabase: () => Database;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random: () => number;
  /** The runtime's: keeps the request's context alive until the promise has settled. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** Where the request comes from. */
  origin: () => Device;
  /** For the log. */
  requestId?: string | undefined;
  /** `undefined`: the request is not traced. */
  inSpan?: InSpan | undefined;
  /** Called when the work of {@link RequestScope.run} has ended, still in the scope. */
  onRun?: (scope: RequestScope) => void;
  /** Called when the scope ends: the response is made, and everything after it has settled. */
  onEnd?: () => void;
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
  readonly now: () => number;
  readonly random: () => number;
  readonly origin: () => Device;
  /** Calls to Redis that the request waits for. */
  readonly trips: TripCounts = { blocking: 0 };
  readonly requestId: string | undefined;
  /** Spans of Workers' own tracing; `undefined` when the request is not traced. */
  readonly inSpan: InSpan | undefined;
  readonly refreshWithinMs: number | undefined;
  /** Policies that this request had to fall back on, such as `limiter=local`: for a response header and the log. */
  readonly degraded = new Set<string>();
  /** Called once the response is made. */
  readonly onResponse: (() => void)[] = [];
  /** The execution that this request's `Idempotency-Key` stands for. */
  keyedExecution: RecordableExecution | undefined;
  readonly #openBatch: ScopeParts['openBatch'];
  readonly #openDatabase: ScopeParts['openDatabase'];
  readonly #runtimeWaitUntil: ScopeParts['waitUntil'];
  readonly #onRun: ScopeParts['onRun'];
  readonly #onEnd: ScopeParts['onEnd'];
  readonly #onDegraded: ScopeParts['onDegraded'];
  // Made when they are first used: most requests need few of them.
  #batch: RedisBatch | undefined;
  #database: Database | undefined;
  #cacheReads: CacheReads | undefined;
  #accounts: RequestAccounts | undefined;
  #manualFills: ManualFills | undefined;
  /** The response, and promises given to `waitUntil`, that are not settled yet. */
  #pending = 1;
  #hasTracked = false;
  /** {@link settle} was called. */
  #isSettled = false;
  #handle: ScopeHandle | undefined;

  constructor(parts: ScopeParts) {
    this.services = parts.services;
    this.now = parts.now;
    this.random = parts.random;
    this.origin = parts.origin;
    this.requestId = parts.requestId;
    this.inSpan = parts.inSpan;
    this.refreshWithinMs = parts.refreshWithinMs;
    this.#openBatch = parts.openBatch;
    this.#openDatabase = parts.openDatabase;
    this.#runtimeWaitUntil = parts.waitUntil;
    this.#onRun = parts.onRun;
    this.#onEnd = parts.onEnd;
    this.#onDegraded = parts.onDegraded;
  }

  /** The request's own pipeline to Redis, with the deadline that all its calls share. */
  get batch(): RedisBatch {
    if (this.#batch === undefined) {
      this.#batch = this.#openBatch(this);
      // What is deferred from here on leaves by itself.
      if (this.#isSettled) void this.#batch.settle();
    }
    return this.#batch;
  }

  get database(): Database {
    return (this.#database ??= this.#openDatabase());
  }

  /** Cache entries that this request has read. */
  get cacheReads(): CacheReads {
    return (this.#cacheReads ??= new Map());
  }

  /** Users that this request has read along with its check for revoked tokens. */
  get accounts(): RequestAccounts {
    return (this.#accounts ??= new RequestAccounts(
      () => this.cacheReads,
      () => this.now(),
    ));
  }

  /** Values that this request loads by itself, between `getCachedUser` and `cacheUser`. */
  get manualFills(): ManualFills {
    return (this.#manualFills ??= new Map());
  }

  /** Keeps this scope, and the runtime's context, until the promise has settled. */
  waitUntil(promise: Promise<unknown>): void {
    this.track(promise);
    this.#runtimeWaitUntil(promise);
  }

  /**
   * {@link waitUntil} for an object of the runtime to hold. It does not keep the scope: such an object, and all that it
   * refers to, is only collected by a full garbage collection.
   */
  looseWaitUntil(): ScopeParts['waitUntil'] {
    const [handle, runtimeWaitUntil] = [this.#handle, this.#runtimeWaitUntil];
    return (promise) => {
      const scope = handle?.scope;
      if (scope === undefined) runtimeWaitUntil(promise);
      else scope.waitUntil(promise);
    };
  }

  /** Keeps this scope until the promise has settled: for one that the runtime has been given already. */
  track(promise: Promise<unknown>): void {
    this.#hasTracked = true;
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

  /**
   * Forgets what the request has read, so that it reads anew after an invalidation.
   *
   * @param redisKeys the keys that the invalidation writes: values that the request has loaded for others may still be cached
   */
  forgetReads(redisKeys?: readonly string[]): void {
    this.#cacheReads?.clear();
    this.#accounts?.forget();
    if (this.#manualFills !== undefined) endManualFills(this.#manualFills, redisKeys);
  }

  /** Sends what the request has deferred. Called once the response is made; `undefined` when there was nothing. */
  settle(): Promise<void> | undefined {
    this.#isSettled = true;
    return this.#batch?.settle();
  }

  /** Runs `work`, and everything that it starts, in this scope. To be called once. */
  run<T>(work: (scope: RequestScope) => Promise<T>): Promise<T> {
    this.#handle = new ScopeHandle(this);
    return storage.run(this.#handle, async () => {
      try {
        return await work(this);
      } finally {
        this.#onRun?.(this);
        this.#settled();
      }
    });
  }

  #settled(): void {
    this.#pending -= 1;
    if (this.#pending > 0) return;
    // Nothing else was going on in a request that was served from memory.
    if (this.#hasTracked) void this.#endIfIdle();
    else this.#end();
  }

  async #endIfIdle(): Promise<void> {
    // Others may await the promise that settled last, and give their own work to `waitUntil` in the turns that follow.
    for (let turn = 0; turn < SETTLING_TURNS; turn += 1) {
      if (this.#pending > 0) return;
      await Promise.resolve();
    }
    if (this.#pending === 0) this.#end();
  }

  #end(): void {
    this.#handle?.end();
    this.#onEnd?.();
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
    if (latest?.handle === this) return latest.scope;
    const scope = this.#scope?.deref();
    if (scope !== undefined) latest = { handle: this, scope };
    return scope;
  }

  end(): void {
    this.#scope = undefined;
    if (latest?.handle === this) latest = undefined;
  }
}

/** The scope that was asked for last, of one request at most: `deref` costs more than all else in {@link currentScope}. */
let latest: { handle: ScopeHandle; scope: RequestScope } | undefined;

const storage = new AsyncLocalStorage<ScopeHandle>();

setLogContext(() => ({ requestId: storage.getStore()?.scope?.requestId }));

/** @throws {Error} outside a request, and after its work is done */
export function currentScope(): RequestScope {
  const handle = storage.getStore();
  if (handle === undefined) {
    throw new Error(
      'The static calls (RedisService.get(…) and the like) work inside a request or a scheduled run. ' +
        'Elsewhere wrap the code: runInScope({ isolate, db, waitUntil }, async () => …).',
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

/** Spans of the request that is running, if there is one and it is traced. */
export const currentSpans = (): InSpan | undefined => storage.getStore()?.scope?.inSpan;

/**
 * An object that forwards every call to the isolate's service of that name.
 *
 * @example
 * export const UserService: UserService = facade('user');
 */
export function facade<K extends keyof ServiceMap>(name: K): ServiceMap[K] {
  const memberOf = (property: PropertyKey) => Reflect.get(currentScope().services[name], property) as unknown;
  // The prototype is asked for a member once. From then on it is an ordinary accessor, which costs a tenth.
  const prototype = new Proxy(Object.freeze({}), {
    get(_, property, face: object) {
      const member = memberOf(property);
      if (member !== undefined) Object.defineProperty(face, property, { get: () => memberOf(property) });
      return member;
    },
  });
  return Object.create(prototype) as ServiceMap[K];
}
