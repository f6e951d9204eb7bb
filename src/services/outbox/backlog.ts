import type { RedisBatch } from '../../redis/batch';
import type { createDelivery, DeliveryDeps } from './delivery';
import type { createHistory } from './history';
import { LOT, pendingLot } from './rows';
import type { HistoryState, StateStore } from './state';

/** Later than any due time. */
export const ANY_TIME = Number.MAX_SAFE_INTEGER;
/** Lots that are delivered once more in a scheduled run. */
const REPEATED_LOTS = 50;

/** Another isolate delivers the backlog: try again soon. */
export class DeliveryUnderWay extends Error {
  override readonly name = 'DeliveryUnderWay';
}

export interface BacklogDeps extends Pick<DeliveryDeps, 'database' | 'now'> {
  /** A batch that asks Redis whatever the breakers say, with a deadline of its own. */
  directBatch: () => RedisBatch;
}

/** What scheduled runs and probes deliver: what requests could not, and all of it a second time. */
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
   * @returns how many were, how many could not be, and the `seq` of those that were tried for the first time
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
      // Rows that cannot be delivered come back at once where due times do not count.
      if (rows.length < LOT || (delivered === 0 && dueUntilMs === ANY_TIME)) return total;
      // A backlog is the work of one isolate.
      await lease();
    }
  }

  /** @throws {DeliveryUnderWay} while another isolate has it */
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
   * The second delivery, because a failover may lose a write that Redis acknowledged: each message once more, after a
   * heartbeat that promises the first one. The oldest first, as many as a run has time for.
   */
  async function repeat({ repeatedSeq, beat }: HistoryState): Promise<void> {
    const untilSeq = Math.min(beat, repeatedSeq + REPEATED_LOTS * LOT);
    if (repeatedSeq >= untilSeq) return;
    await history.replay(repeatedSeq, untilSeq, { done: lease, batchOf: directBatch });
    await store.write({ repeatedSeq: untilSeq });
  }

  /**
   * What requests delivered behind a message that was still undelivered when the run began: the heartbeat does not promise
   * it, so a Redis that went back may have lost it unseen. Once more now, and again with all others in the next run.
   *
   * @param own what this run has delivered just now
   */
  async function repeatBehind(fromSeq: number, beforeSeq: number, own: ReadonlySet<number>): Promise<void> {
    // In a mere backlog there is nothing else.
    if (own.size >= beforeSeq - fromSeq) return;
    await history.replay(fromSeq, beforeSeq, { except: own, done: lease, batchOf: directBatch });
  }

  return { drain, underLease, repeat, repeatBehind };
}
