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
import { tell } from './message';
import type { OutboxMessage } from './message';
import { deliveredLot } from './rows';
import type { HistoryState, StateStore } from './state';

/** A heartbeat that is not raised for so long tells nothing any more: longer than any token lives. */
const HEARTBEAT_TTL_MS = 370 * 86_400_000;
/** Sessions that are told of at a time. */
const SESSIONS = 500;

interface ReplayOptions {
  /** `seq` of messages that are left out. */
  except?: ReadonlySet<number>;
  /** Called after each lot. */
  done?: (seq: number) => Promise<unknown>;
  batchOf?: () => RedisBatch;
}

/** What the heartbeats say. */
export interface Examination {
  /** Redis lacks messages that were delivered. */
  lost: boolean;
  /** Whether some shards, but not all, could not be asked. */
  partial: boolean;
}

/**
 * Finds out whether Redis has gone back in time (restored from a snapshot, failed over to a lagging replica, restarted
 * without its last writes), and delivers the lost messages again.
 *
 * The heartbeat is a `seq` of the outbox, held by sixteen keys that spread over all shards: every message with a smaller
 * `seq` was delivered before it was written. A Redis whose heartbeat is smaller than the database's has lost writes, and
 * lacks at most the messages from its own heartbeat on. No clock is involved.
 */
export function createHistory(
  deps: DeliveryDeps,
  { deliverLot }: ReturnType<typeof createDelivery>,
  store: StateStore,
) {
  const { keys, database, freshBatch, now } = deps;

  /**
   * Reads the heartbeats of all shards, and raises those that are as expected. A write, so a replica cannot pass for its
   * master.
   *
   * @param beat the new heartbeat, or the expected one for a look
   * @returns those found on the shards that could be asked
   * @throws {RedisError} when none could
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

  /** Compares Redis with what the database knows, and raises the heartbeat to `beat` where nothing is lost. */
  async function examine(batch: RedisBatch, state: HistoryState, beat = state.beat): Promise<Examination> {
    // 0: there has never been one.
    const expected = state.beat === 0 ? -1 : state.beat;
    const found = await exchange(batch, expected, beat);
    const lowest = Math.min(...found);
    const highest = Math.max(...found);
    if (highest > state.nextSeq) await skipTo(highest);
    const partial = found.length < keys.heartbeats.length;
    if (lowest >= expected) return { lost: false, partial };
    const empty = highest === -1;
    log('warn', 'redis.went_back', { heartbeat: lowest, expected: state.beat, empty });
    // Older than the log: then the sessions' own rows tell. An empty Redis knows of no session anyway.
    await store.recordLoss(Math.max(0, lowest), !empty && lowest < state.oldestSeq ? now() : null);
    return { lost: true, partial };
  }

  /** The database was restored from a backup: its order goes on after everything that Redis has seen. */
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

  /** Delivers the log from `fromSeq` on once more, newest first. */
  async function replay(
    fromSeq: number,
    beforeSeq: number,
    { except = new Set(), done = async () => undefined, batchOf = freshBatch }: ReplayOptions = {},
  ): Promise<void> {
    let before = beforeSeq;
    while (before > fromSeq) {
      const rows: OutboxRow[] = await deliveredLot(database, fromSeq, before);
      const told = rows.filter(({ seq }) => !except.has(seq));
      if (told.length > 0) await deliverLot(told, batchOf);
      before = rows.at(-1)?.seq ?? fromSeq;
      await done(before);
    }
  }

  /** Makes a recorded loss good, as far as the log goes. What was done is recorded, so another isolate may go on. */
  async function recover(state: HistoryState, batchOf = freshBatch): Promise<void> {
    const { lostSeq } = state;
    if (lostSeq === null) return;
    const done = (seq: number) => store.write({ lostDoneSeq: seq });
    await replay(lostSeq, state.lostDoneSeq ?? state.nextSeq, { done, batchOf });
    // Heartbeats that were lost are written again: from now on nothing is missing.
    await exchange(batchOf(), -1, state.beat);
    await store.write({ lostSeq: null, lostDoneSeq: null });
    log('info', 'redis.recovered', { fromSeq: lostSeq });
  }

  /**
   * Ends of sessions from before the log, newest first: some lots a run.
   *
   * Their access tokens have expired, and refreshing asks the database; this is for a time when the database is away.
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
      await Promise.all(messages.map((message) => tell(message, batch, deps)));
      const last = ended.at(-1)?.endedAtMs ?? null;
      // Where a whole lot ended in one millisecond, the rest of that millisecond is left to the database.
      before = ended.length < SESSIONS || last === null ? null : Math.min(last, endedBefore - 1);
      await store.write({ lostSessionsMs: before });
    }
  }

  return { examine, replay, recover, recoverSessions };
}
