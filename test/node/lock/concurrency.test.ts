import { setTimeout } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import type { Lock } from '../../../src/services/lock.service.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, startRedis } from '../../support/redisServers.ts';
import { isolate, keys, take, takeInTime } from './isolates.ts';

const token = 'lock-token';
const CONTENDERS = 30;
const LEASE_MS = 400;

/** Runs against a gateway before the Redis of this URL; without one, before the embedded engine. */
async function expectOneHolder(redisUrl?: string): Promise<void> {
  await using gateway = await startGateway({ token, port: 0, ...(redisUrl !== undefined && { redisUrl }) });
  const isolates = Array.from({ length: 5 }, (_, i) =>
    isolate({ url: gateway.url, token }, { keyLocking: i % 2 === 1 }),
  );
  const serviceOf = (contender: number) => isolates[contender % isolates.length]!;
  await excludes(serviceOf);
  await growsOverFlushes(serviceOf, gateway.url);
}

/** Thirty want one lock at the same time. Every tenth dies with it: it neither releases nor extends. */
async function excludes(serviceOf: (contender: number) => ReturnType<typeof isolate>): Promise<void> {
  const relyingOnIt = new Set<Lock>();
  const together: number[] = [];
  const fences: number[] = [];
  /** A timer may fire late, but the remaining time is never too long. */
  const holders = () => [...relyingOnIt].filter(({ remainingMs }) => remainingMs > 0).length;
  const isDying = (contender: number) => contender % 10 === 3;
  await Promise.all(
    Array.from({ length: CONTENDERS }, async (_, contender) => {
      const lock = await takeInTime(serviceOf(contender), 'contended', { leaseMs: LEASE_MS, waitMs: 60_000 });
      relyingOnIt.add(lock);
      lock.signal.addEventListener('abort', () => relyingOnIt.delete(lock));
      together.push(holders());
      fences.push(lock.fence);
      if (isDying(contender)) return;
      await setTimeout(Math.random() * 10);
      // Some go on for longer than the lease that they began with.
      if (contender % 10 === 7) {
        for (let i = 0; i < 3; i += 1) {
          const extended = await lock.extend();
          // On a machine that is busy for longer than a lease it ends, and its holder's signal fires.
          if (!lock.signal.aborted) expect(extended).toBe('extended');
          await setTimeout(LEASE_MS / 2);
        }
      }
      together.push(holders());
      const endsAtMs = Date.now() + lock.remainingMs;
      const released = await lock.release();
      if (Date.now() < endsAtMs) expect(released).toBe('released');
    }),
  );
  expect(fences).toHaveLength(CONTENDERS);
  expect(Math.max(...together)).toBe(1);
  expect(fences).toEqual([...new Set(fences)].sort((a, b) => a - b));
}

/** One after another, and Redis loses everything in between, while the lock is held and while it is free. */
async function growsOverFlushes(
  serviceOf: (contender: number) => ReturnType<typeof isolate>,
  url: string,
): Promise<void> {
  const flush = () =>
    fetch(url, { method: 'POST', headers: { Authorization: `Bearer ${token}` }, body: '["FLUSHALL"]' });
  const fences: number[] = [];
  for (let i = 0; i < 20; i += 1) {
    const lock = await take(serviceOf(i), 'flushed', { leaseMs: 60_000 });
    fences.push(lock.fence);
    if (i % 2 === 0) {
      await lock.release();
      expect((await flush()).status).toBe(200);
    } else {
      expect((await flush()).status).toBe(200);
      expect(await lock.extend()).toBe('lost');
      expect(lock.signal.aborted).toBe(true);
      const next = await take(serviceOf(i + 1), 'flushed', { leaseMs: 60_000 });
      fences.push(next.fence);
      // The one before comes too late to free it.
      expect(await lock.release()).toBe('lost');
      expect(await next.extend()).toBe('extended');
      await next.release();
    }
  }
  expect(fences).toEqual([...new Set(fences)].sort((a, b) => a - b));
  expect(fences[0]).toBeGreaterThan(Date.now());
}

describe(`${CONTENDERS} contenders in five isolates: never two at a time, fences strictly grow, over flushes too`, () => {
  test('on the embedded engine', () => expectOneHolder());

  test.skipIf(!hasRedisServer)(`on Redis${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`, async () => {
    const server = await startRedis();
    try {
      await expectOneHolder(server.url);
    } finally {
      await server.stop();
    }
  });

  test.skipIf(!hasRedisServer)(`on Redis Cluster${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`, async () => {
    const cluster = await startCluster();
    try {
      await expectOneHolder(cluster.url);
    } finally {
      await cluster.stop();
    }
  });
});

test('waiters get it when it is released, and when the lease of a dead holder has ended', async () => {
  await using gateway = await startGateway({ token, port: 0 });
  const [first, second] = [isolate({ url: gateway.url, token }), isolate({ url: gateway.url, token })];
  const holding = await take(first, 'waited for', { leaseMs: 30_000 });
  const waiting = takeInTime(second, 'waited for', { leaseMs: 500, waitMs: 20_000 });
  await setTimeout(100);
  const releasedAtMs = performance.now();
  await holding.release();
  const dying = await waiting;
  expect(performance.now() - releasedAtMs).toBeLessThan(20_000);

  const heir = await takeInTime(first, 'waited for', { leaseMs: 500, waitMs: 20_000 });
  expect(dying.signal.aborted).toBe(true);
  expect(heir.fence).toBeGreaterThan(dying.fence);
  // Not released, not extended: it is what the engine says that counts.
  const pttl = await fetch(gateway.url, {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}` },
    body: JSON.stringify(['PTTL', keys.lock('waited for')]),
  });
  expect(((await pttl.json()) as { result: number }).result).toBeGreaterThan(0);
});
