import { and, eq, inArray, lt, lte, or, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { chunks } from '../db/client';
import type { Database, Drizzle, Statement } from '../db/client';
import { outbox, users } from '../db/schema';
import type { OutboxRow } from '../db/schema';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { blacklistTtlMs } from './blacklist.service';
import type { LocalDenials, Versions } from './blacklist/denials';
import { parseMessage, tell } from './outbox/message';
import type { OutboxMessage } from './outbox/message';
import { sleep } from './retry';
import { facade } from './scope';

export type { OutboxMessage } from './outbox/message';

/** What a change and its messages have in common. */
export interface OutboxEntry {
  /** To go into the D1 batch that makes the change. */
  statements(db: Drizzle): Statement[];
  /**
   * Tells Redis, in the request's next pipeline. Never rejects because of Redis: what it missed is in D1.
   *
   * @param committed when the rows are in D1, for a message that need not wait for that
   * @returns `pending: true` when Redis is still to be told
   */
  deliver(committed?: Promise<unknown>): Promise<{ pending: boolean }>;
}

/** {@link OutboxEntry} of a change to a user's versions, which only the database knows once it has counted. */
export interface VersionsEntry {
  /** To go into the batch after the statement that raises a version, and before one that deletes the user. */
  statements(db: Drizzle): Statement[];
  deliver(versions: Versions): Promise<{ pending: boolean }>;
}

/**
 * The transactional outbox (Richardson, Microservices Patterns, ch. 3): a change in D1 and what Redis must be told of it
 * are written together, so neither a dead Redis nor a dying isolate loses a revocation or an invalidation.
 */
export interface OutboxService {
  /** @param when a condition on D1, told in the same transaction: without it nothing is left to be told */
  prepare(messages: readonly OutboxMessage[], when?: SQL): OutboxEntry;
  prepareVersions(userId: string): VersionsEntry;
  /**
   * Delivers what is due, oldest first. For the scheduled handler.
   *
   * @returns how many messages were delivered
   * @throws {RedisUnavailable | DatabaseUnavailable}
   */
  deliverDue(): Promise<number>;
  /**
   * Delivers everything that Redis has not been told, due or not, through a batch of the caller's own: before a breaker
   * closes.
   *
   * @throws {RedisUnavailable | DatabaseUnavailable}
   */
  deliverPending(batch: RedisBatch): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    outbox: OutboxService;
  }
}

export const OutboxService: OutboxService = facade('outbox');

/** The cron leaves a fresh row to the request that wrote it for this long. */
const FIRST_DELIVERY_MS = 5_000;
/** After the first delivery comes a second: a failover may lose a write that Redis acknowledged. */
const SECOND_DELIVERY_MS = 60_000;
/** Whoever claimed a row and died loses it after this. */
const LEASE_MS = 30_000;
/** Redis's complaint about one message does not go away within seconds. */
const REFUSED_RETRY_MS = 10 * 60_000;
const CLAIM = 50;
/** What a request does itself, in `waitUntil`, before it leaves its messages to the cron. */
const RETRIES_MS = [250, 1_000, 4_000];
/** D1 binds at most 100 values a statement; a row has six, and a condition some. */
const ROWS_A_STATEMENT = 16;

export interface OutboxDeps {
  database: Database;
  batch: RedisBatch;
  breaker: Breaker;
  /** A batch with a deadline of its own, for work after the answer. */
  freshBatch: () => RedisBatch;
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  forgetReads: (redisKeys: readonly string[]) => void;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createOutboxService(deps: OutboxDeps): OutboxService {
  const { database, batch, breaker, freshBatch, config, waitUntil, now } = deps;
  const lifeMs = blacklistTtlMs(config);

  async function markDelivered(ids: readonly string[]): Promise<void> {
    await database.batch((db) => chunks(ids, 90).map((chunk) => delivered(db, chunk)));
  }

  const delivered = (db: Drizzle, ids: readonly string[]): Statement =>
    db
      .update(outbox)
      .set({ state: 'delivered', dueAtMs: now() + SECOND_DELIVERY_MS })
      .where(and(inArray(outbox.id, [...ids]), eq(outbox.state, 'pending')));

  async function retry(ids: readonly string[], messages: readonly OutboxMessage[]): Promise<void> {
    for (const waitMs of RETRIES_MS) {
      await sleep(waitMs);
      // Whoever closes the breaker delivers, but for what came while it was at it.
      if (breaker.state !== 'closed') continue;
      const fresh = freshBatch();
      try {
        await Promise.all(messages.map((message) => tell(message, fresh, deps)));
        await markDelivered(ids);
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
      log('warn', 'outbox.pending', { messages: messages.length, ...describeError(error) });
      later(() => retry(ids, messages));
      return { pending: true };
    }
    // When this is lost the rows are merely delivered once more.
    later(() => markDelivered(ids));
    return { pending: false };
  }

  function newRow() {
    const createdAtMs = now();
    return {
      id: crypto.randomUUID(),
      state: 'pending' as const,
      dueAtMs: createdAtMs + FIRST_DELIVERY_MS,
      createdAtMs,
      expiresAtMs: createdAtMs + lifeMs,
    };
  }

  /** Delivers claimed rows, each for itself: one that Redis refuses does not hold up the others. */
  async function deliverRows(rows: readonly OutboxRow[], through: RedisBatch): Promise<number> {
    const at = now();
    const told: OutboxRow[] = [];
    const refused: OutboxRow[] = [];
    let failure: unknown;
    await Promise.all(
      rows.map(async (row) => {
        const expired = row.expiresAtMs <= at;
        const message = expired ? undefined : parseMessage(row);
        if (message === undefined && !expired) {
          refused.push(row);
          return;
        }
        try {
          // Of an expired one nobody needs to know any more.
          if (message !== undefined) await tell(message, through, deps);
          told.push(row);
        } catch (error) {
          if (error instanceof RedisError && !(error instanceof RedisUnavailable)) {
            log('error', 'outbox.refused', { id: row.id, ...describeError(error) });
            refused.push(row);
          } else failure ??= error;
        }
      }),
    );

    const ids = (list: readonly OutboxRow[]) => list.map((row) => row.id);
    const first = ids(told.filter((row) => row.state === 'pending'));
    const second = ids(told.filter((row) => row.state === 'delivered'));
    const setDue = (db: Drizzle, list: readonly OutboxRow[], dueAtMs: number) =>
      db
        .update(outbox)
        .set({ dueAtMs })
        .where(inArray(outbox.id, ids(list)));
    await database.batch((db) => [
      delivered(db, first),
      db.delete(outbox).where(inArray(outbox.id, second)),
      setDue(db, refused, at + REFUSED_RETRY_MS),
      // What was claimed in vain goes back at once: another isolate may reach Redis.
      setDue(
        db,
        rows.filter((row) => !told.some(({ id }) => id === row.id) && !refused.includes(row)),
        at,
      ),
    ]);
    if (told.length > 0) log('info', 'outbox.delivered', { messages: told.length, first: first.length });
    if (failure !== undefined) throw failure;
    return told.length;
  }

  /** Takes up to {@link CLAIM} rows for a while, so that two isolates do not deliver the same ones side by side. */
  function claim(at: number, everythingPending: boolean): Promise<OutboxRow[]> {
    return database.run((db) => {
      const due = everythingPending
        ? or(lte(outbox.dueAtMs, at), and(eq(outbox.state, 'pending'), lt(outbox.createdAtMs, at)))
        : lte(outbox.dueAtMs, at);
      const rows = db.select({ id: outbox.id }).from(outbox).where(due).orderBy(outbox.dueAtMs).limit(CLAIM);
      return db
        .update(outbox)
        .set({ dueAtMs: at + LEASE_MS })
        .where(inArray(outbox.id, rows))
        .returning();
    });
  }

  return {
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
                  .select(sql`select * from (values ${sql.join(chunk.map(tuple), sql`, `)}) where ${when}`),
          ),
        deliver: async (committed) => (rows.length === 0 ? { pending: false } : deliver(ids, messages, committed)),
      };
    },

    prepareVersions(userId) {
      const row = newRow();
      const message = sql<string>`json_object('kind', 'epoch', 'userId', ${users.id}, 'epoch', ${users.epoch},
        'accessVersion', ${users.accessVersion})`;
      return {
        statements: (db) => [
          db.insert(outbox).select(
            db
              .select({
                id: sql<string>`${row.id}`.as('id'),
                message: message.as('message'),
                state: sql<'pending'>`${row.state}`.as('state'),
                dueAtMs: sql<number>`${row.dueAtMs}`.as('due_at_ms'),
                createdAtMs: sql<number>`${row.createdAtMs}`.as('created_at_ms'),
                expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
              })
              .from(users)
              .where(eq(users.id, userId)),
          ),
        ],
        deliver: ({ epoch, accessVersion }) => deliver([row.id], [{ kind: 'epoch', userId, epoch, accessVersion }]),
      };
    },

    async deliverDue() {
      if (breaker.state !== 'closed') return 0;
      let total = 0;
      for (let rows = await claim(now(), false); rows.length > 0; rows = await claim(now(), false)) {
        total += await deliverRows(rows, batch);
      }
      return total;
    },

    async deliverPending(through) {
      const at = now();
      for (let rows = await claim(at, true); rows.length > 0; rows = await claim(at, true)) {
        // Rows that nothing could be done about come back with every claim.
        if ((await deliverRows(rows, through)) === 0) return;
      }
    },
  };
}

/** A row's values in the order of the table's columns. */
const tuple = ({ id, message, state, dueAtMs, createdAtMs, expiresAtMs }: OutboxRow) =>
  sql`(${id}, ${message}, ${state}, ${dueAtMs}, ${createdAtMs}, ${expiresAtMs})`;
