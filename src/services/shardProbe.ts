import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { Keys } from '../redis/keys';
import type { ShardProbe } from '../redis/shards';
import type { OutboxService } from './outbox.service';

export interface ShardProbeDeps {
  /** A batch that also reaches shards that are out. */
  batch: RedisBatch;
  keys: Keys;
  outbox: Pick<OutboxService, 'deliverPending'>;
}

const PROBE_TTL_MS = 60_000;

/**
 * Probes a shard that is out, and delivers the messages that it missed before its users rely on it again. The probe is a
 * write, because a read-only shard may have missed revocations.
 */
export async function probeShard({ key, report }: ShardProbe, { batch, keys, outbox }: ShardProbeDeps): Promise<void> {
  try {
    await batch.send('SET', keys.probe(key), 1, 'PX', PROBE_TTL_MS);
    await outbox.deliverPending({ whileClosed: true });
  } catch (error) {
    report(error instanceof DatabaseUnavailable ? 'unchecked' : 'away');
    log('warn', 'redis.shard_probe_failed', describeError(error));
    return;
  }
  report('back');
  log('info', 'redis.shard_available');
}
