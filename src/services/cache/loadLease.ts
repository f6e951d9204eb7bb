import type { LockService } from '../lock.service';
import { sleep } from '../../util/retry';
import { hashCanonical } from './canonical';
import type { Entry } from './entry';

/** `load`: this isolate loads. `found`: another isolate has loaded the entry meanwhile. `held`: another one is still loading. */
export type LoadLease =
  | { outcome: 'load'; release: () => Promise<unknown> }
  | { outcome: 'found'; entry: Entry }
  | { outcome: 'held' };

export interface LoadLeaseOptions {
  /** When a holder that has died loses the lock, in milliseconds. */
  leaseMs: number;
  /** How long to wait for another isolate's result. 0: not at all. */
  waitMs: number;
  /** The entry as it is now, when it may be served. */
  reread: () => Promise<Entry | undefined>;
  now: () => number;
}

/** Between two looks at the lock and the entry that another isolate loads: from the first to the last of these. */
const FIRST_PAUSE_MS = 25;
const LAST_PAUSE_MS = 250;

const NOTHING_TO_RELEASE = async () => undefined;

/**
 * Single flight among isolates, for loaders that are worth a round trip: the isolate with the lock loads, the others poll for
 * the result. The lock only saves work. If its holder dies or hangs, the others wait in vain and then load themselves; their
 * fills are guarded as usual.
 *
 * @param state the entry, and the state of the cache in which it was missed: a request that has seen a later invalidation does
 *   not wait for a load that began before it
 */
export async function takeLoadLease(
  state: string,
  locks: Pick<LockService, 'acquire'>,
  { leaseMs, waitMs, reread, now }: LoadLeaseOptions,
): Promise<LoadLease> {
  const name = `cache:${hashCanonical(state)}`;
  const untilMs = now() + waitMs;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LAST_PAUSE_MS, pauseMs * 2)) {
    const lock = await locks.acquire(name, { leaseMs });
    // The last holder, or the present one, may have written the entry.
    const entry = await reread();
    if (entry !== undefined) {
      if (lock.acquired) await lock.release();
      return { outcome: 'found', entry };
    }
    if (lock.acquired) return { outcome: 'load', release: () => lock.release() };
    if (lock.reason === 'unavailable') return { outcome: 'load', release: NOTHING_TO_RELEASE };
    if (now() >= untilMs) return waitMs > 0 ? { outcome: 'load', release: NOTHING_TO_RELEASE } : { outcome: 'held' };
    await sleep(pauseMs);
  }
}
