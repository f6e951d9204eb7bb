import type { Config } from '../../config/env';
import type { RememberedRevocation } from '../blacklist/remembered';
import { EntryMemory } from '../cache/entryMemory';
import { Leases } from '../rateLimit/leases';
import { Refresher } from './refresher';
import { Remembered } from './remembered';

/** An isolate's memory of Redis's replies, for guards and reads that accept bounded staleness. Plain data only. */
export interface IsolateMemory {
  revocations: Remembered<RememberedRevocation>;
  entries: EntryMemory;
  leases: Leases;
  refresher: Refresher;
}

/** A refresh pipeline that takes this much longer than its timeout counts as lost: its request has died. */
const SLACK_MS = 1_000;

export function createIsolateMemory({ redis }: Config): IsolateMemory {
  return {
    revocations: new Remembered({ maxEntries: 10_000, maxBytes: 8 * 2 ** 20 }),
    entries: new EntryMemory(),
    leases: new Leases(),
    refresher: new Refresher(redis.callTimeoutMs + SLACK_MS),
  };
}
