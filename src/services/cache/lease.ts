import type { LockService } from '../lock.service';
import { sleep } from '../retry';
import { hashCanonical } from './canonical';
import type { Entry } from './entry';

/** The one who loads, an entry that somebody else has loaded in the meantime, or neither. */
export type Lease =
  | { outcome: 'load'; release: () => Promise<unknown> }
  | { outcome: 'found'; entry: Entry }
  | { outcome: 'held' };

export interface LeaseOptions {
  /** When a holder that has died loses it, in milliseconds. */
  leaseMs: number;
  /** What one that waits for another's result waits at most. 0: it does not wait. */
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
 * Single flight among isolates, for loaders that are worth a round trip: who has the lock loads, the others look for the
 * result. The lock saves work, and guards nothing: a holder that dies or hangs costs the others their wait, after which
 * they load themselves; what they write is guarded as ever.
 *
 * @param state what is loaded, and the state of the cache that it was missed in: who has seen an invalidation since does
 *   not wait for a load that began before
 */
export async function takeLease(
  state: string,
  locks: Pick<LockService, 'acquire'>,
  { leaseMs, waitMs, reread, now }: LeaseOptions,
): Promise<Lease> {
  const name = `cache:${hashCanonical(state)}`;
  const untilMs = now() + waitMs;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LAST_PAUSE_MS, pauseMs * 2)) {
    const lock = await locks.acquire(name, { leaseMs });
    // Whoever had it a moment ago, or has it now, may have done the work.
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
