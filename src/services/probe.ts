import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import type { OutboxService } from './outbox.service';

/** Always closed, scores nothing: for the one caller that finds out whether Redis is back. */
export const UNGUARDED: Breaker = {
  state: 'closed',
  ticket: () => 0,
  record: () => undefined,
  claimProbe: () => undefined,
  probed: () => undefined,
};

/** Asks Redis whether it is there, and delivers what it missed before the breaker closes. */
export async function probe(
  number: number,
  { breaker, batch, outbox }: { breaker: Breaker; batch: RedisBatch; outbox: Pick<OutboxService, 'deliverPending'> },
): Promise<void> {
  try {
    await batch.send('PING');
    await outbox.deliverPending(batch);
  } catch (error) {
    // With the database away as well, an open breaker would leave nobody to ask. What this isolate has revoked it
    // refuses by itself; the rest is delivered once the database is back.
    if (!(error instanceof DatabaseUnavailable)) {
      breaker.probed(number, false);
      log('warn', 'redis.probe_failed', describeError(error));
      return;
    }
    log('warn', 'redis.available_undelivered', describeError(error));
  }
  breaker.probed(number, true);
  log('info', 'redis.available');
}
