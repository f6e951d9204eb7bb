import { and, asc, count, eq, gt, gte, isNull, ne, or, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import type { Database } from '../db/client';
import { events, sessions, users } from '../db/schema';
import type { UserRow } from '../db/schema';
import { AppError } from '../errors';
import type { EventService } from './event.service';
import type { CacheKey, CacheService } from './cache.service';
import { dropOneTimeTokens } from './oneTime/store';
import type { OutboxMessage, OutboxService } from './outbox.service';
import { endOthers } from './session/statements';
import { facade } from './scope';

/** An account as the API shows it. Times are RFC 3339 in UTC. */
export interface User {
  id: string;
  email: string;
  /** Whether somebody has shown that they read mail there. */
  emailVerified: boolean;
  name: string;
  role: 'user' | 'admin';
  status: 'active' | 'disabled';
  createdAt: string;
  updatedAt: string;
}

export interface UserQuery {
  /** From 1. */
  page: number;
  limit: number;
  /** Part of the name or the e-mail address. */
  q?: string | undefined;
}

export interface Page<T> {
  items: T[];
  page: number;
  limit: number;
  total: number;
}

export interface UserChange {
  name?: string | undefined;
  role?: 'user' | 'admin' | undefined;
  status?: 'active' | 'disabled' | undefined;
}

/** Accounts, read through the cache and invalidated on every change. */
export interface UserService {
  /** The cache entry of a user, for `reads(…)`. */
  keyOf(userId: string): CacheKey;
  /** @throws {AppError} `NOT_FOUND` */
  getUser(userId: string): Promise<User>;
  getUsers(query: UserQuery): Promise<Page<User>>;
  /** Users with a session that was in use since then, in the order of their ids, from the one after `after` on. */
  activeIds(sinceMs: number, after: string, limit: number): Promise<string[]>;
  /**
   * @param by who changes somebody else's account
   * @throws {AppError} `NOT_FOUND`
   */
  updateUser(userId: string, change: UserChange, by?: string): Promise<User>;
  deleteUser(userId: string): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    user: UserService;
  }
}

export const UserService: UserService = facade('user');

/** The namespace of every list of users. */
const LISTS = 'users';

/** What a change of a user makes wrong. */
export function userInvalidation(userId: string) {
  return { kind: 'invalidate', users: [userId], namespaces: [LISTS] } as const satisfies OutboxMessage;
}

/** Trimmed, NFC, lower case: what two spellings of one address have in common. */
export function normalizeEmail(email: string): string {
  return email.trim().normalize('NFC').toLowerCase();
}

export function presentUser(row: UserRow): User {
  const { id, email, emailVerifiedAtMs, name, role, status, createdAtMs, updatedAtMs } = row;
  const [createdAt, updatedAt] = [createdAtMs, updatedAtMs].map((ms) => new Date(ms).toISOString()) as [string, string];
  return { id, email, emailVerified: emailVerifiedAtMs !== null, name, role, status, createdAt, updatedAt };
}

export interface UserDeps {
  database: Database;
  cache: CacheService;
  outbox: OutboxService;
  event: EventService;
  settings: Config['cache'];
  now: () => number;
}

export function createUserService({ database, cache, outbox, event, settings, now }: UserDeps): UserService {
  const load = async (userId: string) => {
    const [row] = await database.run((db) => db.select().from(users).where(eq(users.id, userId)));
    return row;
  };

  // With the database away what was read before is better than nothing; changes end it all the same.
  const life = (ttlSeconds: number) => ({ ttlSeconds, staleIfErrorSeconds: settings.staleIfErrorSeconds });

  return {
    keyOf: (userId) => cache.userKey(userId),

    async activeIds(sinceMs, after, limit) {
      const rows = await database.run((db) =>
        db
          .selectDistinct({ userId: sessions.userId })
          .from(sessions)
          .where(and(gt(sessions.userId, after), gte(sessions.lastSeenAtMs, sinceMs), isNull(sessions.endedAtMs)))
          .orderBy(asc(sessions.userId))
          .limit(limit),
      );
      return rows.map(({ userId }) => userId);
    },

    async getUser(userId) {
      const user = await cache.user(userId, life(settings.userTtlSeconds), async () => {
        const row = await load(userId);
        return row === undefined ? null : presentUser(row);
      });
      if (user === null) throw new AppError('NOT_FOUND', { detail: 'There is no such user.' });
      return user;
    },

    async getUsers({ page, limit, q }) {
      const args = { page, limit, q: q === undefined ? undefined : q.toLowerCase() };
      const list = await cache.query({ namespace: LISTS, args, ...life(settings.listTtlSeconds) }, () =>
        database.run(async (db) => {
          const where = q === undefined ? undefined : or(contains(users.email, q), contains(users.name, q));
          const [items, [found]] = await db.batch([
            db
              .select()
              .from(users)
              .where(where)
              .orderBy(asc(users.createdAtMs), asc(users.id))
              .limit(limit)
              .offset((page - 1) * limit),
            db.select({ total: count() }).from(users).where(where),
          ]);
          return { items: items.map(presentUser), page, limit, total: found?.total ?? 0 };
        }),
      );
      return list ?? { items: [], page, limit, total: 0 };
    },

    async updateUser(userId, { name, role, status }, by) {
      const about = { userId, ...(by !== undefined && { by }) };
      const kind = status === 'disabled' ? 'disabled' : 'enabled';
      const happened = [
        ...(role === undefined ? [] : [event.prepare({ kind: 'role-changed', ...about }, ne(users.role, role))]),
        ...(status === undefined ? [] : [event.prepare({ kind, ...about }, ne(users.status, status))]),
      ];
      const invalidation = outbox.prepare([userInvalidation(userId)]);
      const versions = role !== undefined || status !== undefined ? outbox.prepareVersions(userId) : undefined;
      const updatedAtMs = now();
      const results = await database.batch((db) => [
        // First: they look at what is about to change.
        ...happened.map((entry) => entry.insert(db)),
        db
          .update(users)
          .set({
            ...(name !== undefined && { name }),
            // A role change ends access tokens, and the next refresh brings the new role; disabling ends sessions. Told by
            // the row itself, whatever another change does at the same time.
            ...(role !== undefined && {
              role,
              accessVersion: sql`${users.accessVersion} + (${users.role} <> ${role})`,
            }),
            ...(status !== undefined && {
              status,
              epoch: sql`${users.epoch} + (${users.status} <> ${status} and ${status} = 'disabled')`,
            }),
            updatedAtMs,
          })
          .where(eq(users.id, userId))
          .returning(),
        ...(status === 'disabled'
          ? [
              endOthers(db, { userId, reason: 'disabled', atMs: updatedAtMs }),
              dropOneTimeTokens(db, userId, 'recovery'),
            ]
          : []),
        ...invalidation.statements(db),
        ...(versions?.statements(db) ?? []),
      ]);
      const [after] = results[happened.length] as UserRow[];
      if (after === undefined) throw new AppError('NOT_FOUND', { detail: 'There is no such user.' });
      await Promise.all([invalidation.deliver(), versions?.deliver(after)]);
      for (const [index, entry] of happened.entries()) if ((results[index] as unknown[]).length > 0) entry.report();
      return presentUser(after);
    },

    async deleteUser(userId) {
      const live = await database.run((db) =>
        db
          .select({ sessionId: sessions.id, expiresAtMs: sessions.expiresAtMs })
          .from(sessions)
          .where(and(eq(sessions.userId, userId), isNull(sessions.endedAtMs), gt(sessions.expiresAtMs, now())))
          .limit(1_000),
      );
      const told = outbox.prepare([
        // The copies themselves, and not only their nonces: they hold what the person is called.
        { ...userInvalidation(userId), keys: [{ entryKey: cache.userKey(userId).entryKey }] },
        ...live.map(
          ({ sessionId, expiresAtMs }) => ({ kind: 'session-end', reason: 'deleted', sessionId, expiresAtMs }) as const,
        ),
      ]);
      const versions = outbox.prepareVersions(userId);
      const [rows] = await database.batch((db) => [
        // Raised before it goes, so that the message outdates every token.
        db
          .update(users)
          .set({ epoch: sql`${users.epoch} + 1` })
          .where(eq(users.id, userId))
          .returning(),
        ...versions.statements(db),
        ...told.statements(db),
        endOthers(db, { userId, reason: 'deleted', atMs: now() }),
        // What remains until the tokens have expired says nothing about the person.
        db.update(sessions).set({ device: '', address: '', data: '{}' }).where(eq(sessions.userId, userId)),
        db.delete(events).where(eq(events.userId, userId)),
        dropOneTimeTokens(db, userId),
        db.delete(users).where(eq(users.id, userId)),
      ]);
      const [gone] = rows as UserRow[];
      await Promise.all([told.deliver(), gone && versions.deliver(gone)]);
    },
  };
}

/** Not LIKE: D1 takes patterns of 50 bytes at most. */
function contains(column: typeof users.email | typeof users.name, text: string) {
  return sql`instr(lower(${column}), lower(${text})) > 0`;
}
