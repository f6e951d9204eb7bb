import type { Database } from '../../db/client';
import { describeError, log } from '../../config/log';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import type { Breaker } from '../../redis/breaker';
import { RedisError } from '../../redis/errors';
import type { Shards } from '../../redis/shards';
import { sleep } from '../../util/retry';
import { deliverMessage } from './message';
import type { OutboxMessage, TellOptions } from './message';
import { markDeliveredById } from './rows';

/** Waits between the request's own retries, in `waitUntil`. After these the cron trigger delivers the messages. */
const RETRIES_MS = [250, 1_000, 4_000];

export interface RequestDeliveryDeps extends TellOptions {
  database: Database;
  batch: RedisBatch;
  /** Makes a batch with its own deadline, for work after the response. */
  freshBatch: () => RedisBatch;
  breaker: Breaker;
  shards: Shards;
  /** If a probe is due, checks whether Redis is back. It delivers pending messages before the breaker closes. */
  probe: () => Promise<void>;
  waitUntil: (promise: Promise<unknown>) => void;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

/** Delivers the messages of a request at once, in the request that writes their rows. */
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
      // A successful probe delivers these messages as well.
      if (breaker.state !== 'closed') await probe();
      if (breaker.state !== 'closed') continue;
      const fresh = freshBatch();
      try {
        await Promise.all(messages.map((message) => deliverMessage(message, fresh, deps)));
        counted('delivered', messages.length);
        await markOwn(ids);
        return;
      } catch (error) {
        log('warn', 'outbox.retry_failed', describeError(error));
      }
    }
  }

  /** Delivers to Redis now, for a request that writes these rows. */
  async function deliver(ids: readonly string[], messages: readonly OutboxMessage[], committed?: Promise<unknown>) {
    const later = (work: () => Promise<unknown>) => {
      const run = async () => {
        await committed;
        await work();
      };
      waitUntil(run().catch((error: unknown) => log('warn', 'outbox.mark_failed', describeError(error))));
    };
    try {
      await Promise.all(messages.map((message) => deliverMessage(message, batch, deps)));
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
    // If this write is lost, the rows are only delivered again.
    later(() => markOwn(ids));
    return { pending: false };
  }

  return { deliver };
}
