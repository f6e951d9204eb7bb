import { describeError, log } from '../../config/log';
import type { Database } from '../../db/client';
import { outbox } from '../../db/schema';
import type { OutboxRow } from '../../db/schema';
import type { Instruments } from '../../metrics/instruments';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { parseMessage, deliverMessage } from './message';
import type { LargerVersions, MessageDeps } from './message';
import type { Overtake } from './overtaking';
import { PIPELINE, RETRY_MS, markDelivered, markDeliveredLate, postpone } from './rows';

/** Redis's error about one message will not disappear within seconds: retry in the next run of the cron trigger. */
const REFUSED_RETRY_MS = 50_000;

export interface DeliveryDeps extends MessageDeps {
  database: Database;
  /** Makes a batch with its own deadline. */
  freshBatch: () => RedisBatch;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

interface Outcome {
  delivered: OutboxRow[];
  /** Redis refuses these messages, or this version cannot read them. */
  refused: OutboxRow[];
  /** Redis is away, or the shard of their keys. */
  unreachable: OutboxRow[];
  failure: unknown;
  /** First deliveries that have met larger versions of a user in Redis. */
  larger: { row: OutboxRow; found: LargerVersions }[];
}

/** Delivers rows of the outbox independently: a failing one does not delay the others. */
export function createDelivery(deps: DeliveryDeps, overtake: Overtake) {
  const { database, freshBatch, now, instruments } = deps;
  const { outboxDeliveries } = instruments;

  async function deliverRows(rows: readonly OutboxRow[], through: RedisBatch, outcome: Outcome): Promise<void> {
    const atMs = now();
    await Promise.all(
      rows.map(async (row) => {
        // The tokens that an expired message ends have all expired.
        if (row.expiresAtMs <= atMs) return void outcome.delivered.push(row);
        const message = parseMessage(row);
        if (message === undefined) return void outcome.refused.push(row);
        try {
          const found = await deliverMessage(message, through, deps);
          // At a second delivery, larger versions come from later changes.
          if (found !== undefined && row.state === 'pending') outcome.larger.push({ row, found });
          else outcome.delivered.push(row);
        } catch (error) {
          if (!(error instanceof RedisError)) throw error;
          failed(row, error, outcome);
        }
      }),
    );
  }

  function failed(row: OutboxRow, error: RedisError, outcome: Outcome): void {
    if (error instanceof RedisUnavailable) {
      outcome.failure ??= error;
      outcome.unreachable.push(row);
      return;
    }
    log('error', 'outbox.refused', { id: row.id, ...describeError(error) });
    outcome.refused.push(row);
  }

  /** D1 may have been restored from a backup: then its versions must become larger than Redis's. */
  async function overtakeLarger(outcome: Outcome, batchOf: () => RedisBatch): Promise<void> {
    const { larger } = outcome;
    if (larger.length === 0) return;
    const { failures } = await overtake(
      larger.map(({ found }) => found),
      batchOf,
    );
    for (const { row, found } of larger) {
      const failure = failures.get(found.userId);
      if (failure === undefined) outcome.delivered.push(row);
      else failed(row, failure, outcome);
    }
  }

  /**
   * Delivers a lot and records the outcome. Undelivered rows are retried later.
   *
   * @returns the number of delivered rows, and of rows that failed because Redis or their shard is away
   * @throws {RedisUnavailable} when Redis as a whole is away
   * @throws {DatabaseUnavailable}
   */
  async function deliverLot(
    rows: readonly OutboxRow[],
    batchOf: () => RedisBatch = freshBatch,
  ): Promise<{ delivered: number; unreachable: number }> {
    const outcome: Outcome = { delivered: [], refused: [], unreachable: [], failure: undefined, larger: [] };
    const pipelines: OutboxRow[][] = [];
    for (let at = 0; at < rows.length; at += PIPELINE) pipelines.push(rows.slice(at, at + PIPELINE));
    await Promise.all(pipelines.map((some) => deliverRows(some, batchOf(), outcome)));
    await overtakeLarger(outcome, batchOf);

    const { delivered, refused, unreachable, failure } = outcome;
    // Find out whether only one shard is away, or Redis as a whole.
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
