import { setRedisAvailable } from '../config/redis';

export interface BreakerOptions {
  /** Over which calls are counted, in milliseconds. */
  windowMs: number;
  /** Fewer calls than this in the window never open it. */
  minCalls: number;
  /** Share of failed calls at which it opens, 0 to 1. */
  failureRatio: number;
  /** Wait before the first probe; doubles after each failed one, up to `probeMaxMs`. */
  probeMs: number;
  probeMaxMs: number;
  /** After this a probe that has not reported is taken for lost; longer than one can take. @default 30_000 */
  probeLostMs?: number;
  /** Successful calls after a probe until the next wait is short again. @default minCalls */
  provenAfter?: number;
  /** Told when it opens and closes, and of the first success. @default what `isRedisAvailable()` reads */
  onAvailable?: (available: boolean) => void;
  /** Told of each change. */
  onState?: (state: BreakerState) => void;
  now?: () => number;
  random?: () => number;
}

export type BreakerState = 'closed' | 'open' | 'half-open';
export type ProbeOutcome = 'back' | 'away' | 'unchecked';

/**
 * A circuit breaker for one isolate (Nygard, Release It!, 2nd ed., ch. 5). While it is not closed no request spends
 * time on Redis; one probe at a time finds out, beside the requests, whether Redis is back.
 *
 * A probe that succeeds closes it, but proves little: a server may answer PING and refuse all else. So the wait before
 * the next probe starts over only when a number of calls have succeeded since. Until then each
 * opening doubles the wait, as a failed probe does.
 */
export interface Breaker {
  readonly state: BreakerState;
  /** Taken when a call begins, and shown with its outcome. */
  ticket(): number;
  /**
   * Scores the real outcome of a call, even when its request has stopped waiting. What began before the breaker last
   * closed says nothing about now.
   */
  record(ok: boolean, ticket: number): void;
  /** A number for exactly one caller when a probe is due: that caller reports with it. */
  takeProbe(): number | undefined;
  /**
   * A probe that was taken for lost reports in vain.
   *
   * @param outcome `unchecked`: Redis has replied, but the database could not say what it has missed. The wait before the next
   *   probe does not grow, and stays short
   */
  probed(probe: number, outcome: ProbeOutcome): void;
  /**
   * `true` for one caller, after a call has succeeded that followed a failed one: Redis may have missed messages
   * meanwhile, or have lost its last writes, although the breaker did not open.
   */
  takeLook(): boolean;
  /** The look that was claimed has failed: another one, some seconds later. */
  lookFailed(): void;
  /**
   * This isolate has made a change that Redis has not been told: until a probe succeeds, the wait before the next one stays
   * short, whatever came before.
   */
  owe(): void;
  /** `true` for one caller at a time while something is owed: that caller waits until a probe is due, for {@link WATCH_MS}. */
  takeWatch(): boolean;
}

const BUCKETS = 10;
/** Looks are at least this far apart, in milliseconds. */
const LOOK_MS = 2_000;
/**
 * The longest wait between probes while something is owed, or after one to which Redis has replied, in milliseconds, before
 * jitter.
 */
const SHORT_PROBE_MS = 4_000;
/** How long one request waits for the next probe: longer than the wait between two. */
export const WATCH_MS = 8_000;

export function createBreaker({
  windowMs,
  minCalls,
  failureRatio,
  probeMs,
  probeMaxMs,
  probeLostMs = 30_000,
  provenAfter = minCalls,
  onAvailable = setRedisAvailable,
  onState,
  now = Date.now,
  random = Math.random,
}: BreakerOptions): Breaker {
  const bucketMs = windowMs / BUCKETS;
  /** Ring of counts; `stamp` tells which interval a slot holds. */
  const buckets = Array.from({ length: BUCKETS }, () => ({ stamp: -1, calls: 0, failures: 0 }));
  let state: BreakerState = 'closed';
  let closings = 0;
  let probes = 0;
  let backoffMs = probeMs;
  let probeAtMs = 0;
  /** A probe whose request died never reports; after this another request may probe. */
  let probeLostAtMs = 0;
  /** Successful calls that are still missing until a closing is taken for a recovery. */
  let unproven = 0;
  let available: boolean | undefined;

  const setAvailable = (value: boolean) => {
    if (available === value) return;
    available = value;
    onAvailable(value);
  };

  /** Whether a call has failed, and whether another has succeeded since. */
  let failedBefore = false;
  let lookDue = false;
  let lookAtMs = 0;

  let owed = false;
  let watchedUntilMs = 0;
  let replied = false;
  const waitMs = () => (owed || replied ? Math.min(backoffMs, SHORT_PROBE_MS) : backoffMs);

  const schedule = () => {
    // Jitter of a quarter either way keeps the isolates of a colo from probing in step.
    probeAtMs = now() + waitMs() * (0.75 + random() * 0.5);
  };

  const enter = (next: BreakerState) => {
    state = next;
    onState?.(next);
  };

  const open = () => {
    enter('open');
    setAvailable(false);
    schedule();
  };

  const backOff = () => {
    backoffMs = Math.min(backoffMs * 2, probeMaxMs);
  };

  const succeeded = () => {
    setAvailable(true);
    if (unproven === 0) return;
    unproven -= 1;
    if (unproven === 0) backoffMs = probeMs;
  };

  return {
    get state() {
      return state;
    },
    ticket: () => closings,
    record(ok, ticket) {
      if (state !== 'closed' || ticket !== closings) return;
      if (!ok) failedBefore = true;
      else if (failedBefore) {
        failedBefore = false;
        lookDue = true;
      }
      const stamp = Math.floor(now() / bucketMs);
      const bucket = buckets[stamp % BUCKETS];
      if (bucket === undefined) return;
      if (bucket.stamp !== stamp) Object.assign(bucket, { stamp, calls: 0, failures: 0 });
      bucket.calls += 1;
      if (ok) {
        succeeded();
        return;
      }
      bucket.failures += 1;
      let calls = 0;
      let failures = 0;
      for (const other of buckets) {
        if (other.stamp <= stamp - BUCKETS) continue;
        calls += other.calls;
        failures += other.failures;
      }
      if (calls < minCalls || failures < calls * failureRatio) return;
      if (unproven > 0) backOff();
      open();
    },
    takeProbe() {
      const at = now();
      const due = (state === 'open' && at >= probeAtMs) || (state === 'half-open' && at >= probeLostAtMs);
      if (!due) return undefined;
      if (state !== 'half-open') enter('half-open');
      probeLostAtMs = at + probeLostMs;
      probes += 1;
      return probes;
    },
    probed(probe, outcome) {
      if (state !== 'half-open' || probe !== probes) return;
      replied = outcome === 'unchecked';
      if (outcome === 'back') {
        enter('closed');
        closings += 1;
        unproven = provenAfter;
        for (const bucket of buckets) bucket.stamp = -1;
        failedBefore = false;
        lookDue = false;
        owed = false;
        setAvailable(true);
        return;
      }
      if (outcome === 'away') backOff();
      open();
    },
    takeLook() {
      if (!lookDue || state !== 'closed' || now() < lookAtMs) return false;
      lookDue = false;
      lookAtMs = now() + LOOK_MS;
      return true;
    },
    lookFailed() {
      lookDue = true;
    },
    owe() {
      if (owed) return;
      owed = true;
      if (state === 'open' && probeAtMs > now() + waitMs()) schedule();
    },
    takeWatch() {
      if (!owed || state === 'closed' || now() < watchedUntilMs) return false;
      watchedUntilMs = now() + WATCH_MS;
      return true;
    },
  };
}
