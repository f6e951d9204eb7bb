import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import type { LockService } from '../../../src/services/lock.service.ts';
import { script, startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { isolate, keys, take, takeInTime } from './isolates.ts';

const DEADLINE_MS = 400;
let redis: FaultyRedis;
let service: LockService;
let elsewhere: LockService;
let n = 0;
let name = '';

beforeAll(async () => {
  redis = await startFaultyRedis();
  service = isolate(redis, { deadlineMs: DEADLINE_MS });
  elsewhere = isolate(redis, { deadlineMs: DEADLINE_MS });
  // The engine knows the scripts, so that each call is one request.
  await using lock = await take(service, 'first', { leaseMs: 60_000 });
  await lock.extend();
});
afterAll(() => redis[Symbol.asyncDispose]());
beforeEach(async () => {
  await redis.clear();
  redis.reset();
  name = `lock ${(n += 1)}`;
});

const lockCalls = () => redis.requests.filter(({ commands }) => commands.some(script(`{${name}}`))).length;

describe('lost answers', () => {
  test.each([1, 2])('%i: the same holder gets the lock that it has, with its fence', async (times) => {
    redis.mode = { kind: 'drop-after', when: script(`{${name}}`), times };
    const lock = await take(service, name, { leaseMs: 60_000 });
    expect(lockCalls()).toBe(times + 1);
    expect(await redis.engine('HGET', keys.lockFence(name), 'fence')).toBe(String(lock.fence));
    expect(await redis.engine('GET', keys.lock(name))).toMatch(new RegExp(` ${lock.fence}$`));
    expect(await elsewhere.acquire(name, { leaseMs: 1_000 })).toMatchObject({ acquired: false, reason: 'held' });
  });

  test('all of them: unavailable, and a lock that was acquired unseen is given back', async () => {
    redis.mode = { kind: 'drop-after', when: script(`{${name}}`), times: 3 };
    expect(await service.acquire(name, { leaseMs: 60_000, waitMs: 10_000 })).toMatchObject({ reason: 'unavailable' });
    await redis.idle();
    expect(await redis.engine('EXISTS', keys.lock(name))).toBe(0);
    expect((await take(elsewhere, name, { leaseMs: 1_000 })).acquired).toBe(true);
  });

  test('of an extension and of the release', async () => {
    const lock = await take(service, name, { leaseMs: 1_000 });
    redis.mode = { kind: 'drop-after', when: script(`{${name}}`), times: 1 };
    expect(await lock.extend(60_000)).toBe('extended');
    expect(Number(await redis.engine('PTTL', keys.lock(name)))).toBeGreaterThan(50_000);
    redis.mode = { kind: 'drop-after', when: script(`{${name}}`), times: 1 };
    expect(await lock.release()).toBe('released');
    expect(await redis.engine('EXISTS', keys.lock(name))).toBe(0);
  });
});

describe('a Redis that hangs', () => {
  test('costs one deadline, however long the caller would wait', async () => {
    redis.mode = { kind: 'hang' };
    const startMs = performance.now();
    expect(await service.acquire(name, { leaseMs: 60_000, waitMs: 60_000 })).toMatchObject({ reason: 'unavailable' });
    const ms = performance.now() - startMs;
    expect(ms).toBeGreaterThanOrEqual(DEADLINE_MS - 5);
    // Far less than the caller would wait.
    expect(ms).toBeLessThan(30_000);
  });

  test('a call that is carried out after its holder has left takes nothing', async () => {
    redis.mode = { kind: 'delay', ms: DEADLINE_MS * 2, when: script(`{${name}}`), times: 1 };
    expect(await service.acquire(name, { leaseMs: 60_000 })).toMatchObject({ reason: 'unavailable' });
    await redis.idle(DEADLINE_MS);
    expect(lockCalls()).toBe(2);
    expect(await redis.engine('EXISTS', keys.lock(name))).toBe(0);
  });

  test('while it is held: the signal fires in time all the same', async () => {
    const lock = await take(service, name, { leaseMs: 1_000 });
    redis.mode = { kind: 'hang' };
    const fired = new Promise((resolve) => lock.signal.addEventListener('abort', resolve));
    expect(await lock.extend(60_000)).toBe('unavailable');
    expect(lock.signal.aborted).toBe(false);
    await fired;
    await redis.clear();
    expect(await lock.extend()).toBe('lost');
  });
});

test('a release that comes after the lease does not free the next holder’s lock', async () => {
  const late = await takeInTime(service, name, { leaseMs: 60 });
  const next = await take(elsewhere, name, { leaseMs: 60_000, waitMs: 5_000 });
  expect(await late.release()).toBe('lost');
  expect(await late.extend()).toBe('lost');
  expect(await next.extend()).toBe('extended');
});

test('a refused connection gives another outcome than a lock that another request holds', async () => {
  await take(elsewhere, name, { leaseMs: 60_000 });
  expect(await service.acquire(name, { leaseMs: 1_000 })).toMatchObject({ acquired: false, reason: 'held' });
  redis.mode = { kind: 'refuse' };
  expect(await service.acquire(name, { leaseMs: 1_000 })).toMatchObject({ acquired: false, reason: 'unavailable' });
});
