import { sql } from 'drizzle-orm';

import { autoNumber, index, integer, primaryKey, table, text, uniqueIndex } from '#db';

/**
 * Accounts. Times are milliseconds since the Unix epoch; the API shows them as RFC 3339.
 *
 * `epoch` ends every session issued before it, `accessVersion` only the access tokens; both only grow. They are the
 * truth that Redis's `blacklist` hash copies.
 */
export const users = table(
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
    // A change that takes an administrator's rights away looks whether another one is left.
    index('users_admins')
      .on(t.id)
      .where(sql`${t.role} = 'admin' and ${t.status} = 'active'`),
    // Lists are in this order, and a search looks at the index alone to tell which rows it wants.
    index('users_search').on(t.createdAtMs, t.id, t.search),
    index('users_unfolded')
      .on(t.id)
      .where(sql`${t.search} is null`),
    // The oldest unverified accounts, which the scheduled run may delete.
    index('users_unverified')
      .on(t.createdAtMs)
      .where(sql`${t.emailVerifiedAtMs} is null`),
  ],
);

/**
 * Device sessions. A row outlives the session's end until `expiresAtMs`, because it is what tells an isolate that lost
 * Redis that this session was revoked.
 */
export const sessions = table(
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
    /** Newest refresh generation that D1 knows: a lower bound, written after the response. */
    generation: integer('generation').notNull().default(1),
    /** `jti` of the newest access token that a refresh has issued with that generation; `null`: none, or not known. */
    tokenId: text('token_id'),
    /** When the user last proved the password in this session; `null`: when it began. */
    authenticatedAtMs: integer('authenticated_at_ms'),
    /** Wrong passwords in this session since the last right one. */
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
 * Access tokens that were revoked one by one (RFC 7009), for as long as they would live: what a Redis that has lost its
 * data is told again.
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

/** What was sent by mail to be shown once: taken with DELETE … RETURNING, so two who show it cannot both have it. */
export const oneTimeTokens = table(
  'one_time_tokens',
  {
    /** SHA-256 of the token, base64url: who reads this table can use none of them. */
    hash: text('hash').primaryKey(),
    purpose: text('purpose', {
      enum: ['recovery', 'verification', 'email-change', 'email-undo', 'deletion'],
    }).notNull(),
    userId: text('user_id').notNull(),
    /** The address that it was sent to. */
    email: text('email').notNull(),
    /** Of `email-change`: the account's address when the change was asked for. */
    formerEmail: text('former_email'),
    createdAtMs: integer('created_at_ms').notNull(),
    expiresAtMs: integer('expires_at_ms').notNull(),
  },
  (t) => [
    index('one_time_tokens_user').on(t.userId, t.purpose),
    index('one_time_tokens_expires').on(t.expiresAtMs),
    // Addresses that stay reserved for an account which may go back to them.
    index('one_time_tokens_reserved')
      .on(t.email)
      .where(sql`${t.purpose} = 'email-undo'`),
  ],
);

/**
 * Wrong passwords at the login since the last right one, by account, from addresses that the account has not signed in from.
 * Accounts that do not exist are counted as well, or the count would tell them apart.
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
 * Where an account has signed in from: the newest of each user. A flood of wrong passwords from elsewhere does not count here.
 */
export const knownOrigins = table(
  'known_origins',
  {
    userId: text('user_id').notNull(),
    /** Keyed hash of the client's address, of an IPv6 one of its network. */
    origin: text('origin').notNull(),
    /** Wrong passwords from there since the last right one. */
    failed: integer('failed').notNull().default(0),
    /** Last sign-in from there. */
    lastAtMs: integer('last_at_ms').notNull(),
  },
  (t) => [primaryKey({ columns: [t.userId, t.origin] })],
);

/** What happened to an account, for its owner to see: the last 50 a user are kept. */
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
    /** The session that it happened to, or in; `null` when there is none. */
    sessionId: text('session_id'),
    /** Client address and device name, `''` where they say nothing. */
    address: text('address').notNull().default(''),
    device: text('device').notNull().default(''),
    atMs: integer('at_ms').notNull(),
  },
  (t) => [index('events_user').on(t.userId, t.atMs)],
);

/**
 * What administrators did, in the console, through the API or on the command line. It outlives the accounts that it is
 * about, so it holds ids and names of settings, and nothing personal.
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
    /** The account that it was done to, if any. */
    userId: text('user_id'),
    /** JSON object of texts and numbers: what was done in particular. */
    detail: text('detail').notNull().default('{}'),
  },
  (t) => [index('audit_user').on(t.userId, t.seq)],
);

/** Numbers of rate limits that an administrator has put in place of the app's own. */
export const limitOverrides = table('limit_overrides', {
  /** Name of the policy. */
  policy: text('policy').primaryKey(),
  /** JSON of a list of `{ maxRequests, windowMs }`; `null`: the app's own numbers count again. */
  windows: text('windows'),
  by: text('by').notNull(),
  atMs: integer('at_ms').notNull(),
  /** Of the table: grows with each change of any row, and is at least the time of the change. */
  version: integer('version').notNull(),
});

/**
 * Messages for Redis: each row is written in the same D1 batch as the change that caused it and delivered at once. A
 * delivered row stays for a while as the log from which Redis is told again after it has lost writes.
 */
export const outbox = table(
  'outbox',
  {
    /** The database's own order; no number is given twice. */
    seq: autoNumber('seq'),
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
  (t) => [
    uniqueIndex('outbox_id').on(t.id),
    index('outbox_pending')
      .on(t.dueAtMs, t.seq)
      .where(sql`${t.state} = 'pending'`),
  ],
);

/** One row (id 1): what the database knows of the copy in Redis. */
export const redisState = table('redis_state', {
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
export const counters = table('counters', {
  /** `users`: how many there are. */
  name: text('name', { enum: ['users'] }).primaryKey(),
  value: integer('value').notNull(),
});

/**
 * Requests with an `Idempotency-Key` that were executed: each row is written in the same D1 batch as the change that the
 * request made, so a second execution violates the primary key and changes nothing.
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
    /** JSON from which the route makes the response again: ids and versions, nothing secret or personal. `null` in JSON: its user was deleted. */
    reference: text('reference'),
    /** The response, encrypted; `null` when it is made again, or not known (any more). */
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
/** A user without the secret. */
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
