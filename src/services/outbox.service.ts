import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../config/env';
import { log } from '../config/log';
import type { Database, Drizzle, Statement } from '../db/client';
import { asNumber, asText, nextNumber } from '../db/portable';
import { outbox } from '../db/schema';
import type { OutboxRow } from '../db/schema';
import type { Instruments } from '../metrics/instruments';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import type { Shards } from '../redis/shards';
import type { LocalDenials, UserVersions } from './blacklist/denials';
import { ANY_TIME, DeliveryUnderWay, createBacklog } from './outbox/backlog';
import { createDelivery } from './outbox/delivery';
import { createHistory } from './outbox/history';
import type { OutboxMessage } from './outbox/message';
import { createOvertaking } from './outbox/overtaking';
import { createRequestDelivery } from './outbox/requestDelivery';
import { ROWS_A_STATEMENT, newRow, oldestDelivered, purgeStatement } from './outbox/rows';
import { createStateStore } from './outbox/state';
import { createVersions } from './outbox/versions';
import type { VersionsEntry } from './outbox/versions';
import { chunks } from '../util/chunks';
import { facade } from './scope';

export { DeliveryUnderWay } from './outbox/backlog';
export type { OutboxMessage } from './outbox/message';
export type { VersionsDelivery, VersionsEntry } from './outbox/versions';

/** A change's messages to Redis. */
export interface OutboxEntry {
  /** Statements for the D1 batch of the change. */
  statements(db: Drizzle): Statement[];
  /**
   * Delivers the messages to Redis, in the request's next pipeline. Never rejects because of Redis: undelivered messages
   * are in D1.
   *
   * @param committed resolves when the rows are in D1, for messages that may be sent before that
   * @returns `pending: true` if they are still undelivered
   */
  deliver(committed?: Promise<unknown>): Promise<{ pending: boolean }>;
}

/**
 * The transactional outbox (Richardson, Microservices Patterns, ch. 3): a change in D1 and its messages to Redis are
 * written in one transaction. So neither an outage of Redis nor the death of an isolate loses a revocation or an
 * invalidation.
 */
export interface OutboxService {
  /** @param when a condition, evaluated in the same transaction: if it is false, no message is stored */
  prepare(messages: readonly OutboxMessage[], when?: SQL): OutboxEntry;
  /** @param raised the versions that the change raises @default ['epoch'] */
  prepareVersions(userId: string, raised?: readonly (keyof UserVersions)[]): VersionsEntry;
  /**
   * For the cron trigger: writes the heartbeat, delivers undelivered messages that are due, delivers messages again that
   * Redis has lost, and repeats those delivered since the last run.
   *
   * @returns the number of messages delivered for the first time
   * @throws {RedisUnavailable | DatabaseUnavailable}
   */
  deliverDue(): Promise<number>;
  /**
   * For a probe, before a breaker closes: delivers all undelivered messages, due or not, and those again that Redis has
   * lost. Ignores the breakers.
   *
   * @param whileClosed stops calling Redis when the isolate's breaker opens: the breaker's next probe delivers the rest
   * @throws {RedisUnavailable | DatabaseUnavailable | DeliveryUnderWay} the breaker must not close
   */
  deliverPending(options?: { whileClosed?: boolean }): Promise<void>;
  /** Deletes delivered messages that are no longer needed. Bounded: the next run continues. */
  purge(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    outbox: OutboxService;
  }
}

export const OutboxService: OutboxService = facade('outbox');

/** How long a run of the cron trigger works on the backlog, in milliseconds; below, how long a probe does. */
const RUN_MS = 25_000;
const PROBE_MS = 8_000;
/** Delivered rows stay for this long, or for some minutes more than the life of an access token, if that is longer. */
const LOG_SECONDS = 3_600;
/** The most purges in a run of the cron trigger, and the most lots of sessions. */
const PURGES = 20;
const SESSION_LOTS = 10;

export interface OutboxDeps {
  database: Database;
  batch: RedisBatch;
  breaker: Breaker;
  shards: Shards;
  /** Makes a batch with its own deadline, for work after the response. */
  freshBatch: () => RedisBatch;
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  forgetReads: (redisKeys: readonly string[]) => void;
  /** Makes a batch that ignores the breakers, with its own deadline. */
  directBatch: () => RedisBatch;
  /** If a probe is due, checks whether Redis is back. It delivers pending messages before the breaker closes. */
  probe: () => Promise<void>;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  instruments: Pick<Instruments, 'outboxDeliveries'>;
}

export function createOutboxService(deps: OutboxDeps): OutboxService {
  const { database, breaker, directBatch, config, now } = deps;
  const store = createStateStore(database, now);
  const overtake = createOvertaking(deps);
  const delivery = createDelivery(deps, overtake);
  const history = createHistory(deps, delivery, store);
  const { deliver } = createRequestDelivery(deps, overtake);
  const versions = createVersions(deps, { deliver });
  const { drain, underLease, repeat, repeatBehind } = createBacklog(deps, { delivery, history, store });

  return {
    prepare(messages, when) {
      const rows = messages.map((message) => ({ ...newRow(deps), message: JSON.stringify(message) }));
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

    prepareVersions: versions.prepare,

    async deliverDue() {
      try {
        return await underLease(async () => {
          const state = await store.read();
          // Read this first: a heartbeat states that every message with a smaller number was delivered before.
          const beat = state.oldestPendingSeq ?? state.nextSeq;
          const { lost } = await history.examine(directBatch(), state, beat);
          // Write it even if a shard is away. The other shards have the new heartbeat, and only with the new one in D1 is
          // it noticed when one of them goes back in time. The shard that is away returns with an old heartbeat, so
          // messages since then are delivered again.
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
        // Redis is known to be away: the probe that finds it back delivers the messages.
        if (error instanceof RedisError && breaker.state !== 'closed') return 0;
        throw error;
      }
    },

    async deliverPending({ whileClosed = false } = {}) {
      const batchOf = () => {
        if (whileClosed && breaker.state !== 'closed') throw new RedisUnavailable('breaker');
        return directBatch();
      };
      const state = await store.read();
      const untilMs = now() + PROBE_MS;
      const { unreachable } = await drain(ANY_TIME, untilMs, batchOf);
      const { lost, partial } = await history.examine(batchOf(), state);
      // Only a shard that is away may miss messages: its users are served by the database.
      if (unreachable > 0 && !partial) throw new RedisUnavailable('state');
      if (lost || state.lostSeq !== null) await history.recover(await store.read(), batchOf);
      // Messages delivered once, just before Redis went away, may be among its lost last writes.
      await history.replay(state.repeatedSeq, state.nextSeq, { batchOf });
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
}

/** A row's values in the order of the table's columns. */
const tuple = ({ id, message, state, dueAtMs, createdAtMs, expiresAtMs }: Omit<OutboxRow, 'seq'>) =>
  sql`(${nextNumber(outbox.seq)}, ${asText(id)}, ${asText(message)}, ${asText(state)}, ${asNumber(dueAtMs)},
    ${asNumber(createdAtMs)}, ${asNumber(expiresAtMs)})`;
