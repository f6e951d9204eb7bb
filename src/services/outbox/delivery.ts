import { describeError, log } from '../../config/log';
import type { Database } from '../../db/client';
import { outbox } from '../../db/schema';
import type { OutboxRow } from '../../db/schema';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { parseMessage, tell } from './message';
import type { TellOptions } from './message';
import { RETRY_MS, markDelivered, markDeliveredLate, postpone } from './rows';

/** Redis's complaint about one message does not go away within seconds: a run of the cron later. */
const REFUSED_RETRY_MS = 50_000;
/** Messages of one pipeline. */
const PIPELINE = 250;

export interface DeliveryDeps extends TellOptions {
  database: Database;
  /** A batch with a deadline of its own. */
  freshBatch: () => RedisBatch;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

interface Outcome {
  delivered: OutboxRow[];
  /** Redis refuses these themselves, or this version cannot read them. */
  refused: OutboxRow[];
  /** Redis, or the shard that holds their keys, is away. */
  unreachable: OutboxRow[];
  failure: unknown;
}

/** Delivers rows of the outbox, each for itself: one that fails does not hold up the others. */
export function createDelivery(deps: DeliveryDeps) {
  const { database, freshBatch, now, instruments } = deps;
  const { outboxDeliveries } = instruments;

  async function tellRows(rows: readonly OutboxRow[], through: RedisBatch, outcome: Outcome): Promise<void> {
    const atMs = now();
    await Promise.all(
      rows.map(async (row) => {
        // Every token that an expired message ends has expired as well.
        if (row.expiresAtMs <= atMs) return void outcome.delivered.push(row);
        const message = parseMessage(row);
        if (message === undefined) return void outcome.refused.push(row);
        try {
          await tell(message, through, deps);
          outcome.delivered.push(row);
        } catch (error) {
          if (!(error instanceof RedisError)) throw error;
          if (error instanceof RedisUnavailable) {
            outcome.failure ??= error;
            outcome.unreachable.push(row);
            return;
          }
          log('error', 'outbox.refused', { id: row.id, ...describeError(error) });
          outcome.refused.push(row);
        }
      }),
    );
  }

  /**
   * Delivers a lot and records the outcome; rows that could not be delivered are tried again later.
   *
   * @returns how many were delivered, and how many were not because Redis or their shard is away
   * @throws {RedisUnavailable} when Redis as a whole is away
   * @throws {DatabaseUnavailable}
   */
  async function deliverLot(
    rows: readonly OutboxRow[],
    batchOf: () => RedisBatch = freshBatch,
  ): Promise<{ delivered: number; unreachable: number }> {
    const outcome: Outcome = { delivered: [], refused: [], unreachable: [], failure: undefined };
    const pipelines: OutboxRow[][] = [];
    for (let at = 0; at < rows.length; at += PIPELINE) pipelines.push(rows.slice(at, at + PIPELINE));
    await Promise.all(pipelines.map((some) => tellRows(some, batchOf(), outcome)));

    const { delivered, refused, unreachable, failure } = outcome;
    // One dead shard of several, or all of Redis?
    if (unreachable.length === rows.length) await batchOf().send('PING');
    const pending = delivered.filter(({ state }) => state === 'pending');
    for (const [kind, rows] of Object.entries({ delivered: pending, refused, unreachable })) {
      outboxDeliveries.add(outboxDeliveries.series(kind), rows.length);
    }
    const inOrder = seqsOf(pending.filter(({ dueAtMs }) => dueAtMs === 0));
    const late = seqsOf(pending.filter(({ dueAtMs }) => dueAtMs > 0));
    const atMs = now();
    await database.batch(
      (db) => [
        ...(inOrder.length > 0 ? [markDelivered(db, inOrder)] : []),
        ...(unreachable.length > 0 ? [postpone(db, seqsOf(unreachable), atMs + RETRY_MS)] : []),
        ...(refused.length > 0 ? [postpone(db, seqsOf(refused), atMs + REFUSED_RETRY_MS)] : []),
        ...(late.length > 0 ? [markDeliveredLate(db, late)] : []),
      ],
      late.length > 0 ? { renumbered: outbox } : {},
    );
    if (unreachable.length > 0) {
      log('warn', 'outbox.unreachable', { messages: unreachable.length, ...describeError(failure) });
    }
    return { delivered: delivered.length, unreachable: unreachable.length };
  }

  return { deliverLot };
}

const seqsOf = (rows: readonly OutboxRow[]) => rows.map(({ seq }) => seq);
