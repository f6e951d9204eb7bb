import type { Database } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import { currentScope } from './scope';
import type { RequestScope } from './scope';

/**
 * The parts of a scope that services are handed as values: they are made once an isolate, and every call of these goes to
 * the request that is running.
 */
export interface CurrentRequest {
  batch: RedisBatch;
  database: Database;
  waitUntil: (promise: Promise<unknown>) => void;
  origin: RequestScope['origin'];
  now: () => number;
  random: () => number;
  degraded: (what: string) => void;
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
    batch: (statements) => currentScope().database.batch(statements),
  },
  waitUntil: (promise) => currentScope().waitUntil(promise),
  origin: () => currentScope().origin(),
  now: () => currentScope().now(),
  random: () => currentScope().random(),
  degraded: (what) => currentScope().degrade(what),
};
