import { WATCH_MS } from '../redis/breaker';
import { sleep } from '../util/retry';
import { probeBatch } from './batches';
import type { Isolate } from './isolate';
import { look, probe } from './probe';
import type { RequestScope } from './scope';
import { probeShard } from './shardProbe';

/** Starts due probes of Redis, outside the request's deadline. */
export function watchRedis(isolate: Isolate, scope: RequestScope): void {
  const { breaker, shards } = isolate;
  if (breaker.state !== 'closed') {
    scope.waitUntil(probeIfDue(isolate, scope));
    if (breaker.takeWatch()) scope.waitUntil(keepProbing(isolate, scope));
    return;
  }
  if (shards.takeWatch()) scope.waitUntil(keepProbing(isolate, scope));
  lookIfDue(isolate, scope);
  probeShardsIfDue(isolate, scope);
}

/**
 * When a call succeeds after failed ones: delivers messages that Redis may have missed. Checked at a request's start and at
 * its end: the request's own calls may have been these, and the isolate's next request may come much later.
 */
export function lookIfDue({ breaker }: Isolate, scope: RequestScope): void {
  if (breaker.takeLook()) scope.waitUntil(look({ breaker, outbox: scope.services.outbox }));
}

/**
 * Checks whether Redis is back: one request of the isolate at a time. Shards that are out are probed right afterwards:
 * until then D1 would serve their users, and the isolate's next request may come much later.
 */
export async function probeIfDue(isolate: Isolate, scope: RequestScope): Promise<void> {
  const { breaker, databaseGone } = isolate;
  const due = breaker.takeProbe();
  if (due === undefined) return;
  const batch = probeBatch(isolate, scope);
  await probe(due, { breaker, batch, outbox: scope.services.outbox, databaseGone, now: scope.now });
  if (breaker.state === 'closed') probeShardsIfDue(isolate, scope);
}

function probeShardsIfDue(isolate: Isolate, scope: RequestScope): void {
  const { shards, keys } = isolate;
  const { outbox } = scope.services;
  for (let shard = shards.takeProbe(); shard !== undefined; shard = shards.takeProbe()) {
    scope.waitUntil(probeShard(shard, { batch: probeBatch(isolate, scope), keys, outbox }));
  }
}

const WATCH_STEP_MS = 500;

/**
 * A change of this isolate is not yet delivered to Redis. One request stays, after its response, until the next probe is
 * due: otherwise that probe would have to wait for another request of this isolate.
 */
async function keepProbing(isolate: Isolate, scope: RequestScope): Promise<void> {
  for (let waitedMs = 0; waitedMs < WATCH_MS; waitedMs += WATCH_STEP_MS) {
    await sleep(WATCH_STEP_MS);
    if (isolate.breaker.state === 'closed') probeShardsIfDue(isolate, scope);
    else await probeIfDue(isolate, scope);
  }
}
