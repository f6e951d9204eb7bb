import { describeError, log } from '../config/log';
import { createInstruments } from '../metrics/instruments';
import type { Instruments } from '../metrics/instruments';
import { AppError, unavailable } from '../errors';
import type { RedisValue } from '../redis/client';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { lockAcquire } from '../redis/scripts/lockAcquire';
import { lockExtend } from '../redis/scripts/lockExtend';
import { lockRelease } from '../redis/scripts/lockRelease';
import { createAsk } from './lock/ask';
import type { AskDeps } from './lock/ask';
import { LockLease } from './lock/lease';
import { pauseMs } from './lock/waiting';
import { orAborted } from '../util/orAborted';
import { sleep } from '../util/retry';
import { facade } from './scope';

export interface AcquireOptions {
  /** When a holder that neither releases nor extends loses the lock, in milliseconds; a day at most. */
  leaseMs: number;
  /** How long to wait while another holds it, a minute at most. Each look is a subrequest. @default 0: one look */
  waitMs?: number;
  /** Ends the wait; a lock that is got all the same is released. */
  signal?: AbortSignal;
}

/** A lock that is held, until it is disposed of or its signal fires. */
export interface Lock extends AsyncDisposable {
  readonly acquired: true;
  readonly name: string;
  /** Larger than that of every holder before: see {@link LockService} for what to do with it. */
  readonly fence: number;
  /**
   * Fires while the lock is still held in Redis, a twentieth of the lease (20 ms at least) before its end; and at once
   * when it turns out to be lost, or is released. A timer fires only while the isolate is not computing: between long
   * computations await something, such as a timer, and look at `remainingMs` (on Cloudflare the clock stands still
   * while an isolate computes).
   */
  readonly signal: AbortSignal;
  /** Time until the signal fires, in milliseconds. */
  readonly remainingMs: number;
  /**
   * A lease of this length from now on; one that lasts longer stays. `lost`: another holder may have the lock, and the
   * signal has fired. `unavailable`: Redis did not reply, and the signal fires when the former lease ends.
   *
   * @param leaseMs @default that of the acquisition
   */
  extend(leaseMs?: number): Promise<'extended' | 'lost' | 'unavailable'>;
  /**
   * Harmless when late or repeated: it never frees another holder's lock. `unavailable`: the lock is free once its lease has
   * ended.
   */
  release(): Promise<'released' | 'lost' | 'unavailable'>;
}

/** Disposable as well, so that `await using` takes either. */
export type LockRefusal = AsyncDisposable & { readonly acquired: false } & (
    | {
        readonly reason: 'held';
        /** Of the other's lease, which it may extend or end, in milliseconds. */
        readonly remainingMs: number;
      }
    /** Redis did not reply within one deadline. */
    | { readonly reason: 'unavailable' }
  );

/**
 * Locks with a lease, over all isolates: one holder a name.
 *
 * What it guarantees: while one Redis keeps its data, no two holders whose signals have not fired. Not more: a failover
 * may lose the last acquisition, a flush loses all, and a holder may be suspended past its lease. So a lock saves work
 * that need not be done twice; where doing it twice would be WRONG, let the data decide by the fence. It grows with every
 * holder, over a loss of Redis's data too, as long as the clocks of its servers agree to within the time that a failover
 * takes (else the newer holder's writes are refused: nothing is corrupted). Waiters are not served in any order.
 *
 * A request that is cancelled because its client has gone leaves its lock until the lease ends: give long work to
 * `waitUntil`.
 *
 * @example
 * await using lock = await LockService.acquire('report:daily', { leaseMs: 30_000, waitMs: 2_000 });
 * if (!lock.acquired) throw lockRefused(lock); // 409 or 503
 * const report = await build({ signal: lock.signal });
 * // `<=`: this holder may write again. No row changed: another holder took over, and this result is void.
 * await db.update(reports).set({ report, fence: lock.fence })
 *   .where(and(eq(reports.id, id), lte(reports.fence, lock.fence)));
 */
export interface LockService {
  /**
   * Takes the lock, or says why not.
   *
   * @param name 1 to 200 characters without braces; a person's address does not belong in it
   * @throws what `signal` was aborted with
   */
  acquire(name: string, options: AcquireOptions): Promise<Lock | LockRefusal>;
}

declare module './scope' {
  interface ServiceMap {
    lock: LockService;
  }
}

export const LockService: LockService = facade('lock');

/**
 * The error for a client whose request needs a lock that it cannot get.
 *
 * @param mostMs how long the holder can keep it, where that is known to be less than its lease
 */
export function lockRefused(lockRefusal: LockRefusal, mostMs = Infinity): AppError {
  if (lockRefusal.reason === 'unavailable') return unavailable('The lock');
  const seconds = Math.max(1, Math.ceil(Math.min(lockRefusal.remainingMs, mostMs) / 1_000));
  return new AppError('CONFLICT', {
    detail: 'The lock is held by another request.',
    headers: { 'Retry-After': String(seconds) },
  });
}

const MAX_LEASE_MS = 86_400_000;
const MAX_WAIT_MS = 60_000;
/** Until the clock has passed a fence by this much its key stays: a clock is not set back by more in one step. */
const CLOCK_STEP_MS = 3_600_000;
/** A call that was given up arrives within this time, or never. */
const LATE_CALL_MS = 60_000;

export interface LockDeps extends AskDeps {
  instruments?: Pick<Instruments, 'locks'>;
  keys: Keys;
  waitUntil: (promise: Promise<unknown>) => void;
}

export function createLockService({
  batchWithin,
  deadlineMs,
  keys,
  waitUntil,
  now,
  random = Math.random,
  instruments = createInstruments(),
}: LockDeps): LockService {
  const ask = createAsk({ batchWithin, deadlineMs, now, random });

  const release = (name: string, holder: string) =>
    ask(lockRelease, [keys.lock(name), keys.lockLeft(name, holder)], [holder, LATE_CALL_MS]);

  /** For a holder that leaves and does not know whether a call of its own has taken, or will take, the lock. */
  function leave(name: string, holder: string): void {
    waitUntil(release(name, holder).catch((error: unknown) => log('warn', 'lock.leave_failed', describeError(error))));
  }

  function lockOf(name: string, holder: string, fence: number, lease: LockLease, ownLeaseMs: number): Lock {
    let released: Promise<'released' | 'lost' | 'unavailable'> | undefined;
    const releaseNow = async () => {
      lease.end('The lock was released.');
      try {
        const { reply, certain } = await release(name, holder);
        // After a lost reply the lock may be free because the first try freed it.
        if (reply === 1) return 'released';
        if (reply !== 0) return 'unavailable';
        return certain ? 'lost' : 'released';
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        log('warn', 'lock.release_failed', describeError(error));
        return 'unavailable';
      }
    };
    const lock: Lock = {
      acquired: true,
      name,
      fence,
      signal: lease.signal,
      get remainingMs() {
        return lease.remainingMs;
      },
      async extend(leaseMs = ownLeaseMs) {
        checkDuration('leaseMs', leaseMs, 1, MAX_LEASE_MS);
        if (lease.remainingMs === 0) {
          lease.end('The lease of the lock ran out.');
          return 'lost';
        }
        try {
          const { reply, askedAtMs } = await ask(lockExtend, [keys.lock(name)], [holder, leaseMs]);
          if (reply === 1) lease.grant(askedAtMs, leaseMs);
          else if (reply === 0) lease.end('The lock was lost.');
          else throw new RedisUnavailable('garbage');
        } catch (error) {
          if (!(error instanceof RedisUnavailable)) throw error;
          return lease.remainingMs > 0 ? 'unavailable' : 'lost';
        }
        return lease.remainingMs > 0 ? 'extended' : 'lost';
      },
      release: () => (released ??= releaseNow()),
      async [Symbol.asyncDispose]() {
        await lock.release();
      },
    };
    return lock;
  }

  async function counted(name: string, options: AcquireOptions): Promise<Lock | LockRefusal> {
    const outcome = await acquire(name, options);
    instruments.locks.count(outcome.acquired ? 'acquired' : outcome.reason);
    return outcome;
  }

  async function acquire(name: string, { leaseMs, waitMs = 0, signal }: AcquireOptions): Promise<Lock | LockRefusal> {
    if (!/^[^{}]{1,200}$/.test(name)) throw new RangeError('a lock has a name of 1 to 200 characters without braces');
    checkDuration('leaseMs', leaseMs, 1, MAX_LEASE_MS);
    checkDuration('waitMs', waitMs, 0, MAX_WAIT_MS);
    signal?.throwIfAborted();
    const holder = crypto.randomUUID();
    const untilMs = now() + waitMs;
    /** Whether some call of this holder went unanswered. */
    let doubt = true;
    try {
      for (let round = 0; ; round += 1) {
        doubt = true;
        const touched = [keys.lock(name), keys.lockFence(name), keys.lockLeft(name, holder)];
        const asked = ask(lockAcquire, touched, [holder, leaseMs, CLOCK_STEP_MS]);
        const { reply, askedAtMs, certain } = await orAborted(asked, signal);
        const { granted, value } = parseAnswer(reply);
        if (granted) {
          const lease = new LockLease(now);
          lease.grant(askedAtMs, leaseMs);
          if (lease.remainingMs > 0) {
            doubt = false;
            return lockOf(name, holder, value, lease, leaseMs);
          }
          // The reply took as long as the lease: nothing of it is left.
          lease.end('The lease of the lock ran out.');
          return lockRefusal({ reason: 'unavailable' });
        }
        doubt = !certain;
        const leftMs = untilMs - now();
        if (leftMs <= 0) return lockRefusal({ reason: 'held', remainingMs: Math.max(0, value) });
        await orAborted(sleep(Math.min(leftMs, pauseMs(round, value, random))), signal);
      }
    } catch (error) {
      if (!(error instanceof RedisUnavailable)) throw error;
      // Redis was not asked, and would not be.
      if (error.reason === 'breaker') doubt = false;
      return lockRefusal({ reason: 'unavailable' });
    } finally {
      if (doubt) leave(name, holder);
    }
  }

  return { acquire: counted };
}

/** @throws {RedisUnavailable} `garbage` */
function parseAnswer(reply: RedisValue): { granted: boolean; value: number } {
  const [granted, value] = Array.isArray(reply) && reply.length === 2 ? reply : [];
  if ((granted !== 0 && granted !== 1) || !Number.isSafeInteger(value)) throw new RedisUnavailable('garbage');
  // A fence counts from 1.
  if (granted === 1 && Number(value) < 1) throw new RedisUnavailable('garbage');
  return { granted: granted === 1, value: Number(value) };
}

function lockRefusal(why: { reason: 'held'; remainingMs: number } | { reason: 'unavailable' }): LockRefusal {
  return { acquired: false, ...why, [Symbol.asyncDispose]: () => Promise.resolve() };
}

function checkDuration(name: string, ms: number, min: number, max: number): void {
  if (!Number.isSafeInteger(ms) || ms < min || ms > max) {
    throw new RangeError(`${name} must be a whole number of milliseconds from ${min} to ${max}`);
  }
}
