import { sql } from 'drizzle-orm';
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
    /**
     * Name and address as {@link searchText} folds them, for `?q=`. `null` until it is filled: rows from before the column,
     * and those that a statement without it has changed (a trigger sees to that).
     */
    search: text('search'),
    role: text('role', { enum: ['user', 'admin'] })
      .notNull()
      .default('user'),
    status: text('status', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    /** `null`: nobody has shown yet that they read mail at this address. */
    emailVerifiedAtMs: integer('email_verified_at_ms'),
    /** PHC string. */
    passwordHash: text('password_hash').notNull(),
    epoch: integer('epoch').notNull().default(1),
    accessVersion: integer('access_version').notNull().default(1),
    createdAtMs: integer('created_at_ms').notNull(),
    updatedAtMs: integer('updated_at_ms').notNull(),
  },
  (table) => [
    uniqueIndex('users_email').on(table.email),
    // Lists are in this order, and a search looks at the index alone to tell which rows it wants.
    index('users_search').on(table.createdAtMs, table.id, table.search),
    index('users_unfolded')
      .on(table.id)
      .where(sql`${table.search} is null`),
  ],
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
    index('sessions_ended')
      .on(table.endedAtMs)
      .where(sql`${table.endedAtMs} is not null`),
  ],
);

/**
 * Access tokens that were revoked one by one (RFC 7009), for as long as they would live: what a Redis that has lost its
 * data is told again.
 */
export const revokedTokens = sqliteTable(
  'revoked_tokens',
  {
    /** The token's `jti`. */
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    /** When the token expires by itself. */
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (table) => [index('revoked_tokens_user').on(table.userId), index('revoked_tokens_expires').on(table.expiresAtMs)],
);

/** What was sent by mail to be shown once: taken with DELETE … RETURNING, so two who show it cannot both have it. */
export const oneTimeTokens = sqliteTable(
  'one_time_tokens',
  {
    /** SHA-256 of the token, base64url: who reads this table can use none of them. */
    hash: text('hash').primaryKey(),
    purpose: text('purpose', { enum: ['recovery', 'verification'] }).notNull(),
    userId: text('user_id').notNull(),
    /** The address that it was sent to. */
    email: text('email').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (table) => [
    index('one_time_tokens_user').on(table.userId, table.purpose),
    index('one_time_tokens_expires').on(table.expiresAtMs),
  ],
);

/** What happened to an account, for its owner to see: the last 50 a user are kept. */
export const events = sqliteTable(
  'events',
  {
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    kind: text('kind', {
      enum: [
        'registered',
        'login',
        'login-failed',
        'refresh-reuse',
        'logout',
        'logout-all',
        'session-revoked',
        'token-revoked',
        'password-changed',
        'password-reset',
        'recovery-requested',
        'email-verified',
        'role-changed',
        'disabled',
        'enabled',
      ],
    }).notNull(),
    /** The session that it happened to, or in; `null` when there is none. */
    sessionId: text('session_id'),
    /** Client address and device name, `''` where they say nothing. */
    address: text('address').notNull().default(''),
    device: text('device').notNull().default(''),
    atMs: integer('at_ms').notNull(),
  },
  (table) => [index('events_user').on(table.userId, table.atMs)],
);

/**
 * Messages for Redis: each row is written in the same D1 batch as the change that caused it and delivered at once. A
 * delivered row stays for a while as the log from which Redis is told again after it has lost writes.
 */
export const outbox = sqliteTable(
  'outbox',
  {
    /** The database's own order; no number is given twice. */
    seq: integer('seq').primaryKey({ autoIncrement: true }),
    id: text('id').notNull(),
    /** JSON of an `OutboxMessage`. */
    message: text('message').notNull(),
    /** `pending` until Redis was told once. */
    state: text('state', { enum: ['pending', 'delivered'] })
      .notNull()
      .default('pending'),
    /** Earliest next attempt: 0 for a row that the scheduled run has not tried yet. */
    dueAtMs: integer('due_at_ms').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** After this the message no longer matters (every token that it ends has expired). */
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (table) => [
    uniqueIndex('outbox_id').on(table.id),
    index('outbox_pending')
      .on(table.dueAtMs, table.seq)
      .where(sql`${table.state} = 'pending'`),
  ],
);

/** One row (id 1): what the database knows of the copy in Redis. */
export const redisState = sqliteTable('redis_state', {
  id: integer('id').primaryKey(),
  /** Heartbeat that Redis holds: every message with a smaller `seq` was delivered before it was written. */
  beat: integer('beat').notNull().default(0),
  /** Messages with a smaller `seq` were delivered a second time, after a heartbeat. */
  repeatedSeq: integer('repeated_seq').notNull().default(0),
  /** Redis has lost writes: messages from this `seq` on must be delivered again; `null`: nothing is known to be lost. */
  lostSeq: integer('lost_seq'),
  /** Progress of that, newest first: messages from this `seq` on were delivered again. */
  lostDoneSeq: integer('lost_done_seq'),
  /** Progress over sessions that ended before the oldest message: their end, newest first; `null`: not needed. */
  lostSessionsMs: integer('lost_sessions_ms'),
  /** The isolate that delivers, and until when: others leave the backlog to it. */
  leaseHolder: text('lease_holder'),
  leaseUntilMs: integer('lease_until_ms').notNull().default(0),
});

/** Numbers that would cost a scan: triggers keep them (see the migration that makes this table). */
export const counters = sqliteTable('counters', {
  /** `users`: how many there are. */
  name: text('name', { enum: ['users'] }).primaryKey(),
  value: integer('value').notNull(),
});

export type UserRow = typeof users.$inferSelect;
/** A user without the secret. */
export type AccountRow = Omit<UserRow, 'passwordHash'>;
export type SessionRow = typeof sessions.$inferSelect;
export type OneTimeTokenRow = typeof oneTimeTokens.$inferSelect;
export type EventRow = typeof events.$inferSelect;
export type OutboxRow = typeof outbox.$inferSelect;
export type RedisStateRow = typeof redisState.$inferSelect;
export type SessionEndReason = NonNullable<SessionRow['endedReason']>;
