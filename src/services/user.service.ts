import { and, asc, count, eq, gt, gte, inArray, isNull, ne, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import type { Database, Drizzle } from '../db/client';
import { counters, sessions, users } from '../db/schema';
import type { AccountRow, UserRow } from '../db/schema';
import { AppError, unavailable } from '../errors';
import { fold } from '../util/fold';
import { timestamp } from '../util/timestamp';
import type { EventService } from './event.service';
import type { CacheKey, CacheService } from './cache.service';
import { dropOneTimeTokens } from './oneTime/store';
import type { OutboxMessage, OutboxService } from './outbox.service';
import type { RequestAccounts } from './requestAccounts';
import { endOthers } from './session/statements';
import { facade } from './scope';
import { createDeletion } from './user/deletion';
import { fillSearch, isFound, refolded, searchOf } from './user/search';

/** An account as the API shows it. Times are RFC 3339 in UTC, in whole seconds. */
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

/** Each is overtaken only by a login of this very user at this very moment. */
const DELETE_ATTEMPTS = 3;

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
  /** Fills what `?q=` looks at where it is missing, 5,000 accounts a call at most. @returns how many */
  fillSearch(): Promise<number>;
}

declare module './scope' {
  interface ServiceMap {
    user: UserService;
  }
}

export const UserService: UserService = facade('user');

/** The namespaces of the list of all users, and of what was searched for. They hold ids, no names. */
const LISTS = 'users';
const SEARCHES = 'users-found';

/** Of 500 accounts and two queries each: a cron run has other work as well. */
const FILL_ROUNDS = 10;

/** Lists that a change of a user makes wrong. */
const LISTS_OF = {
  /** The account came or went. */
  account: [LISTS, SEARCHES],
  /** What a search looks at has changed. */
  name: [SEARCHES],
  /** Lists show it, and read it from the user's own entry. */
  details: [],
} as const;

/** What a change of a user makes wrong. One write for each namespace, which all changes share: no more than it takes. */
export function userInvalidation(userId: string, changed: keyof typeof LISTS_OF = 'account') {
  return { kind: 'invalidate', users: [userId], namespaces: LISTS_OF[changed] } satisfies OutboxMessage;
}

/** Trimmed, NFC, lower case: what two spellings of one address have in common. */
export function normalizeEmail(email: string): string {
  return email.trim().normalize('NFC').toLowerCase();
}

export function presentUser(row: AccountRow): User {
  const { id, email, emailVerifiedAtMs, name, role, status, createdAtMs, updatedAtMs } = row;
  const [createdAt, updatedAt] = [timestamp(createdAtMs), timestamp(updatedAtMs)];
  return { id, email, emailVerified: emailVerifiedAtMs !== null, name, role, status, createdAt, updatedAt };
}

export interface UserDeps {
  database: Database;
  cache: CacheService;
  outbox: OutboxService;
  event: EventService;
  settings: Config['cache'];
  /** The current request's. */
  accounts: () => RequestAccounts;
  now: () => number;
}

export function createUserService({ database, cache, outbox, event, settings, accounts, now }: UserDeps): UserService {
  const load = async (userIds: readonly string[]) => {
    const rows = await database.run((db) =>
      db
        .select()
        .from(users)
        .where(inArray(users.id, [...userIds])),
    );
    const byId = new Map(rows.map((row) => [row.id, presentUser(row)]));
    return userIds.map((userId) => byId.get(userId) ?? null);
  };

  /** The row that the check for revoked tokens has brought along. */
  const known = (userId: string) => (since: number | undefined) => {
    const found = accounts().get(userId, since);
    return found && { value: presentUser(found.account), readAtWallMs: found.readAtWallMs };
  };

  const deletion = createDeletion({
    database,
    outbox,
    now,
    // The entry itself, and not only its version: it holds the person's name.
    copiesOf: (userId) => ({ ...userInvalidation(userId), keys: [{ entryKey: cache.userKey(userId).entryKey }] }),
  });

  // With the database away what was read before is better than nothing; changes end it all the same.
  const life = (ttlSeconds: number) => ({
    ttlSeconds,
    staleIfErrorSeconds: settings.staleIfErrorSeconds,
    readsDatabase: true,
  });

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
      const options = { ...life(settings.userTtlSeconds), known: known(userId) };
      const user = await cache.user(userId, options, async () => (await load([userId]))[0] ?? null);
      if (user === null) throw new AppError('NOT_FOUND', { detail: 'There is no such user.' });
      return user;
    },

    async getUsers({ page, limit, q }) {
      // Folded once, for the cache's key and for the query: requests that share an entry have the same result.
      const text = q === undefined ? undefined : fold(q);
      const args = { page, limit, q: text, of: 'ids' };
      const namespace = text === undefined ? LISTS : SEARCHES;
      const list = await cache.query({ namespace, args, ...life(settings.listTtlSeconds) }, () =>
        database.run(async (db) => {
          const where = text === undefined ? undefined : isFound(text);
          const [rows, [found]] = await db.batch([
            db
              .select({ id: users.id })
              .from(users)
              .where(where)
              .orderBy(asc(users.createdAtMs), asc(users.id))
              .limit(limit)
              .offset((page - 1) * limit),
            where === undefined ? totalOf(db) : db.select({ total: count() }).from(users).where(where),
          ]);
          return { ids: rows.map(({ id }) => id), total: found?.total ?? 0 };
        }),
      );
      if (list === null) return { items: [], page, limit, total: 0 };
      // The users themselves stand in one entry each: a list shows a change at once, and a deletion takes every copy along.
      const items = await cache.users<User>(list.ids, life(settings.userTtlSeconds), load);
      return { items: items.filter((user) => user !== null), page, limit, total: list.total };
    },

    async updateUser(userId, { name, role, status }, by) {
      const about = { userId, ...(by !== undefined && { by }) };
      const kind = status === 'disabled' ? 'disabled' : 'enabled';
      const happened = [
        ...(role === undefined ? [] : [event.prepare({ kind: 'role-changed', ...about }, ne(users.role, role))]),
        ...(status === undefined ? [] : [event.prepare({ kind, ...about }, ne(users.status, status))]),
      ];
      const invalidation = outbox.prepare([userInvalidation(userId, name === undefined ? 'details' : 'name')]);
      const versions = role !== undefined || status !== undefined ? outbox.prepareVersions(userId) : undefined;
      const updatedAtMs = now();
      const results = await database.batch((db) => [
        // First: they look at what is about to change.
        ...happened.map((entry) => entry.insert(db)),
        db
          .update(users)
          .set({
            ...(name !== undefined && { name, search: searchOf(name) }),
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
        ...(name === undefined ? [] : [refolded(db, userId, name)]),
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
      const has = (index: number) => (results[index] as unknown[] | undefined)?.length !== 0;
      const raised = [
        ...(role !== undefined && has(0) ? (['accessVersion'] as const) : []),
        ...(status === 'disabled' && has(happened.length - 1) ? (['epoch'] as const) : []),
      ];
      await Promise.all([invalidation.deliver(), versions?.deliver(after, raised)]);
      for (const [index, entry] of happened.entries()) if ((results[index] as unknown[]).length > 0) entry.report();
      return presentUser(after);
    },

    async deleteUser(userId) {
      for (let attempt = 1; attempt <= DELETE_ATTEMPTS; attempt += 1) {
        if (await deletion.attempt(userId)) return;
      }
      throw unavailable('The deletion', 1);
    },

    async fillSearch() {
      const filled = await fillSearch(database, FILL_ROUNDS);
      // Lists that were cached before may lack whom they should have.
      if (filled > 0) await cache.invalidate({ namespaces: [SEARCHES] });
      return filled;
    },
  };
}

/** How many users there are, without counting them. */
function totalOf(db: Drizzle) {
  return db.select({ total: counters.value }).from(counters).where(eq(counters.name, 'users'));
}
