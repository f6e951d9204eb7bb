import { createDatabase } from '../db/client';
import type { Binding, RequestDatabase } from '../db/client';
import { createServices } from '.';
import { batchOf } from './batches';
import type { Isolate } from './isolate';
import { lookIfDue, watchRedis } from './redisWatch';
import { RequestScope } from './scope';
import type { ServiceMap } from './scope';
import type { Device } from './session/device';
import { spansOf } from '../util/spans';

export { bindingOf } from '../db/client';

export interface RequestContext {
  isolate: Isolate;
  /** The database's binding. */
  db: Binding;
  waitUntil: (promise: Promise<unknown>) => void;
  /** The device of the request. */
  origin?: () => Device;
  /** Used in log lines. */
  requestId?: string;
  /** The runtime's tracing, if it has any. */
  tracing?: Tracing | undefined;
  /** Milliseconds since the epoch. */
  now?: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random?: () => number;
}

/**
 * Runs the work of one request, or of one run of the cron trigger. The static calls (`RedisService.get(…)` and the like)
 * work in it, and in every promise that it passes to `waitUntil`. Due probes of Redis start at the same time.
 */
export function runInScope<T>(context: RequestContext, work: (scope: RequestScope) => Promise<T>): Promise<T> {
  const { isolate, db, waitUntil, origin = nowhere, now = Date.now, random = Math.random } = context;
  const { config, degradations, metrics } = isolate;
  const inSpan = spansOf(context.tracing);
  let database: RequestDatabase | undefined;
  const scope = new RequestScope({
    services: servicesOf(isolate),
    openBatch: (own) =>
      batchOf(isolate, config.redis.guardDeadlineMs, {
        now,
        waitUntil: (promise) => own.waitUntil(promise),
        counts: own.trips,
        inSpan,
      }),
    openDatabase: () => {
      const { databaseDeadlineMs: deadlineMs } = config;
      return (database = createDatabase(db, { deadlineMs, now, observe: metrics.observeDatabase, inSpan }));
    },
    inSpan,
    requestId: context.requestId,
    now,
    random,
    waitUntil,
    origin,
    onRun: (own) => lookIfDue(isolate, own),
    onEnd: () => database?.close(),
    onDegraded: (what) => {
      degradations.set(what, (degradations.get(what) ?? 0) + 1);
      metrics.instruments.degraded.count(what);
    },
  });
  return scope.run((own) => {
    watchRedis(isolate, own);
    return work(own);
  });
}

const nowhere = (): Device => ({ device: '', address: '' });

const services = new WeakMap<Isolate, ServiceMap>();

function servicesOf(isolate: Isolate): ServiceMap {
  let made = services.get(isolate);
  if (made === undefined) {
    made = createServices(isolate);
    services.set(isolate, made);
  }
  return made;
}
