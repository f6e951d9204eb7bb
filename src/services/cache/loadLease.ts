import type { LockService } from '../lock.service';
import { sleep } from '../../util/retry';
import { hashCanonical } from './canonical';
import type { Entry } from './entry';

/** `load`: this isolate loads. `found`: another isolate has loaded the entry. `held`: another isolate is still loading. */
export type LoadLease =
  | { outcome: 'load'; release: () => Promise<unknown> }
  | { outcome: 'found'; entry: Entry }
  | { outcome: 'held' };

export interface LoadLeaseOptions {
  /** The lock expires after this time if its holder dies, in milliseconds. */
  leaseMs: number;
  /** How long to wait for another isolate's result. 0: not at all. */
  waitMs: number;
  /** Reads the current entry, if it may be served. */
  reread: () => Promise<Entry | undefined>;
  now: () => number;
}

/** The pauses between polls for another isolate's result grow from the first to the last of these. */
const FIRST_PAUSE_MS = 25;
const LAST_PAUSE_MS = 250;

const NOTHING_TO_RELEASE = async () => undefined;

/**
 * Single flight across isolates, for loaders that are worth a round trip. The isolate with the lock loads; the others poll
 * for the result. The lock only saves work: if its holder dies or hangs, the others stop waiting and load themselves. Their
 * fills are guarded as usual.
 *
 * @param state the entry, and the state of the cache in which it was missed. A request that has seen a later invalidation
 *   does not wait for a load that began before it
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
    // The last or the present holder may have written the entry.
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
