import { and, asc, count, desc, eq, gt, isNull, ne, sql } from 'drizzle-orm';

import { describeError, log } from '../../config/log';
import type { Database } from '../../db/client';
import { events, outbox as outboxTable, sessions, users } from '../../db/schema';
import type { SessionEndReason, SessionRow } from '../../db/schema';
import { anyOf, nextNumber } from '../../db/portable';
import { timeOrderedIds } from '../../util/timeOrderedId';
import { AppError } from '../../errors';
import { RedisError } from '../../redis/errors';
import type { AuditService } from '../audit.service';
import { blacklistTtlMs } from '../blacklist/ttl';
import { versionStep } from '../blacklist/versionStep';
import type { Config } from '../../config/env';
import type { EventService } from '../event.service';
import type { IdempotencyService } from '../idempotency.service';
import { versionsMessage } from '../outbox/rows';
import type { OutboxService } from '../outbox.service';
import { totalOf } from '../pages';
import { endedWith, endOthers } from './statements';

/** A device session for administrators, also after its end. Times in milliseconds since the epoch. */
export interface KnownSession extends Pick<SessionRow, 'id' | 'device' | 'address' | 'createdAtMs' | 'expiresAtMs'> {
  lastSeenAtMs: number;
  state: 'live' | 'ended' | 'expired';
  endedAtMs: number | null;
  endedReason: SessionEndReason | null;
}

/** Administrators' actions on other users' sessions. */
export interface SessionAdministration {
  /** A user's device sessions, newest first, including ended ones that would not have expired yet. */
  history(userId: string, query: { page: number; limit: number }): Promise<{ items: KnownSession[]; total: number }>;
  /** Ends all sessions of a user. The user may sign in again. @throws {AppError} `NOT_FOUND` */
  endAll(userId: string, by: string): Promise<void>;
  /**
   * Ends the sessions of all users except the calling administrator, {@link LOT} users per call, in the order of their ids.
   *
   * @param after `next` of the previous call, `''` for the first
   * @returns the number of users with sessions, and where to continue; `null` after the last
   */
  endEveryone(by: string, after: string): Promise<{ users: number; next: string | null }>;
}

/** Users per call of `endEveryone`: one D1 batch, and as many messages to Redis. */
const LOT = 500;

export interface AdministrationDeps {
  database: Database;
  outbox: OutboxService;
  event: EventService;
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  config: Config;
  lastSeen: (sessionIds: readonly string[]) => Promise<Map<string, number>>;
  idleMs: number;
  now: () => number;
}

export function createAdministration(deps: AdministrationDeps): SessionAdministration {
  const { database, outbox, event, audit, idempotency, config, lastSeen, idleMs, now } = deps;

  /** Delivers to Redis now if it is available, otherwise later by the cron trigger. */
  async function deliver(): Promise<void> {
    try {
      await outbox.deliverDue();
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      log('warn', 'session.ends_pending', describeError(error));
    }
  }

  return {
    async history(userId, { page, limit }) {
      // Sessions without a device are the app's own.
      const where = and(eq(sessions.userId, userId), ne(sessions.device, ''));
      const offset = (page - 1) * limit;
      // No index has this order, so the page reads all sessions. If the page is not full, no second read for the total is
      // needed.
      const [rows] = await database.batch((db) => {
        const found = db
          .$with('found')
          .as(
            db
              .select()
              .from(sessions)
              .where(where)
              .orderBy(desc(sessions.createdAtMs), asc(sessions.id))
              .limit(limit)
              .offset(offset),
          );
        const others = sql<number>`case when (select count(*) from ${found}) < ${limit} then 0
          else (select count(*) from ${sessions} where ${where}) - ${offset + limit} end`.as('others');
        const { id, device, address, createdAtMs, lastSeenAtMs, expiresAtMs, endedAtMs, endedReason } = found;
        return [
          db
            .with(found)
            .select({
              id,
              device,
              address,
              createdAtMs,
              lastSeenAtMs,
              expiresAtMs,
              endedAtMs,
              endedReason,
              others,
            })
            .from(found)
            .orderBy(desc(found.createdAtMs), asc(found.id)),
        ];
      });
      const open = rows.filter(({ endedAtMs }) => endedAtMs === null);
      const seen = open.length === 0 ? new Map<string, number>() : await lastSeen(open.map(({ id }) => id));
      const atMs = now();
      const items = rows.map((row): KnownSession => {
        const { id, device, address, createdAtMs, expiresAtMs, endedAtMs, endedReason } = row;
        const lastSeenAtMs = Math.min(atMs, Math.max(row.lastSeenAtMs, seen.get(id) ?? 0));
        const isOver = Math.min(lastSeenAtMs + idleMs, expiresAtMs) <= atMs;
        const state = endedAtMs !== null ? 'ended' : isOver ? 'expired' : 'live';
        return { id, device, address, createdAtMs, lastSeenAtMs, expiresAtMs, state, endedAtMs, endedReason };
      });
      const countAll = () => database.run((db) => db.select({ total: count() }).from(sessions).where(where));
      return { items, total: await totalOf(rows, offset, countAll) };
    },

    async endAll(userId, by) {
      const versions = outbox.prepareVersions(userId);
      const happened = event.prepare({ kind: 'sessions-ended', userId, by });
      const noted = audit.prepare(
        { by, action: 'sessions-ended', userId },
        sql`exists (select 1 from ${users} where ${users.id} = ${userId})`,
      );
      const [rows] = await idempotency.batch((db) => [
        db
          .update(users)
          .set({ epoch: sql`${users.epoch} + ${versionStep()}` })
          .where(eq(users.id, userId))
          .returning(),
        endOthers(db, { userId, reason: 'administrator', atMs: now() }),
        noted(db),
        ...versions.statements(db),
        ...happened.statements(db),
      ]);
      const [user] = rows;
      if (user === undefined) throw new AppError('NOT_FOUND', { detail: 'There is no such user.' });
      await versions.deliver(user);
      happened.report();
    },

    async endEveryone(by, after) {
      const atMs = now();
      const found = await database.run((db) =>
        db
          .selectDistinct({ userId: sessions.userId })
          .from(sessions)
          .where(
            and(
              gt(sessions.userId, after),
              ne(sessions.userId, by),
              isNull(sessions.endedAtMs),
              gt(sessions.expiresAtMs, atMs),
            ),
          )
          .orderBy(asc(sessions.userId))
          .limit(LOT),
      );
      const ids = found.map(({ userId }) => userId);
      if (ids.length === 0) return { users: 0, next: null };
      const lot = { users: ids.length, next: ids.length < LOT ? null : (ids.at(-1) ?? null) };
      const those = anyOf(ids);
      const expiresAtMs = atMs + blacklistTtlMs(config);
      const noted = audit.prepare({ by, action: 'everyone-signed-out', detail: { users: ids.length } });
      await idempotency.batch(
        (db) => [
          db
            .update(users)
            .set({ epoch: sql`${users.epoch} + ${versionStep()}` })
            .where(sql`${users.id} in ${those}`),
          db.insert(outboxTable).select(
            sql`select ${nextNumber(outboxTable.seq)}, ${`${crypto.randomUUID()}:`} || ${users.id}, ${versionsMessage(['epoch'])}, 'pending', 0, ${atMs}, ${expiresAtMs}
              from ${users} where ${users.id} in ${those}`,
          ),
          db
            .update(sessions)
            .set(endedWith('administrator', atMs))
            .where(and(sql`${sessions.userId} in ${those}`, isNull(sessions.endedAtMs))),
          db.insert(events).select(
            sql`select ${`${timeOrderedIds()(atMs)}:`} || ${users.id}, ${users.id}, 'sessions-ended', null, '', '', ${atMs}
              from ${users} where ${users.id} in ${those}`,
          ),
          noted(db),
        ],
        { reference: lot },
      );
      log('info', 'audit.administrator', { action: 'everyone-signed-out', by, users: ids.length });
      await deliver();
      return lot;
    },
  };
}
