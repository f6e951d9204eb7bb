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

/** The parts that differ for each request. */
export interface ScopeParts {
  services: ServiceMap;
  /** Opens the request's pipeline to Redis, on first use. */
  openBatch: (scope: RequestScope) => RedisBatch;
  /** Opens the request's database, on first use. */
  openDatabase: () => Database;
  /** Milliseconds since the epoch. */
  now: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random: () => number;
  /** The runtime's `waitUntil`: keeps the request's context alive until the promise has settled. */
  waitUntil: (promise: Promise<unknown>) => void;
  /** The device of the request. */
  origin: () => Device;
  /** Used in log lines. */
  requestId?: string | undefined;
  /** `undefined`: the request is not traced. */
  inSpan?: InSpan | undefined;
  /** Called when the work of {@link RequestScope.run} has ended, still in the scope. */
  onRun?: (scope: RequestScope) => void;
  /** Called when the scope ends: the response is ready, and all work after it has settled. */
  onEnd?: () => void;
  /** Called with each new degradation. */
  onDegraded?: (what: string) => void;
  /** Entries that are fresh for less than this are loaded again before they are served: for warming. */
  refreshWithinMs?: number;
}

/**
 * The state of one request, as opposed to its isolate: services are made once, and find the scope of the request that calls
 * them. It ends when the response is ready and every promise passed to {@link waitUntil} has settled.
 */
export class RequestScope {
  readonly services: ServiceMap;
  readonly now: () => number;
  readonly random: () => number;
  readonly origin: () => Device;
  /** Counts the calls to Redis that the request waits for. */
  readonly trips: TripCounts = { blocking: 0 };
  readonly requestId: string | undefined;
  /** Spans of Workers' own tracing; `undefined` when the request is not traced. */
  readonly inSpan: InSpan | undefined;
  readonly refreshWithinMs: number | undefined;
  /** Failure policies that this request has used, such as `limiter=local`: for a response header and the log. */
  readonly degraded = new Set<string>();
  /** Called once the response is ready. */
  readonly onResponse: (() => void)[] = [];
  /** The execution for this request's `Idempotency-Key`. */
  keyedExecution: RecordableExecution | undefined;
  readonly #openBatch: ScopeParts['openBatch'];
  readonly #openDatabase: ScopeParts['openDatabase'];
  readonly #runtimeWaitUntil: ScopeParts['waitUntil'];
  readonly #onRun: ScopeParts['onRun'];
  readonly #onEnd: ScopeParts['onEnd'];
  readonly #onDegraded: ScopeParts['onDegraded'];
  // Created on first use: most requests need few of them.
  #batch: RedisBatch | undefined;
  #database: Database | undefined;
  #cacheReads: CacheReads | undefined;
  #accounts: RequestAccounts | undefined;
  #manualFills: ManualFills | undefined;
  /** The number of unsettled promises: the response, and those passed to `waitUntil`. */
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

  /** The request's pipeline to Redis, with one deadline for all its calls. */
  get batch(): RedisBatch {
    if (this.#batch === undefined) {
      this.#batch = this.#openBatch(this);
      // Commands deferred from now on are sent automatically.
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

  /** Users that this request has read with its check for revoked tokens. */
  get accounts(): RequestAccounts {
    return (this.#accounts ??= new RequestAccounts(
      () => this.cacheReads,
      () => this.now(),
    ));
  }

  /** Values that this request loads itself, between `getCachedUser` and `cacheUser`. */
  get manualFills(): ManualFills {
    return (this.#manualFills ??= new Map());
  }

  /** Keeps this scope, and the runtime's context, until the promise has settled. */
  waitUntil(promise: Promise<unknown>): void {
    this.track(promise);
    this.#runtimeWaitUntil(promise);
  }

  /**
   * {@link waitUntil} for a long-lived object of the runtime. It does not hold the scope: such an object, with all that it
   * refers to, is collected only by a full garbage collection.
   */
  looseWaitUntil(): ScopeParts['waitUntil'] {
    const [handle, runtimeWaitUntil] = [this.#handle, this.#runtimeWaitUntil];
    return (promise) => {
      const scope = handle?.scope;
      if (scope === undefined) runtimeWaitUntil(promise);
      else scope.waitUntil(promise);
    };
  }

  /** Keeps this scope until the promise has settled. For a promise that the runtime already has. */
  track(promise: Promise<unknown>): void {
    this.#hasTracked = true;
    this.#pending += 1;
    const settled = () => this.#settled();
    promise.then(settled, settled);
  }

  /** Records that this request was served by a failure policy. */
  degrade(what: string): void {
    if (this.degraded.has(what)) return;
    this.degraded.add(what);
    this.#onDegraded?.(what);
  }

  /**
   * Forgets the request's reads, so that it reads again after an invalidation.
   *
   * @param redisKeys the keys written by the invalidation: values that the request has loaded for other keys may still be
   *   cached
   */
  forgetReads(redisKeys?: readonly string[]): void {
    this.#cacheReads?.clear();
    this.#accounts?.forget();
    if (this.#manualFills !== undefined) endManualFills(this.#manualFills, redisKeys);
  }

  /** Sends the request's deferred commands. Called once the response is ready; `undefined` if there are none. */
  settle(): Promise<void> | undefined {
    this.#isSettled = true;
    return this.#batch?.settle();
  }

  /** Runs `work`, and all work that it starts, in this scope. Call it only once. */
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
    // A request served from memory has no other work.
    if (this.#hasTracked) void this.#endIfIdle();
    else this.#end();
  }

  async #endIfIdle(): Promise<void> {
    // Other code may await the promise that settled last, and pass its own work to `waitUntil` in the turns that follow.
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
 * The value in the AsyncLocalStorage. In workerd a stored object that refers to anything made while it is current (a
 * Response, a promise) is never collected, and a request that its client aborts never ends. So the handle refers to the
 * scope weakly: the continuations that may still run hold it. See docs/decisions/request-scope.md.
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

/** The scope that was last looked up, of at most one request: `deref` costs more than the rest of {@link currentScope}. */
let latest: { handle: ScopeHandle; scope: RequestScope } | undefined;

const storage = new AsyncLocalStorage<ScopeHandle>();

setLogContext(() => ({ requestId: storage.getStore()?.scope?.requestId }));

/** @throws {Error} outside a request, and after its work has ended */
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

/** Spans of the running request, if there is one and it is traced. */
export const currentSpans = (): InSpan | undefined => storage.getStore()?.scope?.inSpan;

/**
 * Makes an object that forwards every call to the isolate's service with this name.
 *
 * @example
 * export const UserService: UserService = facade('user');
 */
export function facade<K extends keyof ServiceMap>(name: K): ServiceMap[K] {
  const memberOf = (property: PropertyKey) => Reflect.get(currentScope().services[name], property) as unknown;
  // The prototype's trap runs once per member. After that the member is an ordinary accessor, at a tenth of the cost.
  const prototype = new Proxy(Object.freeze({}), {
    get(_, property, face: object) {
      const member = memberOf(property);
      if (member !== undefined) Object.defineProperty(face, property, { get: () => memberOf(property) });
      return member;
    },
  });
  return Object.create(prototype) as ServiceMap[K];
}
