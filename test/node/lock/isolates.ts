import { createRedisBatch } from '../../../src/redis/batch.ts';
import { createBreaker } from '../../../src/redis/breaker.ts';
import { createRedisClient } from '../../../src/redis/client.ts';
import { createKeys } from '../../../src/redis/keys.ts';
import { createLockService } from '../../../src/services/lock.service.ts';
import type { AcquireOptions, Lock, LockService } from '../../../src/services/lock.service.ts';

export const keys = createKeys('locks', 'secret');

/** What one isolate has of its own: client, breaker, scripts by either name. */
export function isolate(
  redis: { url: string; token: string },
  { deadlineMs = 60_000, keyLocking = false }: { deadlineMs?: number; keyLocking?: boolean } = {},
): LockService {
  const client = createRedisClient(redis);
  const breaker = createBreaker({
    windowMs: 10_000,
    minCalls: 1_000,
    failureRatio: 0.5,
    probeMs: 1_000,
    probeMaxMs: 30_000,
  });
  const waitUntil = (promise: Promise<unknown>) => void promise;
  return createLockService({
    batchWithin: (within) =>
      createRedisBatch({ client, breaker, waitUntil, deadlineMs: within, callTimeoutMs: 120_000, keyLocking }),
    deadlineMs,
    keys,
    waitUntil,
    now: Date.now,
  });
}

/** For short leases: on a machine that stalls, one may be over when its reply arrives. Then the lock is taken again. */
export async function takeInTime(service: LockService, name: string, options: AcquireOptions): Promise<Lock> {
  for (;;) {
    const taken = await service.acquire(name, options);
    if (taken.acquired) return taken;
    if (taken.reason !== 'unavailable') throw new Error(`${name}: ${taken.reason}`);
  }
}

/** @throws {Error} with the reason, when it is not to be had */
export async function take(service: LockService, name: string, options: AcquireOptions): Promise<Lock> {
  const taken = await service.acquire(name, options);
  if (!taken.acquired) throw new Error(`${name}: ${taken.reason}`);
  return taken;
}
