import { and, between, eq, inArray, isNull, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database, Drizzle, Statement } from '../db/client';
import { asNumber, asText, nextNumber } from '../db/portable';
import { outbox, sessions, users } from '../db/schema';
import type { OutboxRow, UserRow } from '../db/schema';
import type { Instruments } from '../metrics/instruments';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import type { Shards } from '../redis/shards';
import type { LocalDenials, UserVersions } from './blacklist/denials';
import { blacklistTtlMs } from './blacklist/ttl';
import { versionStep } from './blacklist/versionStep';
import { createDelivery } from './outbox/delivery';
import { createHistory } from './outbox/history';
import { tell } from './outbox/message';
import type { OutboxMessage } from './outbox/message';
import { LOT, markDeliveredById, oldestDelivered, pendingLot, purgeStatement, versionsMessage } from './outbox/rows';
import { createStateStore } from './outbox/state';
import type { HistoryState } from './outbox/state';
import { isVersion } from './replies';
import { chunks } from '../util/chunks';
import { sleep } from '../util/retry';
import { facade } from './scope';
import { whileOwner } from './session/statements';

export type { OutboxMessage } from './outbox/message';

/** Messages to Redis about a change in D1. */
export interface OutboxEntry {
  /** To go into the D1 batch that makes the change. */
  statements(db: Drizzle): Statement[];
  /**
   * Delivers to Redis, in the request's next pipeline. Never rejects because of Redis: undelivered messages are in D1.
   *
   * @param committed when the rows are in D1, for a message that need not wait for that
   * @returns `pending: true` when they are still undelivered
   */
  deliver(committed?: Promise<unknown>): Promise<{ pending: boolean }>;
}

/** {@link OutboxEntry} of a change to a user's versions, which only the database knows once it has counted. */
export interface VersionsEntry {
  /** To go into the batch after the statement that raises a version, and before one that deletes the user. */
  statements(db: Drizzle): Statement[];
  /** @param raised the versions that the change has raised @default ['epoch'] */
  deliver(versions: UserVersions, raised?: readonly (keyof UserVersions)[]): Promise<VersionsDelivery>;
}

export interface VersionsDelivery {
  pending: boolean;
  /**
   * The user under larger versions, where D1 was restored from a backup and Redis had larger ones. Sessions that the change left
   * alive have gone on under them; their tokens must carry them.
   */
  overtaken?: UserRow;
}

/**
 * The transactional outbox (Richardson, Microservices Patterns, ch. 3): a change in D1 and its messages to Redis are written in
 * one transaction, so neither a dead Redis nor a dying isolate loses a revocation or an invalidation.
 */
export interface OutboxService {
  /** @param when a condition on D1, told in the same transaction: without it nothing is left to be told */
  prepare(messages: readonly OutboxMessage[], when?: SQL): OutboxEntry;
  prepareVersions(userId: string): VersionsEntry;
  /**
   * For the scheduled handler: writes the heartbeat, delivers undelivered messages that are due, delivers again what Redis
   * has lost, and delivers once more what was delivered since the last run.
   *
   * @returns how many messages were delivered for the first time
   * @throws {RedisUnavailable | DatabaseUnavailable}
   */
  deliverDue(): Promise<number>;
  /**
   * For a probe, before a breaker closes: delivers undelivered messages, due or not, and again what Redis has lost,
   * whatever the breakers say.
   *
   * @throws {RedisUnavailable | DatabaseUnavailable | DeliveryUnderWay} the breaker must not close
   */
  deliverPending(): Promise<void>;
  /** Deletes delivered messages that are no longer needed. Bounded: the rest is left to the next run. */
  purge(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    outbox: OutboxService;
  }
}

export const OutboxService: OutboxService = facade('outbox');

/** Retries by the request itself, in `waitUntil`, before it leaves its messages to the cron trigger. */
const RETRIES_MS = [250, 1_000, 4_000];
/** D1 binds at most 100 values a statement; a row has six, and a condition some. */
const ROWS_A_STATEMENT = 16;
/** How long a scheduled run, and a probe, work on a backlog, in milliseconds. */
const RUN_MS = 25_000;
const PROBE_MS = 8_000;
/** Delivered rows stay for as long as this, or as an access token lives and some minutes, if that is longer. */
const LOG_SECONDS = 3_600;
/** Later than any due time. */
const ANY_TIME = Number.MAX_SAFE_INTEGER;
/** Purges of a scheduled run, and lots of sessions. */
const PURGES = 20;
const SESSION_LOTS = 10;
/** Lots that are delivered once more in a scheduled run. */
const REPEATED_LOTS = 50;

/** Another isolate delivers the backlog: try again soon. */
export class DeliveryUnderWay extends Error {
  override readonly name = 'DeliveryUnderWay';
}

export interface OutboxDeps {
  database: Database;
  batch: RedisBatch;
  breaker: Breaker;
  shards: Shards;
  /** A batch with its own deadline, for work after the response. */
  freshBatch: () => RedisBatch;
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  forgetReads: (redisKeys: readonly string[]) => void;
  /** A batch that asks Redis whatever the breakers say, with a deadline of its own. */
  directBatch: () => RedisBatch;
  /** Finds out whether Redis is back, when that is due: it delivers what is pending before the breaker closes. */
  probe: () => Promise<void>;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

export function createOutboxService(deps: OutboxDeps): OutboxService {
  const {
    database,
    batch,
    breaker,
    shards,
    freshBatch,
    directBatch,
    keys,
    config,
    probe,
    waitUntil,
    now,
    instruments,
  } = deps;
  const { outboxDeliveries } = instruments;
  const counted = (outcome: string, messages: number) =>
    outboxDeliveries.add(outboxDeliveries.series(outcome), messages);
  const lifeMs = blacklistTtlMs(config);
  const store = createStateStore(database, now);
  const delivery = createDelivery(deps);
  const history = createHistory(deps, delivery, store);

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

  function newRow() {
    const createdAtMs = now();
    return {
      id: crypto.randomUUID(),
      state: 'pending' as const,
      dueAtMs: 0,
      createdAtMs,
      expiresAtMs: createdAtMs + lifeMs,
    };
  }

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

  /** A user's versions in Redis; `undefined` when it does not tell. */
  async function knownVersions(userId: string): Promise<UserVersions | undefined> {
    try {
      const reply = await batch.send('HMGET', keys.blacklist(userId), 'ep', 'av');
      const [epoch, accessVersion] = Array.isArray(reply) && reply.length === 2 ? reply : [];
      if (!isVersion(epoch) || !isVersion(accessVersion)) return undefined;
      return { epoch: Number(epoch), accessVersion: Number(accessVersion) };
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return undefined;
    }
  }

  /**
   * Redis has larger versions of a user than those to which a change has just raised D1's: D1 was restored from a backup, and
   * tokens under Redis's versions would outlive what has just ended them. D1 goes on after those, and with it the sessions that
   * the change left alive or that have begun since, unless another change has raised the versions meanwhile.
   */
  async function overtake(
    userId: string,
    mine: UserVersions,
    known: UserVersions,
    raised: readonly (keyof UserVersions)[],
  ) {
    const needed = neededVersions(mine, known, raised);
    if (needed === undefined) return undefined;
    const next = service.prepareVersions(userId);
    // A request that found Redis's versions larger may have raised D1's to the same ones.
    const either = (field: keyof UserVersions) => inArray(users[field], [mine[field], known[field]]);
    const made = and(eq(users.epoch, needed.epoch), eq(users.accessVersion, needed.accessVersion))!;
    const goOn = (db: Drizzle) =>
      db
        .update(sessions)
        .set({ epoch: needed.epoch })
        .where(
          and(
            eq(sessions.userId, userId),
            isNull(sessions.endedAtMs),
            between(sessions.epoch, mine.epoch, known.epoch),
            whileOwner(userId, made),
          ),
        );
    const [rows] = await database.batch((db) => [
      db
        .update(users)
        .set(needed)
        .where(and(eq(users.id, userId), either('epoch'), either('accessVersion')))
        .returning(),
      // Without a new epoch the change has ended no session, and those that D1 has may be ones that the lost changes ended.
      ...(raised.includes('epoch') ? [goOn(db)] : []),
      ...next.statements(db),
    ]);
    const [overtaken] = rows;
    return overtaken && { overtaken, ...(await next.deliver(overtaken, [])) };
  }

  const service: OutboxService = {
    prepare(messages, when) {
      const rows = messages.map((message) => ({ ...newRow(), message: JSON.stringify(message) }));
      const ids = rows.map((row) => row.id);
      return {
        statements: (db) =>
          chunks(rows, ROWS_A_STATEMENT).map((chunk) =>
            when === undefined
              ? db.insert(outbox).values(chunk)
              : db
                  .insert(outbox)
                  .select(sql`select * from (values ${sql.join(chunk.map(tuple), sql`, `)}) as messages where ${when}`),
          ),
        deliver: async (committed) => (rows.length === 0 ? { pending: false } : deliver(ids, messages, committed)),
      };
    },

    prepareVersions(userId) {
      const row = newRow();
      return {
        statements: (db) => [
          db.insert(outbox).select(
            db
              .select({
                seq: nextNumber(outbox.seq).as('seq'),
                id: sql<string>`${row.id}`.as('id'),
                message: versionsMessage.as('message'),
                state: sql<'pending'>`${row.state}`.as('state'),
                dueAtMs: sql<number>`${row.dueAtMs}`.as('due_at_ms'),
                createdAtMs: sql<number>`${row.createdAtMs}`.as('created_at_ms'),
                expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
              })
              .from(users)
              .where(eq(users.id, userId)),
          ),
        ],
        async deliver({ epoch, accessVersion }, raised = ['epoch']) {
          const versions = { epoch, accessVersion };
          // What Redis had before: asked first, in the same pipeline.
          const known = knownVersions(userId);
          const outcome = await deliver([row.id], [{ kind: 'epoch', userId, ...versions }]);
          const before = await known;
          return (before && (await overtake(userId, versions, before, raised))) ?? outcome;
        },
      };
    },

    async deliverDue() {
      try {
        return await underLease(async () => {
          const state = await store.read();
          // Before anything else is written: a heartbeat promises what was delivered before.
          const beat = state.oldestPendingSeq ?? state.nextSeq;
          const { lost } = await history.examine(directBatch(), state, beat);
          // Also while a shard is away: the others have the new heartbeat, and only D1's new one shows when one of them goes
          // back. The shard comes back with an old heartbeat, so what was delivered since is delivered again.
          if (!lost && beat > state.beat) await store.write({ beat });
          const { delivered, inOrder } = await drain(now(), now() + RUN_MS, directBatch);
          if (delivered > 0) log('info', 'outbox.delivered', { messages: delivered });
          if (!lost) await repeatBehind(beat, state.nextSeq, inOrder);
          const known = await store.read();
          await history.recover(known, directBatch);
          await repeat(known);
          await history.recoverSessions(known, SESSION_LOTS);
          return delivered;
        });
      } catch (error) {
        if (error instanceof DeliveryUnderWay) return 0;
        // Known to be away: the probe that brings it back delivers.
        if (error instanceof RedisError && breaker.state !== 'closed') return 0;
        throw error;
      }
    },

    async deliverPending() {
      const state = await store.read();
      const untilMs = now() + PROBE_MS;
      const { unreachable } = await drain(ANY_TIME, untilMs, directBatch);
      const { lost, partial } = await history.examine(directBatch(), state);
      // Only a shard that is away may be behind: its users are served by the database.
      if (unreachable > 0 && !partial) throw new RedisUnavailable('state');
      if (lost || state.lostSeq !== null) await history.recover(await store.read(), directBatch);
      // Delivered once, a moment before Redis went away: it may have lost its last writes.
      await history.replay(state.repeatedSeq, state.nextSeq, { batchOf: directBatch });
    },

    async purge() {
      const { repeatedSeq, lostSeq } = await store.read();
      const keepMs = Math.max(LOG_SECONDS, config.tokens.accessTtlSeconds + 600) * 1_000;
      const beforeSeq = Math.min(repeatedSeq, lostSeq ?? repeatedSeq);
      for (let turn = 0; turn < PURGES; turn += 1) {
        const createdBeforeMs = now() - keepMs;
        const [oldest] = await database.run((db) => oldestDelivered(db, beforeSeq));
        if (oldest === undefined || oldest.createdAtMs >= createdBeforeMs) return;
        const fromSeq = oldest.seq;
        await database.batch((db) => [purgeStatement(db, { createdBeforeMs, fromSeq, beforeSeq })], {
          alongIndex: true,
        });
      }
    },
  };
  return service;
}

/**
 * The versions that D1 must have after a change; `undefined` when Redis's are not larger than those that it has. Equal ones are
 * this change's own: a probe may deliver its message before the request itself does, and {@link versionStep} makes two changes
 * differ.
 */
function neededVersions(
  mine: UserVersions,
  known: UserVersions,
  raised: readonly (keyof UserVersions)[],
): UserVersions | undefined {
  const needed = (field: keyof UserVersions) => {
    if (known[field] <= mine[field]) return mine[field];
    return raised.includes(field) ? known[field] + versionStep() : known[field];
  };
  const versions = { epoch: needed('epoch'), accessVersion: needed('accessVersion') };
  return versions.epoch > mine.epoch || versions.accessVersion > mine.accessVersion ? versions : undefined;
}

/** A row's values in the order of the table's columns. */
const tuple = ({ id, message, state, dueAtMs, createdAtMs, expiresAtMs }: Omit<OutboxRow, 'seq'>) =>
  sql`(${nextNumber(outbox.seq)}, ${asText(id)}, ${asText(message)}, ${asText(state)}, ${asNumber(dueAtMs)},
    ${asNumber(createdAtMs)}, ${asNumber(expiresAtMs)})`;
