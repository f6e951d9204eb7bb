import { createRedisBatch } from '../redis/batch';
import type { RedisBatch, RedisBatchOptions } from '../redis/batch';
import { ungated } from '../redis/shards';
import type { Isolate } from './isolate';
import { UNGUARDED } from './probe';
import type { RequestScope } from './scope';

type RequestParts = Pick<RedisBatchOptions, 'now' | 'waitUntil'> &
  Partial<Pick<RedisBatchOptions, 'breaker' | 'shards' | 'counts' | 'inSpan'>>;

/** Makes a batch with the isolate's client. @param deadlineMs how long all its calls together may wait for Redis */
export function batchOf(
  { config, client, breaker, shards, metrics }: Isolate,
  deadlineMs: number,
  request: RequestParts,
): RedisBatch {
  const { callTimeoutMs, keyLocking } = config.redis;
  const observe = metrics.observeRedis;
  return createRedisBatch({ client, breaker, shards, deadlineMs, callTimeoutMs, keyLocking, observe, ...request });
}

/** An extra batch for a request, with its own deadline. */
export function extraBatch(isolate: Isolate, scope: RequestScope, deadlineMs: number): RedisBatch {
  const waitUntil = (promise: Promise<unknown>) => scope.waitUntil(promise);
  return batchOf(isolate, deadlineMs, { now: scope.now, waitUntil, counts: scope.trips, inSpan: scope.inSpan });
}

/** A batch that ignores the breakers: for probes. */
export function probeBatch(isolate: Isolate, scope: RequestScope): RedisBatch {
  return batchOf(isolate, 2 * isolate.config.redis.callTimeoutMs, {
    now: scope.now,
    waitUntil: (promise) => scope.waitUntil(promise),
    inSpan: scope.inSpan,
    breaker: UNGUARDED,
    shards: ungated(isolate.shards),
  });
}
