import { setRedisAvailable } from '../config/redis';

export interface BreakerOptions {
  /** The period over which calls are counted, in milliseconds. */
  windowMs: number;
  /** With fewer calls than this in the window, it never opens. */
  minCalls: number;
  /** The share of failed calls at which it opens, 0 to 1. */
  failureRatio: number;
  /** Wait before the first probe. It doubles after each failed probe, up to `probeMaxMs`. */
  probeMs: number;
  probeMaxMs: number;
  /** A probe that has not reported after this time counts as lost. Must be longer than a probe can take. @default 30_000 */
  probeLostMs?: number;
  /** The number of successful calls after a probe that resets the wait. @default minCalls */
  provenAfter?: number;
  /** Called when it opens or closes, and at the first success. @default sets the value of `isRedisAvailable()` */
  onAvailable?: (available: boolean) => void;
  /** Called on each change of state. */
  onState?: (state: BreakerState, former: BreakerState) => void;
  now?: () => number;
  random?: () => number;
}

export type BreakerState = 'closed' | 'open' | 'half-open';
export type ProbeOutcome = 'back' | 'away' | 'unchecked';

/**
 * A circuit breaker for one isolate (Nygard, Release It!, 2nd ed., ch. 5). While it is not closed, requests skip Redis. One
 * probe at a time, outside the requests' deadlines, checks whether Redis is back.
 *
 * A successful probe closes it, but proves little: a server may answer PING and refuse all other commands. The wait before
 * the next probe is therefore reset only after a number of successful calls. Until then each opening doubles the wait, as a
 * failed probe does.
 */
export interface Breaker {
  readonly state: BreakerState;
  /** Take a ticket when a call begins, and pass it with the call's outcome. */
  ticket(): number;
  /**
   * Scores the real outcome of a call, even when its request has stopped waiting. Calls that began before the breaker last
   * closed are ignored: they say nothing about Redis now.
   */
  record(ok: boolean, ticket: number): void;
  /** When a probe is due, returns its number to exactly one caller. That caller must report the outcome with it. */
  takeProbe(): number | undefined;
  /**
   * Reports a probe's outcome. Reports of a probe that counts as lost are ignored.
   *
   * @param outcome `unchecked`: Redis has replied, but the database could not be asked which messages Redis has missed. The
   *   wait before the next probe does not grow, and is short
   */
  probed(probe: number, outcome: ProbeOutcome): void;
  /**
   * `true` for one caller, when a call succeeds after another has failed. That caller must check Redis's state: Redis may
   * have missed messages, or lost its last writes, although the breaker did not open.
   */
  takeLook(): boolean;
  /** That check has failed: another one is due some seconds later. */
  lookFailed(): void;
  /**
   * This isolate has made a change that is not yet delivered to Redis. Until a probe succeeds, the wait before the next
   * probe stays short, even after many failed ones.
   */
  owe(): void;
  /**
   * While a delivery is owed, `true` for one caller at a time. That caller waits for the next probe, for up to
   * {@link WATCH_MS}.
   */
  takeWatch(): boolean;
}

const BUCKETS = 10;
/** The least time between two checks of Redis's state, in milliseconds. */
const LOOK_MS = 2_000;
/**
 * The longest wait between probes while a delivery is owed, or after a probe with the outcome `unchecked`, in milliseconds,
 * before jitter.
 */
const SHORT_PROBE_MS = 4_000;
/** How long one request waits for the next probe. Longer than the wait between two probes. */
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
  /** A ring of counts. `stamp` is the number of the interval that a bucket counts. */
  const buckets = Array.from({ length: BUCKETS }, () => ({ stamp: -1, calls: 0, failures: 0 }));
  let state: BreakerState = 'closed';
  let closings = 0;
  let probes = 0;
  let backoffMs = probeMs;
  let probeAtMs = 0;
  /** When the current probe counts as lost: a probe never reports if its request dies. Another request may then probe. */
  let probeLostAtMs = 0;
  /** The number of successful calls still missing until the wait is reset. */
  let unproven = 0;
  let available: boolean | undefined;

  const setAvailable = (value: boolean) => {
    if (available === value) return;
    available = value;
    onAvailable(value);
  };

  /** Whether a call has failed since the last success. */
  let failedBefore = false;
  let lookDue = false;
  let lookAtMs = 0;

  let owed = false;
  let watchedUntilMs = 0;
  let replied = false;
  const waitMs = () => (owed || replied ? Math.min(backoffMs, SHORT_PROBE_MS) : backoffMs);

  const schedule = () => {
    // Jitter of a quarter either way: the isolates of a colo must not probe at the same time.
    probeAtMs = now() + waitMs() * (0.75 + random() * 0.5);
  };

  const enter = (next: BreakerState) => {
    const former = state;
    state = next;
    onState?.(next, former);
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
