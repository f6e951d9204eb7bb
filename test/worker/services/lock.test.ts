import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { createBreaker } from '../../../src/redis/breaker';
import { createRedisBatch } from '../../../src/redis/batch';
import type { Command, RedisClient, Reply } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { createKeys } from '../../../src/redis/keys';
import { lockAcquire } from '../../../src/redis/scripts/lockAcquire';
import { lockExtend } from '../../../src/redis/scripts/lockExtend';
import { lockRelease } from '../../../src/redis/scripts/lockRelease';
import { LockService, createLockService, lockRefused } from '../../../src/services/lock.service';
import type { Lock, LockRefusal } from '../../../src/services/lock.service';
import { inRequest, isolateFor } from '../support/request';

const isLock = (taken: Lock | LockRefusal): Lock => {
  if (!taken.acquired) throw new Error(`not acquired: ${taken.reason}`);
  return taken;
};

describe('with a clock of its own', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] }));
  afterEach(() => void vi.useRealTimers());

  type Answer = Reply | (() => Promise<Reply>);

  /** A service before a Redis that answers what the test says, in turn; afterwards 1. */
  function scripted(...answers: Answer[]) {
    const sent: { script: string; args: readonly unknown[] }[] = [];
    const names = { [lockAcquire.sha]: 'acquire', [lockExtend.sha]: 'extend', [lockRelease.sha]: 'release' };
    const client: RedisClient = {
      async execute([command]: readonly Command[]) {
        const [, sha = '', count = 0, ...rest] = command ?? [''];
        sent.push({ script: names[String(sha)] ?? '?', args: rest.slice(Number(count)) });
        const answer = answers.shift() ?? { value: 1 };
        return [typeof answer === 'function' ? await answer() : answer];
      },
    };
    const breaker = createBreaker({
      windowMs: 10_000,
      minCalls: 10,
      failureRatio: 0.5,
      probeMs: 1_000,
      probeMaxMs: 30_000,
    });
    const kept: Promise<unknown>[] = [];
    const waitUntil = (promise: Promise<unknown>) => void kept.push(promise);
    const service = createLockService({
      batchWithin: (deadlineMs) => createRedisBatch({ client, breaker, waitUntil, deadlineMs, callTimeoutMs: 2_000 }),
      deadlineMs: 1_000,
      keys: createKeys('t', 's'),
      waitUntil,
      now: Date.now,
      random: () => 0.5,
    });
    return { service, sent, kept, scripts: () => sent.map(({ script }) => script) };
  }

  const late = (ms: number, reply: Reply) => async () => {
    await vi.advanceTimersByTimeAsync(ms);
    return reply;
  };
  const never = () => new Promise<Reply>(() => undefined);
  const granted = { value: [1, 7] };
  const held = (leftMs: number) => ({ value: [0, leftMs] });

  test('the signal fires before the lease ends, counted from when Redis was asked', async () => {
    const { service } = scripted(late(300, granted));
    const askedAtMs = Date.now();
    const lock = isLock(await service.acquire('a', { leaseMs: 10_000 }));
    expect(lock).toMatchObject({ name: 'a', fence: 7, remainingMs: 10_000 - 500 - 300 });
    await vi.advanceTimersByTimeAsync(askedAtMs + 9_499 - Date.now());
    expect(lock.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(lock.signal.aborted).toBe(true);
    expect(lock.remainingMs).toBe(0);
    expect(lock.signal.reason).toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
      message: 'The lease of the lock ran out.',
    });
  });

  test.each([
    [100_000, 95_000],
    [200, 180],
    [30, 15],
    [1, 0.5],
  ])('of a lease of %i ms, %d can be used', async (leaseMs, usableMs) => {
    const { service } = scripted(granted);
    expect(isLock(await service.acquire('a', { leaseMs })).remainingMs).toBe(usableMs);
  });

  test('an answer that took as long as the lease is no lock, and is given back', async () => {
    const { service, kept, sent } = scripted(late(480, granted));
    expect(await service.acquire('a', { leaseMs: 500 })).toMatchObject({ acquired: false, reason: 'unavailable' });
    await Promise.all(kept);
    expect(sent.map(({ script, args }) => [script, args[0]])).toEqual([
      ['acquire', sent[0]?.args[0]],
      ['release', sent[0]?.args[0]],
    ]);
  });

  test('extending counts from when it was asked, and never shortens', async () => {
    const { service } = scripted(granted, late(200, { value: 1 }));
    const lock = isLock(await service.acquire('a', { leaseMs: 1_000 }));
    await vi.advanceTimersByTimeAsync(600);
    expect(await lock.extend()).toBe('extended');
    expect(lock.remainingMs).toBe(750);
    expect(await lock.extend(10)).toBe('extended');
    expect(lock.remainingMs).toBe(750);
    await vi.advanceTimersByTimeAsync(749);
    expect(lock.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(lock.signal.aborted).toBe(true);
  });

  test('a lock that extending finds lost fires at once, and is lost for good', async () => {
    const { service, scripts } = scripted(granted, { value: 0 });
    const lock = isLock(await service.acquire('a', { leaseMs: 10_000 }));
    expect(await lock.extend()).toBe('lost');
    expect(lock.signal.aborted).toBe(true);
    expect(await lock.extend()).toBe('lost');
    expect(scripts()).toEqual(['acquire', 'extend']);
  });

  test('while Redis is away extending changes nothing: the former end counts', async () => {
    const gone = () => Promise.reject(new RedisUnavailable('refused'));
    const { service } = scripted(granted, gone, gone, gone);
    const lock = isLock(await service.acquire('a', { leaseMs: 10_000 }));
    const extension = lock.extend(60_000);
    await vi.advanceTimersByTimeAsync(100);
    expect(await extension).toBe('unavailable');
    expect(lock.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(9_400);
    expect(lock.signal.aborted).toBe(true);
  });

  test('an extension whose answer comes after the signal does not bring the lock back', async () => {
    const { service } = scripted(granted, late(900, { value: 1 }));
    const lock = isLock(await service.acquire('a', { leaseMs: 1_000 }));
    await vi.advanceTimersByTimeAsync(500);
    expect(await lock.extend(5_000)).toBe('lost');
    expect(lock.signal.aborted).toBe(true);
  });

  test('a hanging Redis costs one deadline, however long the wait may be; a lock that it may have given is given back', async () => {
    const { service, scripts } = scripted(never, never);
    const startMs = Date.now();
    let endedAfterMs = 0;
    const outcome = service.acquire('a', { leaseMs: 10_000, waitMs: 30_000 }).finally(() => {
      endedAfterMs = Date.now() - startMs;
    });
    await vi.advanceTimersByTimeAsync(1_050);
    expect(await outcome).toMatchObject({ acquired: false, reason: 'unavailable' });
    // The deadline looks a few turns longer for what may have arrived.
    expect(endedAfterMs).toBeGreaterThanOrEqual(1_000);
    expect(endedAfterMs).toBeLessThan(1_010);
    expect(scripts()).toEqual(['acquire', 'release']);
  });

  test('lost answers are asked for again by the same holder, three times in all', async () => {
    const gone = () => Promise.reject(new RedisUnavailable('refused'));
    const lucky = scripted(gone, gone, granted);
    const outcome = lucky.service.acquire('a', { leaseMs: 10_000 });
    await vi.advanceTimersByTimeAsync(40);
    expect(isLock(await outcome).remainingMs).toBe(9_500);
    expect(new Set(lucky.sent.map(({ args }) => args[0])).size).toBe(1);

    const unlucky = scripted(gone, gone, gone);
    const refused = unlucky.service.acquire('a', { leaseMs: 10_000, waitMs: 5_000 });
    await vi.advanceTimersByTimeAsync(100);
    expect(await refused).toMatchObject({ acquired: false, reason: 'unavailable' });
    expect(unlucky.scripts()).toEqual(['acquire', 'acquire', 'acquire', 'release']);
  });

  test('a waiter looks again when the lease of the other ends, and not after its own wait', async () => {
    const { service, scripts } = scripted(held(5), held(10_000), held(9_000), held(8_000));
    const startMs = Date.now();
    const outcome = service.acquire('a', { leaseMs: 1_000, waitMs: 80 });
    await vi.advanceTimersByTimeAsync(16);
    expect(scripts()).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(2);
    expect(scripts()).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(62);
    expect(await outcome).toMatchObject({ acquired: false, reason: 'held', remainingMs: 8_000 });
    expect(Date.now() - startMs).toBe(80);
  });

  test('a wait of half a minute takes fewer than 130 looks', async () => {
    const { service, sent } = scripted(...Array.from({ length: 1_000 }, () => held(60_000)));
    const outcome = service.acquire('a', { leaseMs: 1_000, waitMs: 30_000 });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await outcome).toMatchObject({ reason: 'held' });
    expect(sent.length).toBeGreaterThan(90);
    expect(sent.length).toBeLessThan(130);
  });

  test('the caller’s signal ends the wait; a lock that arrives later is given back', async () => {
    const waiting = scripted(held(10_000));
    const reason = new Error('enough');
    const pausing = new AbortController();
    const paused = waiting.service.acquire('a', { leaseMs: 1_000, waitMs: 5_000, signal: pausing.signal });
    paused.catch(() => undefined);
    await vi.advanceTimersByTimeAsync(1);
    pausing.abort(reason);
    await expect(paused).rejects.toBe(reason);
    expect(waiting.scripts()).toEqual(['acquire']);

    let answer: (reply: Reply) => void = () => undefined;
    const slow = scripted(
      () =>
        new Promise<Reply>((resolve) => {
          answer = resolve;
        }),
    );
    const asking = new AbortController();
    const asked = slow.service.acquire('a', { leaseMs: 1_000, signal: asking.signal });
    asked.catch(() => undefined);
    await vi.advanceTimersByTimeAsync(1);
    asking.abort(reason);
    await expect(asked).rejects.toBe(reason);
    answer(granted);
    await Promise.all(slow.kept);
    expect(slow.scripts()).toEqual(['acquire', 'release']);
    expect(slow.sent[0]?.args[0]).toBe(slow.sent[1]?.args[0]);

    await expect(slow.service.acquire('a', { leaseMs: 1, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(slow.sent).toHaveLength(2);
  });

  test('the signal fires on release, which is sent once', async () => {
    const { service, scripts } = scripted(granted, { value: 1 });
    const lock = isLock(await service.acquire('a', { leaseMs: 1_000 }));
    {
      await using same = lock;
      expect(same.signal.aborted).toBe(false);
      expect(await same.release()).toBe('released');
    }
    expect(lock.signal.aborted).toBe(true);
    expect(await lock.release()).toBe('released');
    expect(scripts()).toEqual(['acquire', 'release']);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(lock.signal.reason).toMatchObject({ message: 'The lock was released.' });
  });

  test('disposing of a lock does not fail when Redis does', async () => {
    const { service } = scripted(granted, never);
    const lock = isLock(await service.acquire('a', { leaseMs: 10_000 }));
    const disposed = lock[Symbol.asyncDispose]();
    await vi.advanceTimersByTimeAsync(1_050);
    await disposed;
    expect(await lock.release()).toBe('unavailable');
  });

  test.each([[{ value: 'OK' }], [{ value: [2, 1] }], [{ value: [1, null] }], [{ value: null }]])(
    'an answer like %j is no lock',
    async (reply) => {
      const { service } = scripted(reply);
      expect(await service.acquire('a', { leaseMs: 100 })).toMatchObject({ acquired: false, reason: 'unavailable' });
    },
  );

  test.each<[string, string, object]>([
    ['no name', '', {}],
    ['a hash tag of its own', 'a{b}', {}],
    ['no lease', 'a', { leaseMs: 0 }],
    ['half a millisecond', 'a', { leaseMs: 1.5 }],
    ['a lease of more than a day', 'a', { leaseMs: 86_400_001 }],
    ['an endless wait', 'a', { waitMs: Infinity }],
  ])('%s is refused at once', async (_what, name, options) => {
    const { service, sent } = scripted();
    await expect(service.acquire(name, { leaseMs: 100, ...options })).rejects.toThrow(RangeError);
    expect(sent).toEqual([]);
  });

  test('a held lock is a 409 with Retry-After, and a Redis that is away a 503', async () => {
    const busy = scripted(held(1_001));
    const other = await busy.service.acquire('a', { leaseMs: 100 });
    if (other.acquired) throw new Error('unreachable');
    expect(lockRefused(other)).toMatchObject({ code: 'CONFLICT', options: { headers: { 'Retry-After': '2' } } });
    const away = scripted({ value: null });
    const gone = await away.service.acquire('a', { leaseMs: 100 });
    if (gone.acquired) throw new Error('unreachable');
    expect(lockRefused(gone)).toMatchObject({ code: 'SERVICE_UNAVAILABLE' });
  });
});

describe('on an engine', () => {
  let n = 0;
  const fresh = () => `lock-test-${(n += 1)}`;

  test('one holder at a time, over isolates; the next one’s fence is larger', () =>
    inRequest(async () => {
      const name = fresh();
      const first = isLock(await LockService.acquire(name, { leaseMs: 30_000 }));
      expect(first.fence).toBeGreaterThan(Date.now());
      await inRequest(
        async () => {
          const other = await LockService.acquire(name, { leaseMs: 30_000 });
          expect(other).toMatchObject({ acquired: false, reason: 'held' });
          expect(!other.acquired && other.reason === 'held' && other.remainingMs).toBeGreaterThan(25_000);
          expect(await first.release()).toBe('released');
          await using second = isLock(await LockService.acquire(name, { leaseMs: 30_000 }));
          expect(second.fence).toBeGreaterThan(first.fence);
          expect(await first.release()).toBe('released');
          expect(await second.extend()).toBe('extended');
        },
        { isolate: isolateFor() },
      );
      expect((await LockService.acquire(name, { leaseMs: 1_000 })).acquired).toBe(true);
    }));

  test('every key has a TTL', () =>
    inRequest(async ({ batch }) => {
      const name = fresh();
      const { lock, lockFence } = isolateFor().keys;
      const ttl = (key: string) => batch.send('PTTL', key).then(Number);
      const taken = isLock(await LockService.acquire(name, { leaseMs: 5_000 }));
      expect(await ttl(lock(name))).toBeGreaterThan(4_000);
      expect(await ttl(lock(name))).toBeLessThanOrEqual(5_000);
      expect(await ttl(lockFence(name))).toBeGreaterThan(3_500_000);
      await taken.release();
      expect(await batch.send('EXISTS', lock(name))).toBe(0);
      const [left = ''] = (await batch.send('KEYS', `${lock(name)}:left:*`)) as string[];
      expect(await ttl(left)).toBeGreaterThan(50_000);
      expect(await ttl(left)).toBeLessThanOrEqual(60_000);
    }));

  test('the fence goes on from where it was, also when the clock is set back, and its key outlives the difference', () =>
    inRequest(async ({ batch }) => {
      const name = fresh();
      const { lockFence } = isolateFor().keys;
      // An hour ahead of the clock: as if that had been set back by an hour since.
      const ahead = (Date.now() + 3_600_000) * 1_000;
      await batch.send('HSET', lockFence(name), 'fence', ahead);
      const fences: number[] = [];
      for (let i = 0; i < 3; i += 1) {
        await using lock = isLock(await LockService.acquire(name, { leaseMs: 5_000 }));
        fences.push(lock.fence);
      }
      expect(fences).toEqual([ahead + 1, ahead + 2, ahead + 3]);
      expect(Number(await batch.send('PTTL', lockFence(name)))).toBeGreaterThan(7_100_000);
    }));

  test('a lock that is gone from Redis is lost, though no other holder has it', () =>
    inRequest(async ({ batch }) => {
      const name = fresh();
      const taken = isLock(await LockService.acquire(name, { leaseMs: 30_000 }));
      await batch.send('UNLINK', isolateFor().keys.lock(name));
      expect(await taken.extend()).toBe('lost');
      expect(taken.signal.aborted).toBe(true);
    }));
});
