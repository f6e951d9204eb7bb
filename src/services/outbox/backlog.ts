import type { RedisBatch } from '../../redis/batch';
import type { createDelivery, DeliveryDeps } from './delivery';
import type { createHistory } from './history';
import { LOT, pendingLot } from './rows';
import type { HistoryState, StateStore } from './state';

/** Later than any due time. */
export const ANY_TIME = Number.MAX_SAFE_INTEGER;
/** The most lots to repeat in one run of the cron trigger. */
const REPEATED_LOTS = 50;

/** Another isolate delivers the backlog, or the time is over: try again soon. */
export class DeliveryUnderWay extends Error {
  override readonly name = 'DeliveryUnderWay';
}

export interface BacklogDeps extends Pick<DeliveryDeps, 'database' | 'now'> {
  /** Makes a batch that ignores the breakers, with its own deadline. */
  directBatch: () => RedisBatch;
}

/**
 * The deliveries of the cron trigger and of probes: messages that requests could not deliver, and a repeat of all messages.
 */
export function createBacklog(
  { database, directBatch, now }: BacklogDeps,
  {
    delivery,
    history,
    store,
  }: { delivery: ReturnType<typeof createDelivery>; history: ReturnType<typeof createHistory>; store: StateStore },
) {
  /**
   * Delivers undelivered messages until none is due.
   *
   * @returns the numbers of delivered and of unreachable messages, and the `seq` of those tried for the first time
   * @throws {DeliveryUnderWay} when the time is over
   */
  async function drain(dueUntilMs: number, untilMs: number, batchOf?: () => RedisBatch) {
    const total = { delivered: 0, unreachable: 0, inOrder: new Set<number>() };
    for (;;) {
      const rows = await pendingLot(database, dueUntilMs);
      if (rows.length === 0) return total;
      if (now() >= untilMs) throw new DeliveryUnderWay('there is more to deliver than time for it');
      const { delivered, unreachable } = await delivery.deliverLot(rows, batchOf);
      total.delivered += delivered;
      total.unreachable += unreachable;
      for (const { seq, dueAtMs } of rows) if (dueAtMs === 0) total.inOrder.add(seq);
      // With ANY_TIME, undeliverable rows are due again at once: stop when a lot delivers none.
      if (rows.length < LOT || (delivered === 0 && dueUntilMs === ANY_TIME)) return total;
      // Only one isolate may deliver a backlog.
      await lease();
    }
  }

  /** @throws {DeliveryUnderWay} while another isolate has the lease */
  async function lease(): Promise<void> {
    if (!(await store.takeLease())) throw new DeliveryUnderWay('another isolate delivers');
  }

  async function underLease<T>(work: () => Promise<T>): Promise<T> {
    await lease();
    try {
      return await work();
    } finally {
      await store.releaseLease();
    }
  }

  /**
   * The second delivery of each message, because a failover may lose a write that Redis acknowledged. It follows a
   * heartbeat that covers the first delivery. The oldest messages first, as many as the run has time for.
   */
  async function repeat({ repeatedSeq, beat }: HistoryState): Promise<void> {
    const untilSeq = Math.min(beat, repeatedSeq + REPEATED_LOTS * LOT);
    if (repeatedSeq >= untilSeq) return;
    await history.replay(repeatedSeq, untilSeq, { done: lease, batchOf: directBatch });
    await store.write({ repeatedSeq: untilSeq });
  }

  /**
   * Repeats messages that requests delivered after a message which was still undelivered when the run began. The heartbeat
   * does not cover them, so a Redis that goes back in time could lose them unnoticed. They are repeated now, and again with
   * all others in the next run.
   *
   * @param own the messages that this run has just delivered
   */
  async function repeatBehind(fromSeq: number, beforeSeq: number, own: ReadonlySet<number>): Promise<void> {
    // During a pure backlog there are no such messages.
    if (own.size >= beforeSeq - fromSeq) return;
    await history.replay(fromSeq, beforeSeq, { except: own, done: lease, batchOf: directBatch });
  }

  return { drain, underLease, repeat, repeatBehind };
}
