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
  /** The lock expires after this time unless its holder extends it, in milliseconds; at most a day. */
  leaseMs: number;
  /**
   * How long to wait while another holder has the lock, at most a minute. Each attempt is a subrequest. @default 0: one
   * attempt
   */
  waitMs?: number;
  /** Ends the wait. A lock that is acquired nevertheless is released. */
  signal?: AbortSignal;
}

/** An acquired lock, until it is disposed of or its signal fires. */
export interface Lock extends AsyncDisposable {
  readonly acquired: true;
  readonly name: string;
  /** Larger than the fence of every earlier holder: see {@link LockService} for its use. */
  readonly fence: number;
  /**
   * Fires before the lock expires in Redis, by a twentieth of the lease (at least 20 ms); and at once when the lock turns
   * out to be lost, or is released. A timer fires only while the isolate is not computing: between long computations await
   * something, such as a timer, and check `remainingMs` (on Cloudflare the clock stands still while an isolate computes).
   */
  readonly signal: AbortSignal;
  /** Time until the signal fires, in milliseconds. */
  readonly remainingMs: number;
  /**
   * Starts a new lease of this length now, unless the present one lasts longer. `lost`: another holder may have the lock,
   * and the signal has fired. `unavailable`: Redis did not reply, and the signal fires when the former lease ends.
   *
   * @param leaseMs @default that of the acquisition
   */
  extend(leaseMs?: number): Promise<'extended' | 'lost' | 'unavailable'>;
  /**
   * Safe to call late or repeatedly: it never releases another holder's lock. `unavailable`: the lock becomes free when its
   * lease ends.
   */
  release(): Promise<'released' | 'lost' | 'unavailable'>;
}

/** Disposable too, so that `await using` accepts both results. */
export type LockRefusal = AsyncDisposable & { readonly acquired: false } & (
    | {
        readonly reason: 'held';
        /** The remaining lease of the other holder, which may extend or release it, in milliseconds. */
        readonly remainingMs: number;
      }
    /** Redis did not reply within one deadline. */
    | { readonly reason: 'unavailable' }
  );

/**
 * Locks with a lease, across all isolates: one holder per name.
 *
 * Guarantee: while one Redis keeps its data, no two holders exist whose signals have not fired. Not more: a failover may
 * lose the last acquisition, a flush loses all, and a holder may be suspended past its lease. So use a lock to avoid
 * duplicate work. Where a duplicate would be WRONG, also check the fence in the data. The fence grows with every holder,
 * even after a loss of Redis's data, if the clocks of its servers agree to within the duration of a failover (otherwise the
 * newer holder's writes are refused: no data are corrupted). Waiters are not served in any order.
 *
 * A request that is cancelled because its client has gone keeps its lock until the lease ends: give long work to
 * `waitUntil`.
 *
 * @example
 * await using lock = await LockService.acquire('report:daily', { leaseMs: 30_000, waitMs: 2_000 });
 * if (!lock.acquired) throw lockRefused(lock); // 409 or 503
 * const report = await build({ signal: lock.signal });
 * // `<=`: this holder may write again. No row changed: another holder took over, and this result is obsolete.
 * await db.update(reports).set({ report, fence: lock.fence })
 *   .where(and(eq(reports.id, id), lte(reports.fence, lock.fence)));
 */
export interface LockService {
  /**
   * Takes the lock, or returns the reason of the refusal.
   *
   * @param name 1 to 200 characters without braces; must not contain a person's address
   * @throws the abort reason of `signal`
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
 * The error for a client whose request needs a lock that is held or unavailable.
 *
 * @param mostMs the longest that the holder can keep it, if known to be less than its lease
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
/** The fence's key stays until the clock has passed the fence by this much: a clock is not set back by more in one step. */
const CLOCK_STEP_MS = 3_600_000;
/** A call that was abandoned arrives within this time, or never. */
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

  /** For a holder that gives up without knowing whether one of its calls has acquired, or will acquire, the lock. */
  function leave(name: string, holder: string): void {
    waitUntil(release(name, holder).catch((error: unknown) => log('warn', 'lock.leave_failed', describeError(error))));
  }

  function lockOf(name: string, holder: string, fence: number, lease: LockLease, ownLeaseMs: number): Lock {
    let released: Promise<'released' | 'lost' | 'unavailable'> | undefined;
    const releaseNow = async () => {
      lease.end('The lock was released.');
      try {
        const { reply, certain } = await release(name, holder);
        // After a lost reply, the lock may be free because the first attempt released it.
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
    if (!/^[^{}]{1,200}$/.test(name))
      throw new RangeError('the name of a lock must have 1 to 200 characters and no braces');
    checkDuration('leaseMs', leaseMs, 1, MAX_LEASE_MS);
    checkDuration('waitMs', waitMs, 0, MAX_WAIT_MS);
    signal?.throwIfAborted();
    const holder = crypto.randomUUID();
    const untilMs = now() + waitMs;
    /** Whether any call of this holder got no reply. */
    let doubt = true;
    try {
      for (let round = 0; ; round += 1) {
        doubt = true;
        const touched = [keys.lock(name), keys.lockFence(name), keys.lockLeft(name, holder)];
        const asked = ask(lockAcquire, touched, [holder, leaseMs, CLOCK_STEP_MS]);
        const { reply, askedAtMs, certain } = await orAborted(asked, signal);
        const { granted, value } = parseReply(reply);
        if (granted) {
          const lease = new LockLease(now);
          lease.grant(askedAtMs, leaseMs);
          if (lease.remainingMs > 0) {
            doubt = false;
            return lockOf(name, holder, value, lease, leaseMs);
          }
          // The reply took longer than the lease, so the lease is already over.
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
      // Redis was not called, and would not be.
      if (error.reason === 'breaker') doubt = false;
      return lockRefusal({ reason: 'unavailable' });
    } finally {
      if (doubt) leave(name, holder);
    }
  }

  return { acquire: counted };
}

/** @throws {RedisUnavailable} `garbage` */
function parseReply(reply: RedisValue): { granted: boolean; value: number } {
  const [granted, value] = Array.isArray(reply) && reply.length === 2 ? reply : [];
  if ((granted !== 0 && granted !== 1) || !Number.isSafeInteger(value)) throw new RedisUnavailable('garbage');
  // Fences start from 1.
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
