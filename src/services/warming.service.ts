import { describeError, log } from '../config/log';
import { createInstruments } from '../metrics/instruments';
import type { Instruments } from '../metrics/instruments';
import { chunks } from '../util/chunks';
import { DatabaseUnavailable } from '../db/client';
import { unavailable } from '../errors';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { fencedWrite } from '../redis/scripts/fencedWrite';
import type { Lock, LockRefusal, LockService } from './lock.service';
import { orAborted } from '../util/orAborted';
import { facade } from './scope';
import { isDue, parseProgress } from './warming/progress';
import type { WarmingProgress } from './warming/progress';

export type { WarmingProgress } from './warming/progress';

/**
 * Cache entries to keep warm, declared in `src/warming.ts`. The functions run as in a request: the static calls work.
 *
 * @example
 * export const topOrders: WarmingJob<number> = {
 *   name: 'top-orders',
 *   everySeconds: 60,
 *   page: async () => ({ items: [1, 2, 3], next: null }),
 *   warm: (page) => CacheService.query(ordersOf(page), () => loadOrders(page)),
 * };
 */
export interface WarmingJob<Item = unknown> {
  /** Letters, digits and hyphens, because it is part of URLs. */
  readonly name: string;
  /** The cron trigger starts a run this long after the start of the previous one. Omitted: runs start on request only. */
  readonly everySeconds?: number;
  /** Entries that are fresh for less than this are loaded again. @default everySeconds + 60, on request 120 */
  readonly refreshBelowSeconds?: number;
  /** The number of items, if it is cheap to find out. */
  total?(): Promise<number>;
  /**
   * The next items, at most `limit`. A run that was killed repeats its last page.
   *
   * @param cursor `next` of the previous page, `''` for the first
   */
  page(cursor: string, limit: number): Promise<{ items: readonly Item[]; next: string | null }>;
  /** Reads the item through the cache. The result is ignored once the signal has fired. */
  warm(item: Item, context: { signal: AbortSignal }): Promise<unknown>;
}

export interface SliceOptions {
  /** Starts no further page after this time, in milliseconds. @default 10_000 */
  maxMs?: number;
  /** @default 100: about 350 subrequests if no entry is cached yet, 35 if all are (Cloudflare allows 1,000) */
  maxItems?: number;
  /** Number of items warmed at the same time. @default 5 */
  concurrency?: number;
  /** Starts from the beginning, even if a run is unfinished. */
  restart?: boolean;
  /** Does nothing unless the job is due. */
  ifDue?: boolean;
}

export type Slice = { ran: true; progress: WarmingProgress } | { ran: false; refusal?: LockRefusal };

/**
 * Keeps cache entries warm, a slice at a time: one isolate per job (by a lock), from where the last slice ended (the
 * progress is in Redis, for a day or two intervals), several items at the same time.
 *
 * Fresh entries are only read. Missing, stale or invalidated entries are loaded, and also those that would not be fresh for
 * long: readers get the former value until the new one is stored, and keep it if the load fails. Without Redis no entry can
 * be stored, so none is loaded.
 */
export interface WarmingService {
  /** The progress of each job; `undefined` for one that has not run within a day. One trip. @throws {RedisUnavailable} */
  progress(jobs: readonly WarmingJob[]): Promise<(WarmingProgress | undefined)[]>;
  /**
   * Continues an unfinished run, or starts one.
   *
   * @returns `refusal` if another isolate holds the job's lock, or Redis is away; without it, the job was not due
   * @throws {RedisUnavailable | DatabaseUnavailable | AppError} if one of them went away in between; the progress so far is
   *   recorded
   */
  run(job: WarmingJob, options?: SliceOptions): Promise<Slice>;
  /**
   * Stops a run early. A job with `everySeconds` starts its next run when it is due.
   *
   * @returns the progress so far; `undefined` if no run is in progress, or if an isolate is working on it: that isolate
   *   stops after the items that it has started
   * @throws {RedisError}
   */
  stop(job: WarmingJob): Promise<{ stopping: boolean; progress?: WarmingProgress }>;
  /** Runs a slice of each due job, and of each unfinished run, for the cron trigger. */
  runDue(jobs: readonly WarmingJob[]): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    warming: WarmingService;
  }
}

export const WarmingService: WarmingService = facade('warming');

const LEASE_MS = 20_000;
/** If less than this is left of the lease, it is extended before the next wave: a loader's deadline, and more. */
const EXTEND_BELOW_MS = 15_000;
const PROGRESS_TTL_MS = 86_400_000;
/** Items per slice, and of all slices of one call of the cron trigger: see {@link SliceOptions.maxItems}. */
const SLICE_ITEMS = 100;
const RUN_ITEMS = 200;
/** Waves of items per page. The progress is written after each page. */
const WAVES = 4;

export interface WarmingDeps {
  instruments?: Pick<Instruments, 'warmedItems'>;
  lock: LockService;
  keys: Keys;
  /** Makes a batch with its own deadline. */
  freshBatch: () => RedisBatch;
  /** Runs work with its own services and batch, and sends all deferred commands at the end. */
  apart: <T>(
    changes: { refreshWithinMs?: number },
    work: (own: { degraded: ReadonlySet<string> }) => Promise<T>,
  ) => Promise<T>;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createWarmingService(deps: WarmingDeps): WarmingService {
  const { lock: locks, keys, freshBatch, apart, waitUntil, now, instruments = createInstruments() } = deps;
  const { warmedItems } = instruments;

  async function begin(job: WarmingJob): Promise<WarmingProgress> {
    const total = job.total === undefined ? null : await apart({}, async () => (await job.total?.()) ?? null);
    return { state: 'running', cursor: '', done: 0, failed: 0, total, startedAtMs: now(), updatedAtMs: now() };
  }

  /** `overtaken`: another isolate has continued the job since. `stop`: an administrator wants to stop it. */
  async function record(
    job: WarmingJob,
    { fence }: Lock,
    progress: WarmingProgress,
  ): Promise<'written' | 'overtaken' | 'stop'> {
    // Longer than the interval between runs: without its progress a job would be due.
    const ttlMs = Math.max(PROGRESS_TTL_MS, 2_000 * (job.everySeconds ?? 0));
    const args = [fence, JSON.stringify(progress), ttlMs];
    const [batch, key] = [freshBatch(), keys.warming(job.name)];
    const [written, stop] = await Promise.all([batch.run(fencedWrite, [key], args), batch.send('HGET', key, 'stop')]);
    if (written !== 1) return 'overtaken';
    return stop === null ? 'written' : 'stop';
  }

  /** Warms items at the same time. @returns the number of failures @throws the abort reason of the signal */
  function warmTogether(job: WarmingJob, items: readonly unknown[], signal: AbortSignal): Promise<number> {
    const refreshWithinMs = (job.refreshBelowSeconds ?? (job.everySeconds ?? 60) + 60) * 1_000;
    return apart({ refreshWithinMs }, async ({ degraded }) => {
      // Do not wait for items that ignore the signal.
      const outcomes = await orAborted(Promise.allSettled(items.map((item) => job.warm(item, { signal }))), signal);
      // If loaded values cannot be stored, stop: further loads would be useless.
      if (degraded.size > 0) throw unavailable('The cache');
      const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
      for (const error of errors) {
        if (error instanceof DatabaseUnavailable) throw error;
        log('warn', 'warming.item_failed', { job: job.name, ...describeError(error) });
      }
      return errors.length;
    });
  }

  /** Warms one page completely. @returns `undefined` if the lock ran out before that */
  async function advance(job: WarmingJob, lock: Lock, from: WarmingProgress, limit: number, concurrency: number) {
    const { items, next } = await apart({}, () => job.page(from.cursor, limit));
    let failed = 0;
    for (const together of chunks(items, concurrency)) {
      if (lock.remainingMs < EXTEND_BELOW_MS) await lock.extend();
      if (lock.signal.aborted) return undefined;
      try {
        failed += await warmTogether(job, together, lock.signal);
      } catch (error) {
        if (lock.signal.aborted && error === lock.signal.reason) return undefined;
        throw error;
      }
    }
    const progress: WarmingProgress = {
      ...from,
      state: next === null ? 'done' : 'running',
      cursor: next ?? '',
      done: from.done + items.length - failed,
      failed: from.failed + failed,
      updatedAtMs: now(),
    };
    const recorded = await record(job, lock, progress);
    if (recorded === 'overtaken') return undefined;
    warmedItems.add(warmedItems.series(job.name, 'warmed'), items.length - failed);
    warmedItems.add(warmedItems.series(job.name, 'failed'), failed);
    if (recorded === 'written' || progress.state === 'done') return { progress, items: items.length };
    return { progress: await markStopped(job, lock, progress), items: items.length };
  }

  async function markStopped(job: WarmingJob, lock: Lock, from: WarmingProgress): Promise<WarmingProgress> {
    const progress = { ...from, state: 'stopped' as const, updatedAtMs: now() };
    await record(job, lock, progress);
    await forgetStop(job);
    return progress;
  }

  const forgetStop = (job: WarmingJob) => freshBatch().send('HDEL', keys.warming(job.name), 'stop');

  async function progressOf(jobs: readonly WarmingJob[]) {
    const batch = freshBatch();
    const values = await Promise.all(jobs.map(({ name }) => batch.send('HGET', keys.warming(name), 'value')));
    return values.map(parseProgress);
  }

  async function slice(
    job: WarmingJob,
    { maxMs = 10_000, maxItems = SLICE_ITEMS, concurrency = 5, restart = false, ifDue = false }: SliceOptions,
  ): Promise<Slice> {
    const untilMs = now() + maxMs;
    await using lock = await locks.acquire(`warming:${job.name}`, { leaseMs: LEASE_MS });
    if (!lock.acquired) return { ran: false, refusal: lock };
    const [known] = await progressOf([job]);
    if (ifDue && !isDue(job.everySeconds, known, now())) return { ran: false };

    const continues = !restart && known?.state === 'running';
    // A request to stop referred to the previous run.
    if (!continues && known !== undefined) await forgetStop(job);
    let progress = continues ? known : await begin(job);
    for (let left = maxItems; progress.state === 'running' && left > 0 && now() < untilMs;) {
      const page = await advance(job, lock, progress, Math.min(left, concurrency * WAVES), concurrency);
      if (page === undefined) break;
      ({ progress } = page);
      // A job that returns empty pages for ever ends with its slice.
      left -= Math.max(1, page.items);
    }
    const { state, done, failed } = progress;
    // Do not log that a short job succeeded within one slice, as it does each minute.
    if (continues || state === 'running' || failed > 0)
      log('info', 'warming.slice', { job: job.name, state, done, failed });
    return { ran: true, progress };
  }

  const service: WarmingService = {
    progress: progressOf,

    run(job, options = {}) {
      const running = slice(job, options);
      // If the client disconnects, the lock must still be released.
      waitUntil(running.catch(() => undefined));
      return running;
    },

    async stop(job) {
      await using lock = await locks.acquire(`warming:${job.name}`, { leaseMs: LEASE_MS });
      const [known] = await progressOf([job]);
      if (known?.state !== 'running') return { stopping: false, ...(known && { progress: known }) };
      if (lock.acquired) return { stopping: false, progress: await markStopped(job, lock, known) };
      await freshBatch().send('HSET', keys.warming(job.name), 'stop', '1');
      return { stopping: true, progress: known };
    },

    async runDue(jobs) {
      if (jobs.length === 0) return;
      try {
        const progress = await progressOf(jobs);
        const due = jobs.filter(({ everySeconds }, index) => isDue(everySeconds, progress[index], now()));
        const maxItems = Math.min(SLICE_ITEMS, Math.ceil(RUN_ITEMS / due.length));
        for (const job of due) await runOne(job, maxItems);
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        log('info', 'warming.skipped', describeError(error));
      }
    },
  };

  /** A failing job must not stop the other jobs. */
  async function runOne(job: WarmingJob, maxItems: number): Promise<void> {
    try {
      await service.run(job, { ifDue: true, maxItems });
    } catch (error) {
      log('warn', 'warming.failed', { job: job.name, ...describeError(error) });
    }
  }

  return service;
}
