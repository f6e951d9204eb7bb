import { index, integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';

/**
 * Accounts. Times are milliseconds since the Unix epoch; the API shows them as RFC 3339.
 *
 * `epoch` ends every session issued before it, `accessVersion` only the access tokens; both only grow. They are the
 * truth that Redis's `blacklist` hash copies.
 */
export const users = sqliteTable(
  'users',
  {
    id: text('id').primaryKey(),
    /** Lower case, NFC, without surrounding space: see `normalizeEmail`. */
    email: text('email').notNull(),
    name: text('name').notNull(),
    role: text('role', { enum: ['user', 'admin'] })
      .notNull()
      .default('user'),
    status: text('status', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    /** PHC string. */
    passwordHash: text('password_hash').notNull(),
    epoch: integer('epoch').notNull().default(1),
    accessVersion: integer('access_version').notNull().default(1),
    createdAtMs: integer('created_at_ms').notNull(),
    updatedAtMs: integer('updated_at_ms').notNull(),
  },
  (table) => [uniqueIndex('users_email').on(table.email), index('users_created').on(table.createdAtMs, table.id)],
);

/**
 * Device sessions. A row outlives the session's end until `expiresAtMs`, because it is what tells an isolate that lost
 * Redis that this session was revoked.
 */
export const sessions = sqliteTable(
  'sessions',
  {
    /** `<userId>.<random>` */
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    /** What the client calls itself, or its User-Agent. */
    device: text('device').notNull(),
    /** Client address at login, as Cloudflare reports it. */
    address: text('address').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** Refreshes write it; between them Redis knows better. */
    lastSeenAtMs: integer('last_seen_at_ms').notNull(),
    /** Absolute end, whatever its use. */
    expiresAtMs: integer('expires_at_ms').notNull(),
    /** User epoch that its newest tokens carry. */
    epoch: integer('epoch').notNull(),
    /** Newest refresh generation that D1 was told of: a lower bound, written after the answer. */
    generation: integer('generation').notNull().default(1),
    /** JSON of the app's own session data. */
    data: text('data').notNull().default('{}'),
    endedAtMs: integer('ended_at_ms'),
    endedReason: text('ended_reason', {
      enum: ['logout', 'logout-all', 'revoked', 'evicted', 'reuse', 'password', 'disabled', 'deleted'],
    }),
  },
  (table) => [
    index('sessions_user').on(table.userId, table.expiresAtMs),
    index('sessions_expires').on(table.expiresAtMs),
  ],
);

/**
 * What Redis must be told: each row is written in the same D1 batch as the change that caused it, delivered at once,
 * and once more a minute later, because a failover may lose a write that Redis acknowledged.
 */
export const outbox = sqliteTable(
  'outbox',
  {
    id: text('id').primaryKey(),
    /** JSON of an `OutboxMessage`. */
    message: text('message').notNull(),
    /** `pending` until Redis was told once; `delivered` until it was told again. */
    state: text('state', { enum: ['pending', 'delivered'] })
      .notNull()
      .default('pending'),
    /** Next delivery; a claimed row's lease also lives here. */
    dueAtMs: integer('due_at_ms').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** After this the message no longer matters (every token that it ends has expired). */
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (table) => [index('outbox_due').on(table.dueAtMs)],
);

export type UserRow = typeof users.$inferSelect;
export type SessionRow = typeof sessions.$inferSelect;
export type OutboxRow = typeof outbox.$inferSelect;
export type SessionEndReason = NonNullable<SessionRow['endedReason']>;
