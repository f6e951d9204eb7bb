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
 * Cache entries to be kept warm, declared in `src/warming.ts`. Its functions run as in a request: the static calls work.
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
  /** Letters, digits and hyphens: it stands in URLs. */
  readonly name: string;
  /** The cron trigger begins a run this long after the one before began. Left out: runs begin on request only. */
  readonly everySeconds?: number;
  /** An entry that is fresh for less than this is loaded anew. @default everySeconds + 60, on request 120 */
  readonly refreshBelowSeconds?: number;
  /** How many items there will be, where that is cheap to tell. */
  total?(): Promise<number>;
  /**
   * The next items, `limit` at most. A run that was killed begins its last page again.
   *
   * @param cursor `next` of the page before, `''` for the first
   */
  page(cursor: string, limit: number): Promise<{ items: readonly Item[]; next: string | null }>;
  /** Reads the item through the cache. After the signal has fired, its result is not used. */
  warm(item: Item, context: { signal: AbortSignal }): Promise<unknown>;
}

export interface SliceOptions {
  /** Begins no further page after this, in milliseconds. @default 10_000 */
  maxMs?: number;
  /** @default 100: about 350 subrequests where nothing is cached yet, 35 where all is (Cloudflare allows 1,000) */
  maxItems?: number;
  /** Items warmed side by side. @default 5 */
  concurrency?: number;
  /** Begins anew, whatever is unfinished. */
  restart?: boolean;
  /** Does nothing unless the job is due. */
  ifDue?: boolean;
}

export type Slice = { ran: true; progress: WarmingProgress } | { ran: false; refusal?: LockRefusal };

/**
 * Keeps cache entries warm, a slice at a time: one isolate a job (a lock), from where the last slice ended (progress in
 * Redis, for a day or two intervals), a few items side by side.
 *
 * What is fresh is read and left as it is. What is missing, stale or invalidated is loaded, and so is what would not be
 * fresh for long: readers are served the former value until the new one is there, and keep it when the load fails.
 * Without Redis there is nothing to warm, and nothing is loaded.
 */
export interface WarmingService {
  /** How far each job has come; `undefined` for one that has not run within a day. One trip. @throws {RedisUnavailable} */
  progress(jobs: readonly WarmingJob[]): Promise<(WarmingProgress | undefined)[]>;
  /**
   * Continues an unfinished run, or starts one.
   *
   * @returns `refusal` when another isolate holds the job's lock, or Redis is away; without one, the job was not due
   * @throws {RedisUnavailable | DatabaseUnavailable | AppError} when one went away on the way; what was done is recorded
   */
  run(job: WarmingJob, options?: SliceOptions): Promise<Slice>;
  /**
   * Ends a run before its end. A job with `everySeconds` begins its next run in its time.
   *
   * @returns how far it had come; `undefined` when nothing runs, or when an isolate is working on it: that one stops after the
   *   items that it has started
   * @throws {RedisError}
   */
  stop(job: WarmingJob): Promise<{ stopping: boolean; progress?: WarmingProgress }>;
  /** A slice of each job that is due, and of each unfinished run, for the scheduled handler. */
  runDue(jobs: readonly WarmingJob[]): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    warming: WarmingService;
  }
}

export const WarmingService: WarmingService = facade('warming');

const LEASE_MS = 20_000;
/** Prolonged before a wave when less than this is left: a loader's deadline, and more. */
const EXTEND_BELOW_MS = 15_000;
const PROGRESS_TTL_MS = 86_400_000;
/** Items of a slice, and of all slices of one call of the scheduled handler: see {@link SliceOptions.maxItems}. */
const SLICE_ITEMS = 100;
const RUN_ITEMS = 200;
/** Waves of items a page, and so a write of the progress. */
const WAVES = 4;

export interface WarmingDeps {
  instruments?: Pick<Instruments, 'warmedItems'>;
  lock: LockService;
  keys: Keys;
  /** A batch with a deadline of its own. */
  freshBatch: () => RedisBatch;
  /** Runs work with services and a batch of its own, and sends all of it at the end. */
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

  /** `overtaken`: another isolate has gone on with the job since. `stop`: an administrator wants it to end. */
  async function record(
    job: WarmingJob,
    { fence }: Lock,
    progress: WarmingProgress,
  ): Promise<'written' | 'overtaken' | 'stop'> {
    // Longer than it takes until the next run: without its progress a job would be due.
    const ttlMs = Math.max(PROGRESS_TTL_MS, 2_000 * (job.everySeconds ?? 0));
    const args = [fence, JSON.stringify(progress), ttlMs];
    const [batch, key] = [freshBatch(), keys.warming(job.name)];
    const [written, stop] = await Promise.all([batch.run(fencedWrite, [key], args), batch.send('HGET', key, 'stop')]);
    if (written !== 1) return 'overtaken';
    return stop === null ? 'written' : 'stop';
  }

  /** Warms items side by side. @returns how many could not be @throws what the signal was aborted with */
  function warmTogether(job: WarmingJob, items: readonly unknown[], signal: AbortSignal): Promise<number> {
    const refreshWithinMs = (job.refreshBelowSeconds ?? (job.everySeconds ?? 60) + 60) * 1_000;
    return apart({ refreshWithinMs }, async ({ degraded }) => {
      // An item that does not heed the signal is left to itself.
      const outcomes = await orAborted(Promise.allSettled(items.map((item) => job.warm(item, { signal }))), signal);
      // Loading what cannot be stored is load for nothing: no further.
      if (degraded.size > 0) throw unavailable('The cache');
      const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
      for (const error of errors) {
        if (error instanceof DatabaseUnavailable) throw error;
        log('warn', 'warming.item_failed', { job: job.name, ...describeError(error) });
      }
      return errors.length;
    });
  }

  /** One page, all of it or nothing. @returns `undefined` when the lock ran out on the way */
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

    const goesOn = !restart && known?.state === 'running';
    // A wish to stop was about the run before.
    if (!goesOn && known !== undefined) await forgetStop(job);
    let progress = goesOn ? known : await begin(job);
    for (let left = maxItems; progress.state === 'running' && left > 0 && now() < untilMs;) {
      const page = await advance(job, lock, progress, Math.min(left, concurrency * WAVES), concurrency);
      if (page === undefined) break;
      ({ progress } = page);
      // A job that gives empty pages for ever ends with its slice.
      left -= Math.max(1, page.items);
    }
    const { state, done, failed } = progress;
    // That a short job ran well within one slice, as it does each minute, is no news.
    if (goesOn || state === 'running' || failed > 0)
      log('info', 'warming.slice', { job: job.name, state, done, failed });
    return { ran: true, progress };
  }

  const service: WarmingService = {
    progress: progressOf,

    run(job, options = {}) {
      const running = slice(job, options);
      // A client that goes away must not leave the lock behind.
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

  /** One job's failure is not the other's. */
  async function runOne(job: WarmingJob, maxItems: number): Promise<void> {
    try {
      await service.run(job, { ifDue: true, maxItems });
    } catch (error) {
      log('warn', 'warming.failed', { job: job.name, ...describeError(error) });
    }
  }

  return service;
}
