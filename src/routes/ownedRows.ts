import { and, count, desc, eq } from 'drizzle-orm';
import type { InferInsertModel, InferSelectModel } from 'drizzle-orm';

import type { Table, TableColumn } from '#db';

import { AppError } from '../errors';
import type { Again } from '../middlewares/idempotent.middleware';
import { reads } from '../middlewares/reads.middleware';
import { CacheService } from '../services/cache.service';
import type { CachedRows } from '../services/cache.service';
import { currentScope } from '../services/scope';
import { timestamp } from '../util/timestamp';
import { NOTHING_TO_CHANGE, namesSomething, pageSchema } from './schemas';

/** A table whose rows belong to users. */
export type OwnedTable = Table & { id: TableColumn; userId: TableColumn; createdAtMs: TableColumn };

type Managed = 'id' | 'userId' | 'createdAtMs';

/** A row as the API shows it. */
export type OwnedRow<T extends OwnedTable> = Omit<InferSelectModel<T>, 'userId' | 'createdAtMs'> & {
  /** RFC 3339 */
  createdAt: string;
};

export interface OwnedRowsOptions {
  /** How long lists and rows stay cached. A change invalidates those of its owner at once. */
  ttlSeconds: number;
  /** Further tags of lists and rows, for changes of what else they depend on: `CacheService.change({ tags }, …)`. @default [] */
  tags?: readonly string[];
}

/**
 * The rows of a table by their owner: a cached page, a cached row, and changes that invalidate both. Every statement has the
 * owner in its condition, so another user's row is a 404. Rate limits, authentication and validation stay in the route.
 *
 * @param namespace of the cache, one for each table
 * @example
 * const rows = ownedRows('notes', notes, { ttlSeconds: 300 });
 * app.get('/notes/:id', guard(rateLimiter(policy.api), authenticate(), rows.readsOne()),
 *   async (c) => c.json(await rows.find(c.var.auth.userId, c.req.param('id'))));
 */
export function ownedRows<T extends OwnedTable>(
  namespace: string,
  table: T,
  { ttlSeconds, tags = [] }: OwnedRowsOptions,
) {
  type Fields = Omit<InferInsertModel<T>, Managed>;
  // Drizzle cannot infer the rows of a type parameter, so queries see a plain table, and `shown` gives the rows their type.
  const source: Table = table;
  const tag = (userId: string) => `${namespace} of ${userId}`;
  const life = (userId: string) => ({ namespace, user: userId, tags: [tag(userId), ...tags], ttlSeconds });
  const ofOwner = (userId: string, id: string) => and(eq(table.userId, userId), eq(table.id, id));

  const one = (userId: string, id: string) =>
    CacheService.rows(life(userId), (db) => db.select().from(source).where(ofOwner(userId, id)));

  const listed = (userId: string, { page, limit }: { page: number; limit: number }) =>
    CacheService.rows(life(userId), (db) =>
      db
        .select()
        .from(source)
        .where(eq(table.userId, userId))
        .orderBy(desc(table.createdAtMs), desc(table.id))
        .limit(limit)
        .offset((page - 1) * limit),
    );

  const counted = (userId: string): CachedRows<{ total: number }[]> =>
    CacheService.rows(life(userId), (db) => db.select({ total: count() }).from(source).where(eq(table.userId, userId)));

  function shown(row: unknown): OwnedRow<T> {
    const { userId: _, createdAtMs, ...rest } = row as InferSelectModel<T> & { createdAtMs: number };
    return { ...rest, createdAt: timestamp(createdAtMs) };
  }

  function firstOf(rows: readonly unknown[]): OwnedRow<T> {
    const [row] = rows;
    if (row === undefined) throw new AppError('NOT_FOUND');
    return shown(row);
  }

  return {
    /** What a change of this user's rows invalidates: for cached reads of your own that show them. */
    tag,

    /** A check that reads the page of the request in the guard's pipeline. Put it after `authenticate()`. */
    readsPage: () =>
      reads((c) => {
        const query = pageSchema.safeParse(c.req.query());
        const { userId } = c.var.auth;
        return query.success ? [listed(userId, query.data), counted(userId)] : [];
      }),

    /** A check that reads the row of the path's `id` in the guard's pipeline. Put it after `authenticate()`. */
    readsOne: () => reads((c) => one(c.var.auth.userId, c.req.param('id') ?? '')),

    /** For `idempotent()`: the response of an executed write whose response was lost before it was stored. */
    again: (async (c, reference) => {
      const { userId = '' } = c.get('auth') ?? {};
      if (c.req.method === 'DELETE') return c.body(null, 204);
      const { id = c.req.param('id') ?? '' } = (reference ?? {}) as { id?: string };
      return c.json(firstOf(await one(userId, id)) as object, c.req.method === 'POST' ? 201 : 200);
    }) satisfies Again,

    /** Newest first. */
    async page(userId: string, query: { page: number; limit: number }) {
      const [rows, [found]] = await Promise.all([listed(userId, query), counted(userId)]);
      return { items: rows.map(shown), page: query.page, limit: query.limit, total: found?.total ?? 0 };
    },

    /** @throws {AppError} `NOT_FOUND` */
    find: async (userId: string, id: string) => firstOf(await one(userId, id)),

    async create(userId: string, fields: Fields) {
      const row = { ...fields, id: crypto.randomUUID(), userId, createdAtMs: currentScope().now() };
      const [rows] = await CacheService.change(
        { tags: [tag(userId)] },
        (db) => [db.insert(source).values(row).returning()],
        { reference: { id: row.id } },
      );
      return firstOf(rows);
    },

    /** Fields that are left out stay as they are. @throws {AppError} `NOT_FOUND`; `VALIDATION_FAILED` if all are left out */
    async change(userId: string, id: string, fields: { [Name in keyof Fields]?: Fields[Name] | undefined }) {
      // Drizzle throws on an update without fields, which would become a 500.
      if (!namesSomething(fields)) {
        throw new AppError('VALIDATION_FAILED', { errors: [{ pointer: '', detail: NOTHING_TO_CHANGE }] });
      }
      const [rows] = await CacheService.change({ tags: [tag(userId)] }, (db) => [
        db.update(source).set(fields).where(ofOwner(userId, id)).returning(),
      ]);
      return firstOf(rows);
    },

    /** @throws {AppError} `NOT_FOUND` */
    async remove(userId: string, id: string) {
      const [rows] = await CacheService.change({ tags: [tag(userId)] }, (db) => [
        db.delete(source).where(ofOwner(userId, id)).returning(),
      ]);
      firstOf(rows);
    },
  };
}
