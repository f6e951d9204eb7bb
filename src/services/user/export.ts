import { asc, eq } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { audit, events, knownOrigins, oneTimeTokens, sessions, users } from '../../db/schema';
import type { PersonalTable } from '../../personalData';
import { timestamp } from '../../util/timestamp';

/** All stored data of a user except secrets: hashes of the password, of tokens and of addresses. */
export interface AccountExport {
  exportedAt: string;
  account: {
    id: string;
    email: string;
    emailVerifiedAt: string | null;
    name: string;
    role: 'user' | 'admin';
    status: 'active' | 'disabled';
    createdAt: string;
    updatedAt: string;
  };
  sessions: {
    id: string;
    device: string;
    address: string;
    createdAt: string;
    lastSeenAt: string;
    expiresAt: string;
    endedAt: string | null;
    endedReason: string | null;
    /** JSON of the app's own session data. */
    data: string;
  }[];
  events: { kind: string; sessionId: string | null; address: string; device: string; at: string }[];
  /** Mailed tokens that are still valid. */
  mails: { purpose: string; email: string; formerEmail: string | null; createdAt: string; expiresAt: string }[];
  /** Sign-ins by client address. Only a keyed hash of the address is stored. */
  signInAddresses: { lastAt: string; wrongPasswords: number }[];
  /** Administrators' actions on the account. */
  administration: { action: string; at: string }[];
  /** Rows of the app's own tables, by name. */
  app: Record<string, unknown[]>;
}

const maybe = (ms: number | null) => (ms === null ? null : timestamp(ms));

export interface ExportDeps {
  database: Database;
  personal: readonly PersonalTable[];
  now: () => number;
}

/** @returns `undefined` if there is no such user. One D1 batch, so that all data are from the same moment */
export function createExport({ database, personal, now }: ExportDeps) {
  return async function exportOf(userId: string): Promise<AccountExport | undefined> {
    const results = await database.batch((db) => [
      db.select().from(users).where(eq(users.id, userId)),
      db.select().from(sessions).where(eq(sessions.userId, userId)).orderBy(asc(sessions.createdAtMs)),
      db.select().from(events).where(eq(events.userId, userId)).orderBy(asc(events.atMs)),
      db.select().from(oneTimeTokens).where(eq(oneTimeTokens.userId, userId)).orderBy(asc(oneTimeTokens.createdAtMs)),
      db.select().from(knownOrigins).where(eq(knownOrigins.userId, userId)).orderBy(asc(knownOrigins.lastAtMs)),
      db.select().from(audit).where(eq(audit.userId, userId)).orderBy(asc(audit.seq)),
      ...personal.map(({ rows }) => rows(db, userId)),
    ]);
    const [accounts, devices, happened, mailed, origins, administration, ...own] = results as [
      (typeof users.$inferSelect)[],
      (typeof sessions.$inferSelect)[],
      (typeof events.$inferSelect)[],
      (typeof oneTimeTokens.$inferSelect)[],
      (typeof knownOrigins.$inferSelect)[],
      (typeof audit.$inferSelect)[],
      ...unknown[][],
    ];
    const [account] = accounts;
    if (account === undefined) return undefined;
    const { id, email, name, role, status } = account;
    return {
      exportedAt: timestamp(now()),
      account: {
        id,
        email,
        emailVerifiedAt: maybe(account.emailVerifiedAtMs),
        name,
        role,
        status,
        createdAt: timestamp(account.createdAtMs),
        updatedAt: timestamp(account.updatedAtMs),
      },
      sessions: devices.map((one) => ({
        id: one.id,
        device: one.device,
        address: one.address,
        createdAt: timestamp(one.createdAtMs),
        lastSeenAt: timestamp(one.lastSeenAtMs),
        expiresAt: timestamp(one.expiresAtMs),
        endedAt: maybe(one.endedAtMs),
        endedReason: one.endedReason,
        data: one.data,
      })),
      events: happened.map(({ kind, sessionId, address, device, atMs }) => ({
        kind,
        sessionId,
        address,
        device,
        at: timestamp(atMs),
      })),
      mails: mailed.map(({ purpose, email: to, formerEmail, createdAtMs, expiresAtMs }) => ({
        purpose,
        email: to,
        formerEmail,
        createdAt: timestamp(createdAtMs),
        expiresAt: timestamp(expiresAtMs),
      })),
      signInAddresses: origins.map(({ lastAtMs, failed }) => ({ lastAt: timestamp(lastAtMs), wrongPasswords: failed })),
      administration: administration.map(({ action, atMs }) => ({ action, at: timestamp(atMs) })),
      app: Object.fromEntries(personal.map(({ name: table }, index) => [table, own[index] ?? []])),
    };
  };
}
