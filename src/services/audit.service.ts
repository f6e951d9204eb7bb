import { and, count, desc, eq, lt, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { log } from '../config/log';
import type { Database, Drizzle, Statement } from '../db/client';
import { always, nextNumber } from '../db/portable';
import { audit } from '../db/schema';
import type { AuditRow } from '../db/schema';
import { totalOf } from './pages';
import { facade } from './scope';

export type AuditAction = AuditRow['action'];

/** One administrative action. */
export interface NewAudit {
  /** The administrator's user id. */
  by: string;
  action: AuditAction;
  /** The account concerned. */
  userId?: string | undefined;
  /** Names of settings and numbers; no personal data, because the entry outlives the account. */
  detail?: Readonly<Record<string, string | number>>;
}

export interface AuditEntry extends Pick<AuditRow, 'seq' | 'atMs' | 'by' | 'action' | 'userId'> {
  detail: Record<string, string | number>;
}

/** The log of administrators' actions. */
export interface AuditService {
  /**
   * A statement for the D1 batch of the action: both are committed or neither.
   *
   * @param when a condition, evaluated in the same transaction: if it is false, there is no entry
   */
  prepare(entry: NewAudit, when?: SQL): (db: Drizzle) => Statement;
  /** Records an action outside D1, before it begins. If recording fails, do not act. @throws {DatabaseUnavailable} */
  record(entry: NewAudit): Promise<void>;
  /** Newest first. */
  list(query: { page: number; limit: number; userId?: string | undefined }): Promise<{
    items: AuditEntry[];
    total: number;
  }>;
  /** Deletes entries older than {@link KEPT_DAYS}. */
  purge(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    audit: AuditService;
  }
}

export const AuditService: AuditService = facade('audit');

export const KEPT_DAYS = 400;

export interface AuditDeps {
  database: Database;
  now: () => number;
}

export function createAuditService({ database, now }: AuditDeps): AuditService {
  function prepare({ by, action, userId, detail = {} }: NewAudit, when: SQL = always) {
    const values = sql`${nextNumber(audit.seq)}, ${now()}, ${by}, ${action}, ${userId ?? null}, ${JSON.stringify(detail)}`;
    return (db: Drizzle): Statement => db.insert(audit).select(sql`select ${values} where ${when}`);
  }

  return {
    prepare,

    async record(entry) {
      const statement = prepare(entry);
      await database.batch((db) => [statement(db)]);
      log('info', 'audit.administrator', { action: entry.action, by: entry.by, userId: entry.userId });
    },

    async list({ page, limit, userId }) {
      const where = userId === undefined ? undefined : eq(audit.userId, userId);
      const offset = (page - 1) * limit;
      // One statement that reads each entry once: first those up to the page's end, then the rest.
      const [rows] = await database.batch((db) => {
        const found = db
          .$with('found')
          .as(db.select().from(audit).where(where).orderBy(desc(audit.seq)).limit(limit).offset(offset));
        const older = and(sql`${audit.seq} < (select min(seq) from ${found})`, where);
        const { seq, atMs, by, action, userId: of, detail } = found;
        const others = sql<number>`case when (select count(*) from ${found}) < ${limit} then 0
          else (select count(*) from ${audit} where ${older}) end`.as('others');
        return [
          db
            .with(found)
            .select({ seq, atMs, by, action, userId: of, detail, others })
            .from(found)
            .orderBy(desc(found.seq)),
        ];
      });
      const items = rows.map(({ seq, atMs, by, action, userId, detail }): AuditEntry => ({
        seq,
        atMs,
        by,
        action,
        userId,
        detail: JSON.parse(detail) as AuditEntry['detail'],
      }));
      const countAll = () => database.run((db) => db.select({ total: count() }).from(audit).where(where));
      return { items, total: await totalOf(rows, offset, countAll) };
    },

    async purge() {
      await database.run((db) => db.delete(audit).where(lt(audit.atMs, now() - KEPT_DAYS * 86_400_000)));
    },
  };
}
