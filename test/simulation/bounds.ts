import type { DatabaseKind } from './database.ts';
import { OWN_LIMITS } from './own.ts';
import type { Numbers } from './own.ts';

/**
 * What the docs promise, as numbers: the tables of docs/outages.md. Every check of the simulation takes its bound
 * from here, so that a change of a promise is a change of this table.
 */
export const BOUNDS = {
  /** Redis reachable since before the change was asked for: effective at once, in every isolate. */
  upMs: 0,
  /** Redis away: D1 is asked, and an isolate repeats what it said for at most a second, counted from when it asked. */
  awayMs: 1_000,
  /** A refresh that D1 was asked about, in every state of Redis. */
  refreshMs: 0,
  /** The same as for access tokens, for cached values: every read goes to the database. */
  cacheAwayMs: 0,
  /**
   * Redis was away or unreliable when the change was made, and has been reachable since: the isolate that made the change
   * lives, and delivers it within this time of the first request that it serves again.
   */
  recoveredMs: 10_000,
  /** The same when that isolate has died, and after Redis went back in time: once the next cron run has ended. */
  afterCronMs: 1_000,
  /** How long the first requests after a pause may be served without Redis, while a probe asks whether it is back. */
  wakeMs: 1_000,
  /** How long it may be until the next probe, after one that D1 has not answered: 4 s and a quarter of jitter, and its tail. */
  uncheckedMs: 5_000 + 2_100,
  /**
   * How long a breaker may stay open after Redis has come back: 30 s and a quarter of jitter, and one probe, which has
   * little to deliver here.
   */
  breakerMs: 42_000,
  /** How old an isolate's memory of overridden limits may be when a request is decided by it. */
  overridesMs: 20_000,
  /** How long Redis keeps its copy of them: a cron run renews it. */
  overridesCopyMs: 150_000,
} as const;

/** What a request may wait at most, by route, in milliseconds: one Redis deadline, and its database queries at their slowest. */
export const DEADLINES: Readonly<Record<string, number>> = {
  'GET /v1/users/me': 200 + 2 * 2_000,
  'POST /v1/auth/refresh': 1_000 + 2 * 2_000,
  // It works under the lock for as long as its client says.
  'POST /v1/own/locks': 60_000,
  '*': 1_000 + 4 * 2_000,
};

/** The same while the database is in order: one Redis deadline, and some queries that take as long as usual. */
export const CALM_DATABASE_DEADLINES: Readonly<Record<string, number>> = {
  'GET /v1/users/me': 200 + 150,
  'POST /v1/auth/refresh': 1_000 + 300,
};

/** A client gives a request up after this. */
export const CLIENT_TIMEOUT_MS = 15_000;

/** Timers fire a little late, and a reply that is there is taken before a deadline that is due. */
export const DEADLINE_SLACK_MS = 100;

/**
 * A guarded, cached read with everything in order: two trips to Redis (the second brings a script's text), one to the database;
 * to PostgreSQL over a new connection.
 */
export const CALM_READ_MS: Readonly<Record<DatabaseKind, number>> = {
  d1: 2 * 16 + 24 + 4,
  postgres: 2 * 16 + 24 + 4 + 4,
};

/** D1 round trips before the response to a guarded, cached read, whatever Redis does. */
export const READ_DATABASE_TRIPS = 2;

/** Settings of the simulated Worker; limits that are in the way of no client but the guesser. */
export const SETTINGS = {
  ACCESS_TOKEN_TTL_SECONDS: '180',
  SESSIONS_PER_USER: '100',
  LIMIT_REGISTER: '100000/1m',
  LIMIT_REGISTER_DAY: '100000/1m',
  LIMIT_MAILBOX: '100000/1m',
  LIMIT_LOGIN: '5/1m',
  LIMIT_LOGIN_ADDRESS: '100000/1m',
  LIMIT_API: '100000/1m',
  LIMIT_ACCOUNT: '100000/1m',
  LIMIT_REFRESH: '100000/1m',
  LIMIT_RECOVERY_ACCOUNT: '100000/1m',
} as const;

/** Limits by what clients are counted by. */
export const LIMITS = {
  login: { maxRequests: 5, windowMs: 60_000 },
  ...OWN_LIMITS,
} as const satisfies Record<string, Numbers>;

export type LimitName = keyof typeof LIMITS;
