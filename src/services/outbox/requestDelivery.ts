import type { Database } from '../../db/client';
import { describeError, log } from '../../config/log';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import type { Breaker } from '../../redis/breaker';
import { RedisError } from '../../redis/errors';
import type { Shards } from '../../redis/shards';
import { sleep } from '../../util/retry';
import { tell } from './message';
import type { OutboxMessage, TellOptions } from './message';
import { markDeliveredById } from './rows';

/** Retries by the request itself, in `waitUntil`, before it leaves its messages to the cron trigger. */
const RETRIES_MS = [250, 1_000, 4_000];

export interface RequestDeliveryDeps extends TellOptions {
  database: Database;
  batch: RedisBatch;
  /** A batch with its own deadline, for work after the response. */
  freshBatch: () => RedisBatch;
  breaker: Breaker;
  shards: Shards;
  /** Finds out whether Redis is back, when that is due: it delivers what is pending before the breaker closes. */
  probe: () => Promise<void>;
  waitUntil: (promise: Promise<unknown>) => void;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

/** Messages of one request: told to Redis at once, by the request that writes their rows. */
export function createRequestDelivery(deps: RequestDeliveryDeps) {
  const { database, batch, freshBatch, breaker, shards, probe, waitUntil } = deps;
  const { outboxDeliveries } = deps.instruments;
  const counted = (outcome: string, messages: number) =>
    outboxDeliveries.add(outboxDeliveries.series(outcome), messages);

  async function markOwn(ids: readonly string[]): Promise<void> {
    await database.run((db) => markDeliveredById(db, ids));
  }

  async function retry(ids: readonly string[], messages: readonly OutboxMessage[]): Promise<void> {
    for (const waitMs of RETRIES_MS) {
      await sleep(waitMs);
      // A probe that succeeds delivers these as well.
      if (breaker.state !== 'closed') await probe();
      if (breaker.state !== 'closed') continue;
      const fresh = freshBatch();
      try {
        await Promise.all(messages.map((message) => tell(message, fresh, deps)));
        counted('delivered', messages.length);
        await markOwn(ids);
        return;
      } catch (error) {
        log('warn', 'outbox.retry_failed', describeError(error));
      }
    }
  }

  /** Tells Redis now, for a request that writes these rows. */
  async function deliver(ids: readonly string[], messages: readonly OutboxMessage[], committed?: Promise<unknown>) {
    const later = (work: () => Promise<unknown>) => {
      const run = async () => {
        await committed;
        await work();
      };
      waitUntil(run().catch((error: unknown) => log('warn', 'outbox.mark_failed', describeError(error))));
    };
    try {
      await Promise.all(messages.map((message) => tell(message, batch, deps)));
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      counted('unreachable', messages.length);
      log('warn', 'outbox.pending', { messages: messages.length, ...describeError(error) });
      breaker.owe();
      shards.owe();
      later(() => retry(ids, messages));
      return { pending: true };
    }
    counted('delivered', messages.length);
    // When this is lost the rows are merely delivered once more.
    later(() => markOwn(ids));
    return { pending: false };
  }

  return { deliver };
}
