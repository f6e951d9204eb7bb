import { and, asc, eq, gt, gte, inArray, isNull, lt, ne, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../config/env';
import { log } from '../config/log';
import type { Database, Drizzle } from '../db/client';
import { always, flag } from '../db/portable';
import { counters, sessions, users } from '../db/schema';
import type { AccountRow, UserRow } from '../db/schema';
import { AppError, unavailable } from '../errors';
import type { PersonalTable } from '../personalData';
import { fold } from '../util/fold';
import { timestamp } from '../util/timestamp';
import type { AuditService, NewAudit } from './audit.service';
import { versionStep } from './blacklist/versionStep';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
import type { CacheKey, CacheService } from './cache.service';
import { dropOneTimeTokens } from './oneTime/store';
import type { OutboxMessage, OutboxService } from './outbox.service';
import type { RequestAccounts } from './requestAccounts';
import { endOthers, whileOwner } from './session/statements';
import { facade } from './scope';
import { lastAdministrator, leavesAnAdministrator } from './user/administrators';
import { createDeletion } from './user/deletion';
import type { Deletion } from './user/deletion';
import { createExport } from './user/export';
import type { AccountExport } from './user/export';
import { blockOf, fillSearch, findIds, refolded, searchOf } from './user/search';

/** An account in the form of the API. Times are RFC 3339 in UTC, in whole seconds. */
export interface User {
  id: string;
  email: string;
  /** Whether the address is verified. */
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

/** An attempt fails only if this user logs in at the same moment. */
const DELETE_ATTEMPTS = 3;

/** Accounts, read through the cache and invalidated on every change. */
export interface UserService {
  /** The cache entry of a user, for `reads(…)`. */
  keyOf(userId: string): CacheKey;
  /** @throws {AppError} `NOT_FOUND` */
  getUser(userId: string): Promise<User>;
  getUsers(query: UserQuery): Promise<Page<User>>;
  /** The account with an e-mail address. */
  idOf(email: string): Promise<string | undefined>;
  /** Users with a session in use since then, in the order of their ids, starting after `after`. */
  activeIds(sinceMs: number, after: string, limit: number): Promise<string[]>;
  /**
   * @param by the administrator who changes the account
   * @throws {AppError} `NOT_FOUND`, `LAST_ADMINISTRATOR`
   */
  updateUser(userId: string, change: UserChange, by?: string): Promise<User>;
  /**
   * @param by the administrator who deletes the account; omitted if the owner does
   * @throws {AppError} `LAST_ADMINISTRATOR`; `NOT_FOUND` for an administrator
   */
  deleteUser(userId: string, by?: string): Promise<void>;
  /**
   * One attempt to delete an account, effective only if a condition on D1 holds in the same transaction. The condition must
   * stay true until the user's row is gone.
   */
  deleteUserWhile(userId: string, condition: SQL): Promise<Deletion>;
  /**
   * All stored data of the account, from D1.
   *
   * @throws {AppError} `NOT_FOUND`
   */
  exportUser(userId: string): Promise<AccountExport>;
  /** Deletes accounts not verified within the time in the settings, a few per call. @returns the number deleted */
  purgeUnverified(): Promise<number>;
  /** Fills missing search texts (for `?q=`), at most 5,000 accounts per call. @returns the number filled */
  fillSearch(): Promise<number>;
}

declare module './scope' {
  interface ServiceMap {
    user: UserService;
  }
}

export const UserService: UserService = facade('user');

/** The namespaces of the list of all users, and of search results. Their entries hold ids, no names. */
const LISTS = 'users';
const SEARCHES = 'users-found';

/** Rounds of 500 accounts and two queries each: a run of the cron trigger has other work as well. */
const FILL_ROUNDS = 10;

/** The most accounts that one run of the cron trigger deletes: each takes two queries and a pipeline. */
const PURGED_ACCOUNTS = 20;

/** The lists that a change of a user makes outdated. */
const LISTS_OF = {
  /** The account was created or deleted. */
  account: [LISTS, SEARCHES],
  /** A searched column has changed. */
  name: [SEARCHES],
  /** Shown in lists, but read from the user's own entry. */
  details: [],
} as const;

/**
 * The invalidation for a change of a user. It writes one key per namespace, shared by all changes, so it names as few
 * namespaces as possible.
 */
export function userInvalidation(userId: string, changed: keyof typeof LISTS_OF = 'account') {
  return { kind: 'invalidate', users: [userId], namespaces: LISTS_OF[changed] } satisfies OutboxMessage;
}

/** Trimmed, NFC, lower case: equal for all spellings of an address. */
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
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  settings: Config['cache'];
  /** The app's own tables. */
  personal: readonly PersonalTable[];
  /** 0: never. */
  unverifiedTtlSeconds: number;
  /** The current request's. */
  accounts: () => RequestAccounts;
  now: () => number;
}

export function createUserService(deps: UserDeps): UserService {
  const {
    database,
    cache,
    outbox,
    event,
    audit,
    idempotency,
    settings,
    personal,
    unverifiedTtlSeconds,
    accounts,
    now,
  } = deps;

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

  /** The row that the check for revoked tokens has read. */
  const known = (userId: string) => (since: number | undefined) => {
    const found = accounts().get(userId, since);
    return found && { value: presentUser(found.account), readAtWallMs: found.readAtWallMs };
  };

  /** Ids of a page of all accounts. */
  const listed = ({ page, limit }: Omit<UserQuery, 'q'>) =>
    cache.query({ namespace: LISTS, args: { page, limit, of: 'ids' }, ...life(settings.listTtlSeconds) }, async () => {
      const [rows, [counted]] = await database.batch((db) => [
        db
          .select({ id: users.id })
          .from(users)
          .orderBy(asc(users.createdAtMs), asc(users.id))
          .limit(limit)
          .offset((page - 1) * limit),
        totalOf(db),
      ]);
      return { ids: rows.map(({ id }) => id), total: counted?.total ?? 0 };
    });

  /** Ids of a page of a search. */
  async function found({ page, limit, q }: Required<UserQuery>) {
    const { block, at, ...rows } = blockOf({ page, limit });
    const list = await cache.query(
      { namespace: SEARCHES, args: { block, size: rows.size, q, of: 'block' }, ...life(settings.listTtlSeconds) },
      () => findIds(database, q ?? '', rows),
    );
    return list && { ids: list.ids.slice(at, at + limit), total: list.total };
  }

  const exportOf = createExport({ database, personal, now });
  const deletion = createDeletion({
    database,
    outbox,
    audit,
    idempotency,
    personal,
    now,
    // Overwrite the entry itself, not only its version: it holds the person's name.
    copiesOf: (userId) => ({ ...userInvalidation(userId), keys: [{ entryKey: cache.userKey(userId).entryKey }] }),
  });

  // While the database is away, older values may be served. Changes still invalidate them.
  const life = (ttlSeconds: number) => ({
    ttlSeconds,
    staleIfErrorSeconds: settings.staleIfErrorSeconds,
    readsDatabase: true,
  });

  return {
    keyOf: (userId) => cache.userKey(userId),

    async idOf(email) {
      const [row] = await database.run((db) =>
        db
          .select({ id: users.id })
          .from(users)
          .where(eq(users.email, normalizeEmail(email))),
      );
      return row?.id;
    },

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
      if (user === null) throw noSuchUser();
      return user;
    },

    async getUsers({ page, limit, q }) {
      // Folded once, for the cache's key and for the query: requests that share an entry have the same result.
      const list = q === undefined ? await listed({ page, limit }) : await found({ page, limit, q: fold(q) });
      if (list === null) return { items: [], page, limit, total: 0 };
      // Each user has a separate entry: lists show a change at once, and a deletion removes every copy.
      const items = await cache.users<User>(list.ids, life(settings.userTtlSeconds), load);
      return { items: items.filter((user) => user !== null), page, limit, total: list.total };
    },

    async updateUser(userId, { name, role, status }, by) {
      const about = { userId, ...(by !== undefined && { by }) };
      const kind = status === 'disabled' ? 'disabled' : 'enabled';
      // Checked before and after the change. For an account without these rights, the condition is true as well.
      const allowed = role === 'user' || status === 'disabled' ? leavesAnAdministrator(userId) : undefined;
      const happened = [
        ...(role === undefined
          ? []
          : [event.prepare({ kind: 'role-changed', ...about }, and(ne(users.role, role), allowed))]),
        ...(status === undefined ? [] : [event.prepare({ kind, ...about }, and(ne(users.status, status), allowed))]),
      ];
      const noted = (action: NewAudit['action'], changes: SQL, detail: NewAudit['detail'] = {}) =>
        by === undefined
          ? []
          : [audit.prepare({ by, action, userId, detail }, whileOwner(userId, sql`${and(changes, allowed)}`))];
      const audits = [
        ...(role === undefined ? [] : noted('role-changed', ne(users.role, role), { role })),
        ...(status === undefined ? [] : noted(kind, ne(users.status, status))),
        ...(name === undefined ? [] : noted('renamed', ne(users.name, name))),
      ];
      const committed = whileOwner(userId, allowed ?? always);
      const invalidation = outbox.prepare(
        [userInvalidation(userId, name === undefined ? 'details' : 'name')],
        committed,
      );
      const raised = [
        ...(role === undefined ? [] : (['accessVersion'] as const)),
        ...(status === 'disabled' ? (['epoch'] as const) : []),
      ];
      const versions = role !== undefined || status !== undefined ? outbox.prepareVersions(userId, raised) : undefined;
      const updatedAtMs = now();
      const results = await idempotency.batch(
        (db) => [
          // First, because their conditions test the row's old values.
          ...happened.map((entry) => entry.insert(db)),
          ...audits.map((entry) => entry(db)),
          db
            .update(users)
            .set({
              ...(name !== undefined && { name, search: searchOf(name) }),
              // A role change ends access tokens, and the next refresh brings the new role; disabling ends sessions. The
              // statement decides by the row itself, so concurrent changes cannot interfere.
              ...(role !== undefined && {
                role,
                accessVersion: sql`${users.accessVersion} + ${versionStep()} * ${flag(ne(users.role, role))}`,
              }),
              ...(status !== undefined && {
                status,
                ...(status === 'disabled' && {
                  epoch: sql`${users.epoch} + ${versionStep()} * ${flag(ne(users.status, status))}`,
                }),
              }),
              updatedAtMs,
            })
            .where(and(eq(users.id, userId), allowed))
            .returning(),
          ...(name === undefined ? [] : [refolded(db, userId, name)]),
          ...(status === 'disabled'
            ? [
                endOthers(db, { userId, reason: 'disabled', atMs: updatedAtMs, ...(allowed && { when: allowed }) }),
                dropOneTimeTokens(db, userId, 'recovery', 'email-change', 'deletion'),
              ]
            : []),
          ...invalidation.statements(db),
          ...(versions?.statements(db) ?? []),
          db.select({ id: users.id }).from(users).where(eq(users.id, userId)),
        ],
        { when: committed },
      );
      const [after] = results[happened.length + audits.length] as UserRow[];
      if (after === undefined) {
        const [left] = results.at(-1) as unknown[];
        throw left === undefined ? noSuchUser() : lastAdministrator();
      }
      await Promise.all([invalidation.deliver(), versions?.deliver(after)]);
      for (const [index, entry] of happened.entries()) if ((results[index] as unknown[]).length > 0) entry.report();
      return presentUser(after);
    },

    async exportUser(userId) {
      const found = await exportOf(userId);
      if (found === undefined) throw noSuchUser();
      return found;
    },

    async deleteUser(userId, by) {
      for (let attempt = 1; attempt <= DELETE_ATTEMPTS; attempt += 1) {
        const outcome = await deletion.attempt(userId, { by });
        if (outcome === 'last-administrator') throw lastAdministrator();
        if (outcome === 'missing' && by !== undefined) throw noSuchUser();
        if (outcome !== 'overtaken') return;
      }
      throw unavailable('The deletion', 1);
    },

    deleteUserWhile: (userId, condition) => deletion.attempt(userId, { only: condition }),

    async purgeUnverified() {
      if (unverifiedTtlSeconds === 0) return 0;
      // Never an administrator's account: an administrator is appointed deliberately.
      const forgotten = and(isNull(users.emailVerifiedAtMs), eq(users.role, 'user'))!;
      const due = await database.run((db) =>
        db
          .select({ id: users.id })
          .from(users)
          .where(and(forgotten, lt(users.createdAtMs, now() - unverifiedTtlSeconds * 1_000)))
          .orderBy(asc(users.createdAtMs))
          .limit(PURGED_ACCOUNTS),
      );
      let purged = 0;
      for (const { id } of due) if ((await deletion.attempt(id, { only: forgotten })) === 'deleted') purged += 1;
      if (purged > 0) log('info', 'users.unverified_purged', { accounts: purged });
      return purged;
    },

    async fillSearch() {
      const filled = await fillSearch(database, FILL_ROUNDS);
      // Lists cached before may lack the filled accounts.
      if (filled > 0) await cache.invalidate({ namespaces: [SEARCHES] });
      return filled;
    },
  };
}

const noSuchUser = () => new AppError('NOT_FOUND', { detail: 'There is no such user.' });

/** The number of users, without counting them. */
function totalOf(db: Drizzle) {
  return db.select({ total: counters.value }).from(counters).where(eq(counters.name, 'users'));
}
