import { and, desc, gt, inArray, isNotNull, lte } from 'drizzle-orm';

import { log } from '../../config/log';
import { anyOf } from '../../db/portable';
import { outbox, sessions, users } from '../../db/schema';
import type { OutboxRow } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { heartbeat } from '../../redis/scripts/heartbeat';
import { userOfSession } from '../../redis/keys';
import type { createDelivery, DeliveryDeps } from './delivery';
import { deliverMessage } from './message';
import type { OutboxMessage } from './message';
import { deliveredLot } from './rows';
import type { HistoryState, StateStore } from './state';

/** TTL of a heartbeat: longer than any token lives, so that an expired heartbeat no longer matters. */
const HEARTBEAT_TTL_MS = 370 * 86_400_000;
/** The most sessions to publish at a time. */
const SESSIONS = 500;

interface ReplayOptions {
  /** `seq` of messages to skip. */
  except?: ReadonlySet<number>;
  /** Called after each lot. */
  done?: (seq: number) => Promise<unknown>;
  batchOf?: () => RedisBatch;
}

/** The result of comparing the heartbeats. */
export interface Examination {
  /** Redis lacks delivered messages. */
  lost: boolean;
  /** Whether some shards, but not all, could not be asked. */
  partial: boolean;
}

/**
 * Detects that Redis has gone back in time (restored from a snapshot, failed over to a lagging replica, restarted without
 * its last writes), and delivers the lost messages again.
 *
 * The heartbeat is a `seq` of the outbox, held by sixteen keys that spread over all shards. Every message with a smaller
 * `seq` was delivered before the heartbeat was written. A Redis with a smaller heartbeat than the database's has lost
 * writes; it lacks at most the messages from its own heartbeat on. No clock is involved.
 */
export function createHistory(
  deps: DeliveryDeps,
  { deliverLot }: ReturnType<typeof createDelivery>,
  store: StateStore,
) {
  const { keys, database, freshBatch, now } = deps;

  /**
   * Reads the heartbeats of all shards, and raises those that are as expected. It is a write, so a replica cannot pass for
   * its master.
   *
   * @param beat the new heartbeat, or the expected one to only read
   * @returns the heartbeats of the shards that could be asked
   * @throws {RedisError} if none could
   */
  async function exchange(batch: RedisBatch, expected: number, beat: number): Promise<number[]> {
    const replies = await Promise.allSettled(
      keys.heartbeats.map(async (key) => {
        const reply = await batch.run(heartbeat, [key], [expected, beat, HEARTBEAT_TTL_MS]);
        if (!Number.isSafeInteger(reply)) throw new RedisUnavailable('garbage');
        return Number(reply);
      }),
    );
    const found: number[] = [];
    let failure: unknown;
    for (const reply of replies) {
      if (reply.status === 'fulfilled') found.push(reply.value);
      else if (reply.reason instanceof RedisError) failure ??= reply.reason;
      else throw reply.reason;
    }
    if (found.length === 0) throw failure;
    return found;
  }

  /** Compares Redis's heartbeats with the database's, and raises them to `beat` if no write is lost. */
  async function examine(batch: RedisBatch, state: HistoryState, beat = state.beat): Promise<Examination> {
    // 0: no heartbeat was ever written.
    const expected = state.beat === 0 ? -1 : state.beat;
    const found = await exchange(batch, expected, beat);
    const lowest = Math.min(...found);
    const highest = Math.max(...found);
    if (highest > state.nextSeq) await skipTo(highest);
    const partial = found.length < keys.heartbeats.length;
    if (lowest >= expected) return { lost: false, partial };
    const empty = highest === -1;
    log('warn', 'redis.went_back', { heartbeat: lowest, expected: state.beat, empty });
    // Redis is older than the log: then sessions are recovered from their own rows. An empty Redis knows of no session
    // anyway.
    await store.recordLoss(Math.max(0, lowest), !empty && lowest < state.oldestSeq ? now() : null);
    return { lost: true, partial };
  }

  /** The database was restored from a backup: continue its numbering after every number that Redis has seen. */
  async function skipTo(seq: number): Promise<void> {
    const atMs = now();
    log('warn', 'database.went_back', { seq });
    await database.batch(
      (db) => [
        db
          .insert(outbox)
          .values({
            seq,
            id: crypto.randomUUID(),
            message: '{"kind":"none"}',
            state: 'delivered',
            dueAtMs: 0,
            createdAtMs: atMs,
            expiresAtMs: atMs,
          })
          .onConflictDoNothing(),
      ],
      { renumbered: outbox },
    );
  }

  /** Delivers the log again from `fromSeq` on, newest first. */
  async function replay(
    fromSeq: number,
    beforeSeq: number,
    { except = new Set(), done = async () => undefined, batchOf = freshBatch }: ReplayOptions = {},
  ): Promise<void> {
    let before = beforeSeq;
    while (before > fromSeq) {
      const rows: OutboxRow[] = await deliveredLot(database, fromSeq, before);
      const lot = rows.filter(({ seq }) => !except.has(seq));
      if (lot.length > 0) await deliverLot(lot, batchOf);
      before = rows.at(-1)?.seq ?? fromSeq;
      await done(before);
    }
  }

  /** Repairs a recorded loss from the log. The progress is recorded, so another isolate may continue. */
  async function recover(state: HistoryState, batchOf = freshBatch): Promise<void> {
    const { lostSeq } = state;
    if (lostSeq === null) return;
    const done = (seq: number) => store.write({ lostDoneSeq: seq });
    await replay(lostSeq, state.lostDoneSeq ?? state.nextSeq, { done, batchOf });
    // Write lost heartbeats again: from now on no message is missing.
    await exchange(batchOf(), -1, state.beat);
    await store.write({ lostSeq: null, lostDoneSeq: null });
    log('info', 'redis.recovered', { fromSeq: lostSeq });
  }

  /**
   * Publishes the ends of sessions from before the log, newest first: some lots per run.
   *
   * Their access tokens have expired, and a refresh asks the database. This serves for times when the database is away.
   */
  async function recoverSessions(state: HistoryState, lots: number): Promise<void> {
    let before = state.lostSessionsMs;
    for (let lot = 0; before !== null && lot < lots; lot += 1) {
      const endedBefore: number = before;
      const ended = await database.run((db) =>
        db
          .select({
            sessionId: sessions.id,
            reason: sessions.endedReason,
            expiresAtMs: sessions.expiresAtMs,
            endedAtMs: sessions.endedAtMs,
          })
          .from(sessions)
          .where(
            and(isNotNull(sessions.endedAtMs), lte(sessions.endedAtMs, endedBefore), gt(sessions.expiresAtMs, now())),
          )
          .orderBy(desc(sessions.endedAtMs))
          .limit(SESSIONS),
      );
      const owners = await database.run((db) =>
        db
          .select({ userId: users.id, epoch: users.epoch, accessVersion: users.accessVersion })
          .from(users)
          .where(inArray(users.id, anyOf([...new Set(ended.map(({ sessionId }) => userOfSession(sessionId)))]))),
      );
      const messages: OutboxMessage[] = [
        ...owners.map(({ userId, epoch, accessVersion }) => ({ kind: 'epoch' as const, userId, epoch, accessVersion })),
        ...ended.map(({ sessionId, reason, expiresAtMs }) => ({
          kind: 'session-end' as const,
          sessionId,
          reason: reason ?? 'revoked',
          expiresAtMs,
        })),
      ];
      const batch = freshBatch();
      await Promise.all(messages.map((message) => deliverMessage(message, batch, deps)));
      const last = ended.at(-1)?.endedAtMs ?? null;
      // If a whole lot ended in the same millisecond, the database decides about the rest of that millisecond.
      before = ended.length < SESSIONS || last === null ? null : Math.min(last, endedBefore - 1);
      await store.write({ lostSessionsMs: before });
    }
  }

  return { examine, replay, recover, recoverSessions };
}
