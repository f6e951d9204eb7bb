import { sql } from 'drizzle-orm';

import { autoNumber, index, integer, primaryKey, table, text, uniqueIndex } from '#db';

/**
 * Accounts. Times are milliseconds since the Unix epoch; the API shows them as RFC 3339.
 *
 * `epoch` ends every session issued before it, `accessVersion` only the access tokens. Both only grow. Redis's `blacklist`
 * hash holds copies of them.
 */
export const users = table(
  'users',
  {
    id: text('id').primaryKey(),
    /** Lower case, NFC, without surrounding space: see `normalizeEmail`. */
    email: text('email').notNull(),
    name: text('name').notNull(),
    /**
     * Name and address as folded by {@link searchText}, for `?q=`. `null` until filled: in rows older than the column, and
     * in rows changed by a statement that does not set it (a trigger clears it).
     */
    search: text('search'),
    role: text('role', { enum: ['user', 'admin'] })
      .notNull()
      .default('user'),
    status: text('status', { enum: ['active', 'disabled'] })
      .notNull()
      .default('active'),
    /** `null`: the address is not verified. */
    emailVerifiedAtMs: integer('email_verified_at_ms'),
    /** PHC string. */
    passwordHash: text('password_hash').notNull(),
    epoch: integer('epoch').notNull().default(1),
    accessVersion: integer('access_version').notNull().default(1),
    createdAtMs: integer('created_at_ms').notNull(),
    updatedAtMs: integer('updated_at_ms').notNull(),
  },
  (t) => [
    uniqueIndex('users_email').on(t.email),
    // Before a change removes an administrator's rights, a query checks that another administrator is left.
    index('users_admins')
      .on(t.id)
      .where(sql`${t.role} = 'admin' and ${t.status} = 'active'`),
    // Lists use this order. A search reads only the index to find its rows.
    index('users_search').on(t.createdAtMs, t.id, t.search),
    index('users_unfolded')
      .on(t.id)
      .where(sql`${t.search} is null`),
    // The oldest unverified accounts, which the cron trigger may delete.
    index('users_unverified')
      .on(t.createdAtMs)
      .where(sql`${t.emailVerifiedAtMs} is null`),
  ],
);

/**
 * Device sessions. A row stays after the session has ended, until `expiresAtMs`: when Redis is lost, isolates learn from it
 * that the session was revoked.
 */
export const sessions = table(
  'sessions',
  {
    /** `<userId>.<random>` */
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    /** The client's name for itself, or its User-Agent. */
    device: text('device').notNull(),
    /** Client address at login, as Cloudflare reports it. */
    address: text('address').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** Written by refreshes. In between, Redis has a newer time. */
    lastSeenAtMs: integer('last_seen_at_ms').notNull(),
    /** Absolute expiry: use does not extend it. */
    expiresAtMs: integer('expires_at_ms').notNull(),
    /** User epoch in its newest tokens. */
    epoch: integer('epoch').notNull(),
    /** Newest refresh generation known to D1. It is written after the response, so the real one may be higher. */
    generation: integer('generation').notNull().default(1),
    /** `jti` of the newest access token that a refresh has issued with that generation; `null`: none, or unknown. */
    tokenId: text('token_id'),
    /** When the user last confirmed the password in this session; `null`: at its login. */
    authenticatedAtMs: integer('authenticated_at_ms'),
    /** Wrong passwords in this session since the last correct one. */
    passwordFailures: integer('password_failures').notNull().default(0),
    /** JSON of the app's own session data. */
    data: text('data').notNull().default('{}'),
    endedAtMs: integer('ended_at_ms'),
    endedReason: text('ended_reason', {
      enum: [
        'logout',
        'logout-all',
        'revoked',
        'evicted',
        'reuse',
        'password',
        'email',
        'disabled',
        'deleted',
        'administrator',
      ],
    }),
  },
  (t) => [
    index('sessions_user').on(t.userId, t.expiresAtMs),
    index('sessions_expires').on(t.expiresAtMs),
    index('sessions_ended')
      .on(t.endedAtMs)
      .where(sql`${t.endedAtMs} is not null`),
  ],
);

/**
 * Access tokens that were revoked individually (RFC 7009), kept until they expire. They are published again after Redis has
 * lost data.
 */
export const revokedTokens = table(
  'revoked_tokens',
  {
    /** The token's `jti`. */
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    /** When the token expires by itself. */
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [index('revoked_tokens_user').on(t.userId), index('revoked_tokens_expires').on(t.expiresAtMs)],
);

/**
 * Single-use tokens sent by mail. They are taken with DELETE … RETURNING, so only one of two concurrent requests gets the
 * token.
 */
export const oneTimeTokens = table(
  'one_time_tokens',
  {
    /** SHA-256 of the token, base64url: a reader of this table cannot use the tokens. */
    hash: text('hash').primaryKey(),
    purpose: text('purpose', {
      enum: ['recovery', 'verification', 'email-change', 'email-undo', 'deletion'],
    }).notNull(),
    userId: text('user_id').notNull(),
    /** The address that received it. */
    email: text('email').notNull(),
    /** Of `email-change`: the account's address when the change was asked for. */
    formerEmail: text('former_email'),
    createdAtMs: integer('created_at_ms').notNull(),
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [
    index('one_time_tokens_user').on(t.userId, t.purpose),
    index('one_time_tokens_expires').on(t.expiresAtMs),
    // Addresses that stay reserved, because an account may be changed back to them.
    index('one_time_tokens_reserved')
      .on(t.email)
      .where(sql`${t.purpose} = 'email-undo'`),
  ],
);

/**
 * Wrong passwords at login since the last correct one, by account, from addresses where the account has never signed in.
 * Accounts that do not exist are counted too, so the count does not reveal which accounts exist.
 */
export const loginFailures = table(
  'login_failures',
  {
    /** `u:<user id>`, or `e:<keyed hash of the e-mail address>` where there is no account. */
    account: text('account').primaryKey(),
    failed: integer('failed').notNull(),
    lastAtMs: integer('last_at_ms').notNull(),
  },
  (t) => [index('login_failures_last').on(t.lastAtMs)],
);

/**
 * The addresses where an account has signed in; only the newest of each user are kept. Wrong passwords from other addresses
 * do not count here.
 */
export const knownOrigins = table(
  'known_origins',
  {
    userId: text('user_id').notNull(),
    /** Keyed hash of the client's address; for IPv6, of its network. */
    origin: text('origin').notNull(),
    /** Wrong passwords from this address since the last correct one. */
    failed: integer('failed').notNull().default(0),
    /** Last sign-in from this address. */
    lastAtMs: integer('last_at_ms').notNull(),
  },
  (t) => [primaryKey({ columns: [t.userId, t.origin] })],
);

/** Events of an account, shown to its owner: the last 50 of each user are kept. */
export const events = table(
  'events',
  {
    id: text('id').primaryKey(),
    userId: text('user_id').notNull(),
    kind: text('kind', {
      enum: [
        'registered',
        'login',
        'login-failed',
        'login-limited',
        'password-failed',
        'reauthenticated',
        'email-change-requested',
        'email-changed',
        'email-change-undone',
        'deletion-requested',
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
        'sessions-ended',
      ],
    }).notNull(),
    /** The session concerned; `null` when there is none. */
    sessionId: text('session_id'),
    /** Client address and device name; `''` where unknown or meaningless. */
    address: text('address').notNull().default(''),
    device: text('device').notNull().default(''),
    atMs: integer('at_ms').notNull(),
  },
  (t) => [index('events_user').on(t.userId, t.atMs)],
);

/**
 * Actions of administrators, in the console, through the API or on the command line. The log outlives the accounts
 * concerned, so it holds only ids and names of settings, and no personal data.
 */
export const audit = table(
  'audit',
  {
    seq: autoNumber('seq'),
    atMs: integer('at_ms').notNull(),
    /** The administrator's user id, or `command-line`. */
    by: text('by').notNull(),
    action: text('action', {
      enum: [
        'role-changed',
        'disabled',
        'enabled',
        'renamed',
        'deleted',
        'session-ended',
        'sessions-ended',
        'everyone-signed-out',
        'recovery-sent',
        'user-cache-cleared',
        'cache-invalidated',
        'limit-reset',
        'limit-overridden',
        'limit-restored',
        'warming-started',
        'warming-stopped',
      ],
    }).notNull(),
    /** The account concerned, if any. */
    userId: text('user_id'),
    /** JSON object of texts and numbers: details of the action. */
    detail: text('detail').notNull().default('{}'),
  },
  (t) => [index('audit_user').on(t.userId, t.seq)],
);

/** Rate limits set by an administrator in place of the app's own. */
export const limitOverrides = table('limit_overrides', {
  /** Name of the policy. */
  policy: text('policy').primaryKey(),
  /** JSON of a list of `{ maxRequests, windowMs }`; `null`: the app's own limits apply again. */
  windows: text('windows'),
  by: text('by').notNull(),
  atMs: integer('at_ms').notNull(),
  /** Version of the whole table: grows with each change of any row, and is at least the time of the change. */
  version: integer('version').notNull(),
});

/**
 * Messages for Redis. Each row is written in the same D1 batch as the change that caused it, and delivered at once.
 * Delivered rows stay for a while: after Redis has lost writes they are delivered again.
 */
export const outbox = table(
  'outbox',
  {
    /** Assigned by the database in the order of insertion; no number is given twice. */
    seq: autoNumber('seq'),
    id: text('id').notNull(),
    /** JSON of an `OutboxMessage`. */
    message: text('message').notNull(),
    /** `pending` until delivered to Redis once. */
    state: text('state', { enum: ['pending', 'delivered'] })
      .notNull()
      .default('pending'),
    /** Earliest next attempt: 0 for a row that the cron trigger has not tried yet. */
    dueAtMs: integer('due_at_ms').notNull(),
    createdAtMs: integer('created_at_ms').notNull(),
    /** After this the message is obsolete: every token that it ends has expired. */
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [
    uniqueIndex('outbox_id').on(t.id),
    index('outbox_pending')
      .on(t.dueAtMs, t.seq)
      .where(sql`${t.state} = 'pending'`),
  ],
);

/** One row (id 1): the state of the copy in Redis, according to the database. */
export const redisState = table('redis_state', {
  id: integer('id').primaryKey(),
  /**
   * Number of the newest heartbeat in Redis. Every message with a smaller `seq` was delivered before this heartbeat was
   * written.
   */
  beat: integer('beat').notNull().default(0),
  /** Messages with a smaller `seq` were delivered a second time, after a heartbeat. */
  repeatedSeq: integer('repeated_seq').notNull().default(0),
  /** Redis has lost writes: messages from this `seq` on must be delivered again; `null`: no loss is known. */
  lostSeq: integer('lost_seq'),
  /** Progress of that delivery, newest first: messages from this `seq` on are done. */
  lostDoneSeq: integer('lost_done_seq'),
  /**
   * Progress over sessions that ended before the oldest kept message, newest first: the end of the last one done; `null`:
   * not needed.
   */
  lostSessionsMs: integer('lost_sessions_ms'),
  /** The isolate that delivers the backlog, and until when. The other isolates skip it until then. */
  leaseHolder: text('lease_holder'),
  leaseUntilMs: integer('lease_until_ms').notNull().default(0),
});

/** Counts that would cost a scan. Triggers maintain them (see the migration that creates this table). */
export const counters = table('counters', {
  /** `users`: the number of users. */
  name: text('name', { enum: ['users'] }).primaryKey(),
  value: integer('value').notNull(),
});

/**
 * Executed requests with an `Idempotency-Key`. Each row is written in the same D1 batch as the change of the request, so a
 * second execution violates the primary key and changes nothing.
 */
export const idempotencyKeys = table(
  'idempotency_keys',
  {
    /** HMAC over caller, route and key. */
    id: text('id').primaryKey(),
    /** `null` for a row that belongs to no user, or whose user was deleted. */
    userId: text('user_id'),
    /** HMAC over query and body. */
    fingerprint: text('fingerprint').notNull(),
    /**
     * JSON from which the route builds the response again: ids and versions, nothing secret or personal. `null` in JSON: its user was
     * deleted.
     */
    reference: text('reference'),
    /** The response, encrypted; `null` when it can be built again, or is not known (any more). */
    response: text('response'),
    createdAtMs: integer('created_at_ms').notNull(),
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [
    index('idempotency_keys_user')
      .on(t.userId)
      .where(sql`${t.userId} is not null`),
    index('idempotency_keys_expires').on(t.expiresAtMs),
  ],
);

export type UserRow = typeof users.$inferSelect;
/** A user without the password hash. */
export type AccountRow = Omit<UserRow, 'passwordHash'>;
export type SessionRow = typeof sessions.$inferSelect;
export type OneTimeTokenRow = typeof oneTimeTokens.$inferSelect;
export type EventRow = typeof events.$inferSelect;
export type AuditRow = typeof audit.$inferSelect;
export type LimitOverrideRow = typeof limitOverrides.$inferSelect;
export type OutboxRow = typeof outbox.$inferSelect;
export type RedisStateRow = typeof redisState.$inferSelect;
export type IdempotencyKeyRow = typeof idempotencyKeys.$inferSelect;
export type SessionEndReason = NonNullable<SessionRow['endedReason']>;
