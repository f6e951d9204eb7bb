import type { Database } from '../../db/client';
import { describeError, log } from '../../config/log';
import type { UserRow } from '../../db/schema';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import type { Breaker } from '../../redis/breaker';
import { RedisError } from '../../redis/errors';
import type { Shards } from '../../redis/shards';
import { sleep } from '../../util/retry';
import { deliverMessage } from './message';
import type { OutboxMessage, MessageDeps } from './message';
import type { Overtake, Overtaken } from './overtaking';
import { markDeliveredById } from './rows';

/** Waits between the request's own retries, in `waitUntil`. After these the cron trigger delivers the messages. */
const RETRIES_MS = [250, 1_000, 4_000];

export interface RequestDeliveryDeps extends MessageDeps {
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

/** The result of a request's own delivery. */
export interface RequestDelivery {
  /** Whether a message is still undelivered. */
  pending: boolean;
  /** By user: D1's versions, raised above larger ones that a message has met in Redis. */
  overtaken?: ReadonlyMap<string, UserRow>;
}

/** Delivers the messages of a request at once, in the request that writes their rows. */
export function createRequestDelivery(deps: RequestDeliveryDeps, overtake: Overtake) {
  const { database, batch, freshBatch, breaker, shards, probe, waitUntil } = deps;
  const { outboxDeliveries } = deps.instruments;
  const counted = (outcome: string, messages: number) =>
    outboxDeliveries.add(outboxDeliveries.series(outcome), messages);

  async function markOwn(ids: readonly string[]): Promise<void> {
    await database.run((db) => markDeliveredById(db, ids));
  }

  async function send(messages: readonly OutboxMessage[], through: RedisBatch): Promise<Overtaken | undefined> {
    const replies = await Promise.all(messages.map((message) => deliverMessage(message, through, deps)));
    const larger = replies.filter((found) => found !== undefined);
    return larger.length === 0 ? undefined : overtake(larger, () => through);
  }

  async function retry(ids: readonly string[], messages: readonly OutboxMessage[]): Promise<void> {
    for (const waitMs of RETRIES_MS) {
      await sleep(waitMs);
      // A successful probe delivers these messages as well.
      if (breaker.state !== 'closed') await probe();
      if (breaker.state !== 'closed') continue;
      const fresh = freshBatch();
      try {
        const [failure] = (await send(messages, fresh))?.failures.values() ?? [];
        if (failure !== undefined) throw failure;
        counted('delivered', messages.length);
        await markOwn(ids);
        return;
      } catch (error) {
        log('warn', 'outbox.retry_failed', describeError(error));
      }
    }
  }

  /** Delivers to Redis now, for a request that writes these rows. */
  async function deliver(
    ids: readonly string[],
    messages: readonly OutboxMessage[],
    committed?: Promise<unknown>,
  ): Promise<RequestDelivery> {
    const later = (work: () => Promise<unknown>) => {
      const run = async () => {
        await committed;
        await work();
      };
      waitUntil(run().catch((error: unknown) => log('warn', 'outbox.mark_failed', describeError(error))));
    };
    let overtaken: RequestDelivery['overtaken'];
    try {
      const outcome = await send(messages, batch);
      overtaken = outcome?.owners;
      const [failure] = outcome?.failures.values() ?? [];
      if (failure !== undefined) throw failure;
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      counted('unreachable', messages.length);
      log('warn', 'outbox.pending', { messages: messages.length, ...describeError(error) });
      breaker.owe();
      shards.owe();
      later(() => retry(ids, messages));
      return { pending: true, ...(overtaken && { overtaken }) };
    }
    counted('delivered', messages.length);
    // If this write is lost, the rows are only delivered again.
    later(() => markOwn(ids));
    return { pending: false, ...(overtaken && { overtaken }) };
  }

  return { deliver };
}
