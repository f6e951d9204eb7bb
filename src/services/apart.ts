import { batchOf } from './batches';
import type { Isolate } from './isolate';
import { RequestScope, currentScope } from './scope';

/**
 * Runs work in a separate scope with its own batch, and sends all deferred commands at its end: for work that outlives the
 * request, or needs another deadline.
 */
export type Apart = <T>(changes: { refreshWithinMs?: number }, work: (own: RequestScope) => Promise<T>) => Promise<T>;

export function createApart(isolate: Isolate): Apart {
  const { callTimeoutMs } = isolate.config.redis;
  return async ({ refreshWithinMs }, work) => {
    const parent = currentScope();
    const own = new RequestScope({
      services: parent.services,
      openBatch: (scope) =>
        batchOf(isolate, callTimeoutMs, {
          now: parent.now,
          waitUntil: (promise) => scope.waitUntil(promise),
          inSpan: parent.inSpan,
        }),
      openDatabase: () => parent.database,
      now: parent.now,
      random: parent.random,
      origin: parent.origin,
      requestId: parent.requestId,
      inSpan: parent.inSpan,
      waitUntil: (promise) => parent.waitUntil(promise),
      onDegraded: (what) => parent.degrade(what),
      ...(refreshWithinMs !== undefined && { refreshWithinMs }),
    });
    return own.run(async () => {
      try {
        return await work(own);
      } finally {
        await own.settle();
      }
    });
  };
}
