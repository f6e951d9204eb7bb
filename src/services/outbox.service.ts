import { and, eq, inArray, lte, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database, Drizzle, Statement } from '../db/client';
import { outbox, users } from '../db/schema';
import type { OutboxRow, SessionEndReason } from '../db/schema';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { userOfSession } from '../redis/keys';
import type { Keys } from '../redis/keys';
import { blacklistMerge } from '../redis/scripts/blacklistMerge';
import { sessionEnd } from '../redis/scripts/sessionEnd';
import { blacklistTtlMs } from './blacklist.service';
import { invalidationCommands } from './cache.service';
import { facade } from './scope';

/** Something that Redis must learn. Telling it twice, late or out of order does no harm. */
export type OutboxMessage =
  | { kind: 'session-end'; sessionId: string; reason: SessionEndReason; expiresAtMs: number }
  | { kind: 'epoch'; userId: string; epoch: number; accessVersion: number }
  | { kind: 'invalidate'; users?: readonly string[]; namespaces?: readonly string[]; tags?: readonly string[] };

/** What a change and its messages have in common. */
export interface OutboxEntry {
  /** To go into the D1 batch that makes the change. */
  statements(db: Drizzle): Statement[];
  /**
   * Tells Redis, in the request's next pipeline. Never rejects because of Redis: what it missed is in D1.
   *
   * @returns `pending: true` when Redis is still to be told
   */
  deliver(): Promise<{ pending: boolean }>;
}

/** A user's versions, as the change left them. */
export interface Versions {
  epoch: number;
  accessVersion: number;
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
  prepare(messages: readonly OutboxMessage[]): OutboxEntry;
  prepareVersions(userId: string): VersionsEntry;
  /**
   * Delivers what is due, oldest first. Called by the scheduled handler each minute and by an isolate before it closes
   * its breaker.
   *
   * @param batch how to reach Redis, when not by the request's own batch
   * @returns how many messages were delivered
   * @throws {RedisError | DatabaseUnavailable}
   */
  deliverDue(batch?: RedisBatch): Promise<number>;
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
const CLAIM = 50;

export interface OutboxDeps {
  database: Database;
  batch: RedisBatch;
  keys: Keys;
  config: Config;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  /** Drops what this isolate remembers of sessions that are alive. */
  forgetVerdicts: () => void;
}

export function createOutboxService({
  database,
  batch,
  keys,
  config,
  waitUntil,
  now,
  forgetVerdicts,
}: OutboxDeps): OutboxService {
  const lifeMs = blacklistTtlMs(config);

  function tell(message: OutboxMessage, through: RedisBatch): Promise<unknown> {
    switch (message.kind) {
      case 'session-end': {
        const { sessionId, reason, expiresAtMs } = message;
        const restMs = Math.max(1, expiresAtMs - now());
        const touched = [keys.session(sessionId), keys.blacklist(userOfSession(sessionId))];
        return through.run(sessionEnd, touched, [sessionId, reason, restMs, expiresAtMs, lifeMs]);
      }
      case 'epoch': {
        const { userId, epoch, accessVersion } = message;
        return through.run(blacklistMerge, [keys.blacklist(userId)], [lifeMs, 'ep', epoch, 'av', accessVersion]);
      }
      case 'invalidate':
        return Promise.all(
          invalidationCommands(keys, message, config.cache.tombstoneSeconds).map((command) => through.send(...command)),
        );
    }
  }

  async function markDelivered(ids: readonly string[]): Promise<void> {
    await database.run((db) =>
      db
        .update(outbox)
        .set({ state: 'delivered', dueAtMs: now() + SECOND_DELIVERY_MS })
        .where(and(inArray(outbox.id, [...ids]), eq(outbox.state, 'pending'))),
    );
  }

  /** Tells Redis now, for a request that has just written these rows. */
  async function deliver(ids: readonly string[], messages: readonly OutboxMessage[]): Promise<{ pending: boolean }> {
    try {
      await Promise.all(messages.map((message) => tell(message, batch)));
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      log('warn', 'outbox.pending', { messages: messages.length, ...describeError(error) });
      return { pending: true };
    }
    // When this is lost the rows are merely delivered once more.
    waitUntil(markDelivered(ids).catch((error: unknown) => log('warn', 'outbox.mark_failed', describeError(error))));
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

  return {
    prepare(messages) {
      const rows = messages.map((message) => ({ ...newRow(), message: JSON.stringify(message) }));
      const ids = rows.map((row) => row.id);
      return {
        statements: (db) => (rows.length === 0 ? [] : [db.insert(outbox).values(rows)]),
        deliver: async () => (rows.length === 0 ? { pending: false } : deliver(ids, messages)),
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
        deliver: ({ epoch, accessVersion }) => {
          forgetVerdicts();
          return deliver([row.id], [{ kind: 'epoch', userId, epoch, accessVersion }]);
        },
      };
    },

    async deliverDue(through = batch) {
      const at = now();
      const due = await database.run((db) =>
        db
          .update(outbox)
          .set({ dueAtMs: at + LEASE_MS })
          .where(
            inArray(
              outbox.id,
              db
                .select({ id: outbox.id })
                .from(outbox)
                .where(lte(outbox.dueAtMs, at))
                .orderBy(outbox.dueAtMs)
                .limit(CLAIM),
            ),
          )
          .returning(),
      );
      if (due.length === 0) return 0;

      const live = due.filter((row) => row.expiresAtMs > at);
      const messages = live.map(parseMessage);
      await Promise.all(messages.flatMap((message) => (message === undefined ? [] : [tell(message, through)])));

      const pending = live.filter((row) => row.state === 'pending').map((row) => row.id);
      const done = due.filter((row) => row.state === 'delivered' || row.expiresAtMs <= at).map((row) => row.id);
      await database.batch((db) => [
        db
          .update(outbox)
          .set({ state: 'delivered', dueAtMs: sql`${now() + SECOND_DELIVERY_MS}` })
          .where(inArray(outbox.id, pending)),
        db.delete(outbox).where(inArray(outbox.id, done)),
      ]);
      log('info', 'outbox.delivered', { messages: live.length, first: pending.length });
      return live.length;
    },
  };
}

/** `undefined` for a row that this version cannot read; it is logged, and not lost before it expires. */
function parseMessage(row: OutboxRow): OutboxMessage | undefined {
  try {
    const message = JSON.parse(row.message) as OutboxMessage;
    if (['session-end', 'epoch', 'invalidate'].includes(message.kind)) return message;
  } catch {
    // Falls through to the log.
  }
  log('error', 'outbox.unreadable', { id: row.id });
  return undefined;
}
