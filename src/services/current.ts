import type { Database } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { RecordableExecution } from './idempotency/execution';
import { currentScope, currentSpans } from './scope';
import type { RequestScope } from './scope';
import type { InSpan } from '../util/spans';

/**
 * The parts of a scope that services receive as values. Services are made once per isolate; each call of these functions
 * acts on the running request.
 */
export interface CurrentRequest {
  batch: RedisBatch;
  database: Database;
  waitUntil: (promise: Promise<unknown>) => void;
  origin: RequestScope['origin'];
  now: () => number;
  random: () => number;
  /** `undefined` when the request is not traced. */
  spans: () => InSpan | undefined;
  degraded: (what: string) => void;
  refreshWithinMs: () => RequestScope['refreshWithinMs'];
  reads: () => RequestScope['cacheReads'];
  manualFills: () => RequestScope['manualFills'];
  accounts: () => RequestScope['accounts'];
  forgetReads: RequestScope['forgetReads'];
  /** The execution for the request's `Idempotency-Key`. */
  keyedExecution: {
    get: () => RecordableExecution | undefined;
    set: (execution: RecordableExecution | undefined) => void;
  };
}

export const currentRequest: CurrentRequest = {
  batch: {
    setDeadline: (deadlineMs) => currentScope().batch.setDeadline(deadlineMs),
    send: (...command) => currentScope().batch.send(...command),
    run: (script, keys, args) => currentScope().batch.run(script, keys, args),
    deferRun: (script, keys, args) => currentScope().batch.deferRun(script, keys, args),
    aside: (...commands) => currentScope().batch.aside(...commands),
    runAside: (script, keys, args) => currentScope().batch.runAside(script, keys, args),
    hold: () => currentScope().batch.hold(),
    settle: () => currentScope().batch.settle(),
  },
  database: {
    run: (work) => currentScope().database.run(work),
    build: (make) => currentScope().database.build(make),
    check: () => currentScope().database.check(),
    batch: (statements, options) => currentScope().database.batch(statements, options),
  },
  waitUntil: (promise) => currentScope().waitUntil(promise),
  origin: () => currentScope().origin(),
  now: () => currentScope().now(),
  random: () => currentScope().random(),
  spans: currentSpans,
  degraded: (what) => currentScope().degrade(what),
  refreshWithinMs: () => currentScope().refreshWithinMs,
  reads: () => currentScope().cacheReads,
  manualFills: () => currentScope().manualFills,
  accounts: () => currentScope().accounts,
  forgetReads: (redisKeys) => currentScope().forgetReads(redisKeys),
  keyedExecution: {
    get: () => currentScope().keyedExecution,
    set: (execution) => {
      currentScope().keyedExecution = execution;
    },
  },
};
