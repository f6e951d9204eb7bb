import { describe, expect, test, vi } from 'vitest';

import { DatabaseUnavailable } from '../../../src/db/client';
import { createRedisClient } from '../../../src/redis/client';
import type { RedisClient } from '../../../src/redis/client';
import type { RedisBatch } from '../../../src/redis/batch';
import { RedisUnavailable } from '../../../src/redis/errors';
import { configOf } from '../../../src/config/env';
import { CacheService } from '../../../src/services/cache.service';
import { LockService } from '../../../src/services/lock.service';
import type { Lock } from '../../../src/services/lock.service';
import { WarmingService, createWarmingService } from '../../../src/services/warming.service';
import type { Slice, SliceOptions, WarmingJob, WarmingProgress } from '../../../src/services/warming.service';
import { isDue, parseProgress } from '../../../src/services/warming/progress';
import { warmingJobs } from '../../../src/warming';
import { bindings, inRequest, isolateFor } from '../support/request';

let n = 0;

interface TestJob extends WarmingJob<number> {
  /** How often each item was loaded. */
  loads: number[];
  /** Cursors of the pages that were asked for. */
  pages: string[];
  /** Most loads at one time. */
  together: number;
  options(item: number): { namespace: string; args: number; ttlSeconds: number };
}

/** A job of `count` items whose loader answers how often it was called. */
function jobOf(
  count: number,
  {
    ttlSeconds = 3_600,
    onLoad = async () => {},
    ...settings
  }: { ttlSeconds?: number; onLoad?: (item: number) => Promise<void>; everySeconds?: number } = {},
): TestJob {
  const name = `job-${(n += 1)}`;
  const loads = Array.from({ length: count }, () => 0);
  const pages: string[] = [];
  let running = 0;
  const job: TestJob = {
    name,
    ...settings,
    loads,
    pages,
    together: 0,
    options: (item) => ({ namespace: name, args: item, ttlSeconds }),
    total: async () => count,
    async page(cursor, limit) {
      pages.push(cursor);
      const first = Number(cursor);
      const items = Array.from({ length: Math.min(limit, count - first) }, (_, index) => first + index);
      return { items, next: first + items.length < count ? String(first + items.length) : null };
    },
    warm: (item) => read(job, item),
  };
  const read = (of: TestJob, item: number) =>
    CacheService.query(of.options(item), async () => {
      running += 1;
      of.together = Math.max(of.together, running);
      try {
        await onLoad(item);
        return (loads[item] = (loads[item] ?? 0) + 1);
      } finally {
        running -= 1;
      }
    });
  return job;
}

const isolate = isolateFor();
const run = (job: WarmingJob, options?: SliceOptions, now?: () => number) =>
  inRequest(() => WarmingService.run(job, options), { isolate, ...(now && { now }) });
const progressOf = async (job: WarmingJob) => (await inRequest(() => WarmingService.progress([job]), { isolate }))[0];

function progress(slice: Slice): WarmingProgress {
  if (!slice.ran) throw new Error(`did not run: ${slice.refusal?.reason ?? 'not due'}`);
  return slice.progress;
}

/** What a reader in another isolate gets, without a loader. */
const cached = (job: TestJob, item: number) =>
  inRequest(() => CacheService.query<number>(job.options(item), async () => null), { isolate: isolateFor() });

describe('a run', () => {
  test('does not wait for an item that goes on although the lock is lost', async () => {
    const lost = new AbortController();
    const lock = {
      acquired: true,
      fence: 1,
      signal: lost.signal,
      remainingMs: 20_000,
      extend: async () => 'extended',
      release: async () => true,
      [Symbol.asyncDispose]: async () => undefined,
    } as unknown as Lock;
    const service = createWarmingService({
      lock: { acquire: async () => lock },
      keys: isolate.keys,
      freshBatch: () => ({ send: async () => null, run: async () => 1 }) as unknown as RedisBatch,
      apart: async (_, work) => work({ degraded: new Set() }),
      waitUntil: () => undefined,
      now: Date.now,
    });
    const slice = service.run({
      name: 'hangs',
      page: async () => ({ items: [1, 2], next: null }),
      warm: async (item) => {
        if (item === 2) lost.abort(new Error('lost'));
        return item === 1 ? new Promise(() => undefined) : undefined;
      },
    });
    expect(await slice).toMatchObject({ ran: true, progress: { state: 'running', done: 0 } });
  });

  test('goes on slice by slice, loads each item once, and fresh entries not again', async () => {
    const job = jobOf(25);
    const first = progress(await run(job, { maxItems: 10 }));
    expect(first).toMatchObject({ state: 'running', cursor: '10', done: 10, failed: 0, total: 25 });
    expect(await progressOf(job)).toEqual(first);
    expect(progress(await run(job, { maxItems: 10 }))).toMatchObject({ state: 'running', done: 20 });
    const last = progress(await run(job, { maxItems: 10 }));
    expect(last).toMatchObject({ state: 'done', done: 25, startedAtMs: first.startedAtMs });
    expect(job.loads).toEqual(Array.from({ length: 25 }, () => 1));
    expect(await Promise.all([0, 24].map((item) => cached(job, item)))).toEqual([1, 1]);

    expect(progress(await run(job))).toMatchObject({ state: 'done', done: 25 });
    expect(job.loads).toEqual(Array.from({ length: 25 }, () => 1));
  });

  test('loads entries anew that would expire before the next run, and invalidated ones', async () => {
    const soon = jobOf(3, { ttlSeconds: 100, everySeconds: 60 });
    await run(soon);
    await run(soon);
    expect(soon.loads).toEqual([2, 2, 2]);
    expect(await cached(soon, 1)).toBe(2);

    const fresh = jobOf(3, { ttlSeconds: 600, everySeconds: 60 });
    await run(fresh);
    await inRequest(() => CacheService.invalidate({ keys: [CacheService.keyOf(fresh.options(1))] }), { isolate });
    await run(fresh);
    expect(fresh.loads).toEqual([1, 2, 1]);
    await inRequest(() => CacheService.invalidate({ namespaces: [fresh.name] }), { isolate });
    await run(fresh);
    expect(fresh.loads).toEqual([2, 3, 2]);
    expect(await cached(fresh, 1)).toBe(3);
  });

  test('stores the values that it loads side by side, the first time too', async () => {
    const job = jobOf(10);
    // Something has been cached before, but nothing of this namespace.
    await inRequest(() => CacheService.query({ namespace: 'other', args: 1, ttlSeconds: 60 }, async () => 1), {
      isolate,
    });
    await run(job);
    expect(await Promise.all(job.loads.map((_, item) => cached(job, item)))).toEqual(job.loads.map(() => 1));
  });

  test('serves the former value until the new one is there, and keeps it when the load fails', async () => {
    let onLoad = async () => {};
    const job = jobOf(1, { ttlSeconds: 100, everySeconds: 60, onLoad: () => onLoad() });
    await run(job);
    onLoad = async () => expect(await cached(job, 0)).toBe(1);
    await run(job);
    expect(await cached(job, 0)).toBe(2);

    onLoad = () => Promise.reject(new Error('no'));
    expect(progress(await run(job))).toMatchObject({ state: 'done', done: 0, failed: 1 });
    expect(await cached(job, 0)).toBe(2);
    onLoad = () => Promise.reject(new DatabaseUnavailable('no'));
    await expect(run(job)).rejects.toThrow(DatabaseUnavailable);
    expect(await cached(job, 0)).toBe(2);
  });

  test('loads as many side by side as it may, and no more', async () => {
    const job = jobOf(12, { onLoad: () => new Promise((resolve) => setTimeout(resolve, 5)) });
    await run(job, { concurrency: 3 });
    expect(job.together).toBe(3);
    expect(job.loads.every((loads) => loads === 1)).toBe(true);
  });

  test('that was killed goes on from its last page, in another isolate too', async () => {
    let broken = true;
    const job = jobOf(60, {
      onLoad: async (item) => {
        if (broken && item === 33) throw new DatabaseUnavailable('killed');
      },
    });
    await expect(run(job)).rejects.toThrow(DatabaseUnavailable);
    expect(await progressOf(job)).toMatchObject({ state: 'running', cursor: '20', done: 20 });
    broken = false;
    job.pages.length = 0;
    const rest = await inRequest(() => WarmingService.run(job), { isolate: isolateFor() });
    expect(progress(rest)).toMatchObject({ state: 'done', done: 60 });
    expect(job.pages).toEqual(['20', '40']);
    // Those of the page that was not finished are fresh: they are not loaded a second time.
    expect(job.loads).toEqual(Array.from({ length: 60 }, () => 1));
  });

  test('counts items that fail, and does not stop for them', async () => {
    const job = jobOf(9, {
      onLoad: async (item) => {
        if (item % 4 === 0) throw new Error('no such order');
      },
    });
    expect(progress(await run(job))).toMatchObject({ state: 'done', done: 6, failed: 3 });
  });

  test('begins anew on demand, or when the record is not ours', async () => {
    const job = jobOf(25);
    await run(job, { maxItems: 20 });
    expect(progress(await run(job, { maxItems: 5, restart: true }))).toMatchObject({ done: 5, cursor: '5' });
    for (const garbage of ['', '{}', '{"state":"done"}', 'null']) {
      await inRequest(({ batch }) => batch.send('HSET', isolate.keys.warming(job.name), 'value', garbage), { isolate });
      expect(await progressOf(job)).toBeUndefined();
    }
    expect(progress(await run(job))).toMatchObject({ state: 'done', done: 25 });
  });

  test('ends with its time, but not before a page is done', async () => {
    let nowMs = Date.now();
    const job = jobOf(60, { onLoad: async () => void (nowMs += 400) });
    expect(progress(await run(job, { maxMs: 1_000 }, () => nowMs))).toMatchObject({ state: 'running', done: 20 });
    expect(job.pages).toEqual(['']);
  });

  test('keeps its progress for a day', async () => {
    const job = jobOf(1);
    await run(job);
    const left = await inRequest(({ batch }) => batch.send('PTTL', isolate.keys.warming(job.name)));
    expect(Number(left)).toBeGreaterThan(86_000_000);
    expect(Number(left)).toBeLessThanOrEqual(86_400_000);
  });
});

describe('one at a time', () => {
  test('a job that another isolate is at is refused', async () => {
    let other: Slice | undefined;
    const job = jobOf(1, {
      onLoad: async () => {
        other ??= await inRequest(() => WarmingService.run(job), { isolate: isolateFor() });
      },
    });
    expect(progress(await run(job))).toMatchObject({ state: 'done' });
    expect(other).toMatchObject({ ran: false, refusal: { reason: 'held' } });
  });

  test('one that has lost its lock stops, and overwrites nothing', async () => {
    let nowMs = Date.now();
    let taken = false;
    let successor: WarmingProgress | undefined;
    const job = jobOf(60, {
      onLoad: async (item) => {
        if (item !== 23 || taken) return;
        taken = true;
        // Suspended past its lease; meanwhile Redis has given the job to another run, which finishes it.
        await inRequest(({ batch }) => batch.send('UNLINK', isolate.keys.lock(`warming:${job.name}`)));
        const elsewhere = isolateFor();
        successor = progress(await inRequest(() => WarmingService.run(job, { restart: true }), { isolate: elsewhere }));
        nowMs += 20_000;
      },
    });
    const late = progress(await run(job, {}, () => nowMs));
    expect(late).toMatchObject({ state: 'running', done: 20 });
    expect(successor).toMatchObject({ state: 'done', done: 60 });
    expect(await progressOf(job)).toEqual(successor);
    // The last page was asked for by the successor alone.
    expect(job.pages).toEqual(['', '20', '', '20', '40']);
  });

  test('one that does not know that it lost its lock is refused by its fence', async () => {
    let successor: WarmingProgress | undefined;
    const job = jobOf(3, {
      onLoad: async (item) => {
        if (item !== 2 || successor !== undefined) return;
        await inRequest(({ batch }) => batch.send('UNLINK', isolate.keys.lock(`warming:${job.name}`)));
        const elsewhere = isolateFor();
        await inRequest(
          async ({ batch }) => {
            await using lock = await LockService.acquire(`warming:${job.name}`, { leaseMs: 30_000 });
            if (!lock.acquired) throw new Error(lock.reason);
            successor = { ...(await started()), done: 99, state: 'done' };
            const written = [lock.fence, JSON.stringify(successor)];
            await batch.send('HSET', isolate.keys.warming(job.name), 'fence', written[0]!, 'value', written[1]!);
          },
          { isolate: elsewhere },
        );
      },
    });
    const started = async (): Promise<WarmingProgress> => ({
      state: 'running',
      cursor: '',
      done: 0,
      failed: 0,
      total: null,
      startedAtMs: Date.now(),
      updatedAtMs: Date.now(),
    });
    expect(progress(await run(job))).toMatchObject({ state: 'running', done: 0 });
    expect(await progressOf(job)).toEqual(successor);
  });
});

describe('without Redis', () => {
  /** The real client, which a test can make fail from some command on. */
  function failing() {
    const { url, token } = configOf(bindings()).redis;
    const real = createRedisClient({ url, token });
    const state = { down: false };
    const client: RedisClient = {
      execute: (commands) => (state.down ? Promise.reject(new RedisUnavailable('refused')) : real.execute(commands)),
    };
    return { state, isolate: isolateFor(bindings(), { client }) };
  }

  test('nothing is loaded', async () => {
    const { state, isolate } = failing();
    const job = jobOf(3, { everySeconds: 60 });
    state.down = true;
    expect(await inRequest(() => WarmingService.run(job), { isolate })).toMatchObject({
      ran: false,
      refusal: { reason: 'unavailable' },
    });
    const logged = vi.spyOn(console, 'info').mockImplementation(() => undefined);
    await inRequest(() => WarmingService.runDue([job]), { isolate });
    expect(logged.mock.calls.flat().join()).toContain('warming.skipped');
    logged.mockRestore();
    expect(job.loads).toEqual([0, 0, 0]);
  });

  test('it stops where Redis went away, and counts nothing that was not stored', async () => {
    const { state, isolate } = failing();
    const job = jobOf(40, {
      onLoad: async (item) => {
        if (item === 24) state.down = true;
      },
    });
    await expect(inRequest(() => WarmingService.run(job), { isolate })).rejects.toMatchObject({
      code: 'SERVICE_UNAVAILABLE',
    });
    // The wave in which that shows is the last.
    expect(job.loads[31]).toBe(0);
    expect(await progressOf(job)).toMatchObject({ state: 'running', done: 20, cursor: '20' });
  });
});

describe('the scheduled handler', () => {
  test('runs each job that is due once, and goes on with unfinished ones', async () => {
    let nowMs = Date.now();
    const minutely = jobOf(3, { everySeconds: 60 });
    const hourly = jobOf(250, { everySeconds: 3_600 });
    const onRequest = jobOf(3);
    const tick = () =>
      inRequest(() => WarmingService.runDue([minutely, hourly, onRequest]), { isolate, now: () => nowMs });
    await tick();
    expect(minutely.pages).toHaveLength(1);
    expect(await progressOf(hourly)).toMatchObject({ state: 'running', done: 100 });
    await tick();
    expect(minutely.pages).toHaveLength(1);
    expect(await progressOf(hourly)).toMatchObject({ state: 'running', done: 200 });
    nowMs += 59_000;
    await tick();
    expect(minutely.pages).toHaveLength(2);
    expect(await progressOf(hourly)).toMatchObject({ state: 'done', done: 250 });
    nowMs += 60_000;
    await tick();
    expect(hourly.loads.every((loads) => loads === 1)).toBe(true);
    expect(onRequest.pages).toEqual([]);
  });

  test('goes on with a run that was begun on request, until it is done or stopped', async () => {
    const [whole, stopped] = [jobOf(150), jobOf(150)];
    const tick = () => inRequest(() => WarmingService.runDue([whole, stopped]), { isolate });
    await tick();
    expect(whole.pages).toEqual([]);
    for (const job of [whole, stopped]) await run(job, { maxItems: 20 });
    await inRequest(() => WarmingService.stop(stopped), { isolate });
    await tick();
    await tick();
    expect(await progressOf(whole)).toMatchObject({ state: 'done', done: 150 });
    expect(whole.loads.every((loads) => loads === 1)).toBe(true);
    expect(await progressOf(stopped)).toMatchObject({ state: 'stopped', done: 20 });
    const { length } = whole.pages;
    await tick();
    expect(whole.pages).toHaveLength(length);
  });

  test('warms two hundred items at most, however many jobs are due', async () => {
    const jobs = [1, 2, 3, 4].map(() => jobOf(100, { everySeconds: 60 }));
    await inRequest(() => WarmingService.runDue(jobs), { isolate });
    expect(jobs.map(({ loads }) => loads.filter((count) => count > 0).length)).toEqual([50, 50, 50, 50]);
  });

  test('knows for longer than a day when a weekly job began', async () => {
    const weekly = jobOf(1, { everySeconds: 7 * 86_400 });
    await run(weekly);
    const left = await inRequest(({ batch }) => batch.send('PTTL', isolate.keys.warming(weekly.name)));
    expect(Number(left)).toBeGreaterThan(7 * 86_400_000);
  });

  test('one job that fails leaves the others alone', async () => {
    const logged = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const bad: WarmingJob = { ...jobOf(1, { everySeconds: 60 }), page: () => Promise.reject(new Error('broken')) };
    const good = jobOf(1, { everySeconds: 60 });
    await inRequest(() => WarmingService.runDue([bad, good]), { isolate });
    expect(good.loads).toEqual([1]);
    expect(logged.mock.calls.flat().join()).toContain('warming.failed');
    logged.mockRestore();
  });

  test.each<[number | undefined, WarmingProgress['state'] | undefined, number, boolean]>([
    [60, undefined, 0, true],
    [60, 'running', 0, true],
    [60, 'done', 29_999, false],
    [60, 'done', 30_000, true],
    [300, 'done', 269_999, false],
    [300, 'done', 270_000, true],
    [undefined, undefined, 0, false],
    [undefined, 'running', 9_999_999, true],
    [undefined, 'stopped', 9_999_999, false],
  ])('every %s s, %s since %i ms: due %s', (everySeconds, state, sinceMs, due) => {
    const times = { startedAtMs: 1_000, updatedAtMs: 1_000 };
    const known = state && { state, cursor: '', done: 0, failed: 0, total: null, ...times };
    expect(isDue(everySeconds, known, 1_000 + sinceMs)).toBe(due);
  });
});

test('progress that cannot be read is none', () => {
  for (const text of [null, 7, 'x', '[]', '{"state":"over"}']) expect(parseProgress(text)).toBeUndefined();
});

describe('the jobs of the app', () => {
  test('have names of their own, fit for a URL', () => {
    const names = warmingJobs.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z0-9-]{1,64}$/);
  });
});
