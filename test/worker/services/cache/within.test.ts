import { beforeEach, describe, expect, test } from 'vitest';

import { cached } from '../../../../src/middlewares/cached.middleware';
import { guard } from '../../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../../src/middlewares/rateLimiter.middleware';
import { CacheService } from '../../../../src/services/cache.service';
import { GuardMemoryService } from '../../../../src/services/guardMemory.service';
import { memoryIsolate, namesOf } from '../../support/memory';
import type { Clock } from '../../support/memory';
import { inRequest } from '../../support/request';

const clock: Clock = { nowMs: Date.now() };
let count = 0;
let namespace = '';
beforeEach(() => {
  clock.nowMs += 60_000;
  namespace = `within${(count += 1)}`;
});

/** An isolate that reads a value which `loads` counts. */
function readerOf() {
  const { isolate, sent, redis } = memoryIsolate(clock);
  const state = { value: 1, loads: 0 };
  const run = <T>(work: () => Promise<T>) => inRequest(work, { isolate, now: () => clock.nowMs, random: () => 0.5 });
  const read = (withinSeconds = 1, args: unknown = {}, user?: string) =>
    run(async () => {
      const options = { namespace, args, user, ttlSeconds: 600, withinSeconds };
      const result = await CacheService.result(options, async () => {
        state.loads += 1;
        return state.value;
      });
      return { value: result.value, from: result.from, remembered: result.remembered === true };
    });
  return { isolate, sent, redis, state, run, read };
}

const HIT = { value: 1, from: 'hit', remembered: false };
const REMEMBERED = { ...HIT, remembered: true };

describe('query({ withinSeconds })', () => {
  test('asks Redis once in that time, and not by the time of the last read', async () => {
    const { sent, state, read } = readerOf();
    expect(await read()).toMatchObject({ from: 'loaded' });
    sent.length = 0;
    for (let i = 0; i < 4; i += 1) {
      expect(await read()).toEqual(REMEMBERED);
      clock.nowMs += 249;
    }
    expect(sent).toEqual([]);
    clock.nowMs += 4;
    expect(await read()).toEqual(HIT);
    expect(namesOf(sent)).toEqual([['MGET']]);
    expect(state.loads).toBe(1);
  });

  test('0, the default, asks each time, also beside those that do not', async () => {
    const { sent, read } = readerOf();
    await read(1);
    sent.length = 0;
    expect(await read(0)).toEqual(HIT);
    expect(await read(1)).toEqual(REMEMBERED);
    expect(sent).toHaveLength(1);
  });

  test('an invalidation by this isolate counts at once, one by another within the bound', async () => {
    const [here, elsewhere] = [readerOf(), readerOf()];
    await here.read();
    expect(await elsewhere.read()).toEqual(HIT);
    here.state.value = 2;
    elsewhere.state.value = 2;
    await here.run(() => CacheService.invalidate({ namespaces: [namespace] }));
    expect(await here.read()).toMatchObject({ value: 2, from: 'loaded' });
    expect(await elsewhere.read()).toEqual(REMEMBERED);
    clock.nowMs += 1_000;
    expect(await elsewhere.read()).toEqual({ ...HIT, value: 2 });
  });

  test('an invalidation while the value is being read is not forgotten', async () => {
    const { read, run, state, isolate } = readerOf();
    await read();
    clock.nowMs += 2_000;
    // The question has left, and its reply is still on the way, when this isolate invalidates.
    await Promise.all([
      read(),
      run(async () => {
        state.value = 2;
        await CacheService.invalidate({ namespaces: [namespace] });
      }),
    ]);
    expect(await read()).toMatchObject({ value: 2 });
    expect(isolate.memory.entries.size).toBe(1);
  });

  test('an invalidation of the user, the namespace or a pattern ends the memory of an entry', async () => {
    const { read, run, state } = readerOf();
    for (const end of [
      () => CacheService.invalidateUser('u1'),
      () => CacheService.invalidate({ namespaces: [namespace] }),
      () => CacheService.deletePattern(`${namespace.slice(0, -1)}*`),
    ]) {
      await read(1, {}, 'u1');
      expect(await read(1, {}, 'u1')).toMatchObject({ remembered: true });
      state.value += 1;
      await run(end);
      expect(await read(1, {}, 'u1')).toMatchObject({ value: state.value, remembered: false });
    }
  });

  test('other arguments and users have entries of their own', async () => {
    const { read, state } = readerOf();
    await read(1, { page: 1 }, 'u1');
    state.value = 2;
    expect(await read(1, { page: 2 }, 'u1')).toMatchObject({ value: 2, from: 'loaded' });
    expect(await read(1, { page: 1 }, 'u2')).toMatchObject({ value: 2, from: 'loaded' });
    expect(await read(1, { page: 1 }, 'u1')).toEqual(REMEMBERED);
  });

  test('with Redis away it is served up to the bound', async () => {
    const { read, redis, state } = readerOf();
    await read();
    redis.isAway = true;
    state.value = 2;
    clock.nowMs += 999;
    expect(await read()).toEqual(REMEMBERED);
    clock.nowMs += 1;
    expect(await read()).toMatchObject({ value: 2, from: 'bypass' });
    expect(await read()).toMatchObject({ from: 'bypass' });
  });

  test('an entry that nears its bound is asked for again after the response', async () => {
    const { read, run, sent } = readerOf();
    await read();
    clock.nowMs += 750;
    expect(await read()).toEqual(REMEMBERED);
    sent.length = 0;
    await run(async () => GuardMemoryService.refresh());
    expect(namesOf(sent)).toEqual([['MGET']]);
    clock.nowMs += 999;
    expect(await read()).toEqual(REMEMBERED);
  });

  test('a value is not served past its TTL, nor a bound that makes no sense taken', async () => {
    const { run, read } = readerOf();
    const brief = () =>
      run(() =>
        CacheService.result({ namespace, args: 'brief', ttlSeconds: 2, withinSeconds: 60 }, async () => clock.nowMs),
      );
    const first = await brief();
    clock.nowMs += 1_000;
    expect(await brief()).toMatchObject({ value: first.value, remembered: true });
    clock.nowMs += 1_000;
    expect(await brief()).toMatchObject({ value: clock.nowMs });
    await expect(read(-1)).rejects.toThrow(RangeError);
    await expect(read(61)).rejects.toThrow(RangeError);
  });
});

describe('cached()', () => {
  const app = () => {
    const state = { made: 0 };
    const isolate = memoryIsolate(clock, {}, (routes) => {
      const limiter = () => rateLimiter({ maxRequests: 1_000, name: namespace });
      const handler = () => {
        state.made += 1;
        return Response.json({ made: state.made });
      };
      const options = { ttlSeconds: 600, shared: true, namespace };
      routes.get('/guarded', guard({ within: 1_000 }, limiter(), cached(options)), handler);
      routes.get('/alone', cached({ ...options, withinSeconds: 1 }), handler);
      routes.get('/strict', guard(limiter(), cached({ ...options, withinSeconds: 1 })), handler);
      routes.post('/bypassed', guard({ within: 1_000 }, limiter(), cached(options)), handler);
    });
    return { ...isolate, state };
  };
  const statusOf = ({ headers }: { headers: Headers }) => headers.get('Cache-Status');

  test('in a guard that remembers, the whole response comes from memory, and says so once', async () => {
    const { visit } = app();
    for (let i = 0; i < 2; i += 1) await visit('/guarded');
    const third = await visit('/guarded');
    expect([third.body.made, third.blocking]).toEqual([1, []]);
    expect(statusOf(third)).toMatch(/^Gatehouse; hit; ttl=\d+; detail=memory$/);
    expect(third.headers.get('RateLimit')).toContain(';r=');
    for (let i = 0; i < 2; i += 1) await visit('/bypassed', { body: {} });
    expect(statusOf(await visit('/bypassed', { body: {} }))).toBe('Gatehouse; fwd=bypass; detail=memory');
  });

  test('alone, and in a strict guard, its entry comes from memory', async () => {
    const { visit } = app();
    for (let i = 0; i < 2; i += 1) await visit('/alone');
    const alone = await visit('/alone');
    expect([alone.blocking, alone.fromMemory]).toEqual([[], true]);
    for (let i = 0; i < 2; i += 1) await visit('/strict');
    const strict = await visit('/strict');
    expect([namesOf(strict.blocking), strict.fromMemory]).toEqual([[['EVALSHA']], true]);
    clock.nowMs += 1_000;
    expect(await visit('/alone')).toMatchObject({ fromMemory: false });
    expect(() => cached({ ttlSeconds: 1, withinSeconds: 61 })).toThrow('withinSeconds');
  });
});
