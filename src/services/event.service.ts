import { and, desc, eq, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { describeError, log } from '../config/log';
import type { Database, Drizzle, Statement } from '../db/client';
import { events, users } from '../db/schema';
import type { EventRow } from '../db/schema';
import type { Instruments } from '../metrics/instruments';
import { timingPause } from './timingPause';
import { timeOrderedIds } from '../util/timeOrderedId';
import { facade } from './scope';
import type { Device } from './session/device';

export type EventKind = EventRow['kind'];

export interface NewEvent {
  kind: EventKind;
  userId: string;
  sessionId?: string;
  /** The administrator's id, if an administrator did it and not the user. */
  by?: string;
}

/** An event of an account, as shown to its owner. */
export type AccountEvent = Pick<EventRow, 'id' | 'kind' | 'sessionId' | 'address' | 'device' | 'atMs'>;

/** An event with its change: recorded together, then logged. */
export interface EventEntry {
  /**
   * A statement for the D1 batch of the change: before the change if `when` tests a value that it changes, after it if it
   * creates the user. Returns a row if the event happened.
   */
  insert(db: Drizzle): Statement;
  /** {@link insert}, and the statements that delete older events. */
  statements(db: Drizzle): Statement[];
  /** Writes the line of the audit log, `audit.<kind>`: ids only, no personal data. */
  report(): void;
}

/** Events of accounts: the audit log, and each account's last events for its owner. */
export interface EventService {
  /** @param when a condition, evaluated in the same transaction: if it is false, there is no event */
  prepare(event: NewEvent, when?: SQL): EventEntry;
  /** A failed login for an address without an account: only counted and logged, as there is no history. */
  unknownLogin(): void;
  /** Counts an event that is not listed in the account's history, such as a refresh. */
  count(kind: string): void;
  /**
   * Logs now, and records after a timing pause. For events without another change, whose timing would reveal an account.
   */
  note(event: NewEvent): void;
  /** The last 50, newest first. Of each kind that strangers can cause, such as failed logins, at most 10. */
  list(userId: string): Promise<AccountEvent[]>;
}

declare module './scope' {
  interface ServiceMap {
    event: EventService;
  }
}

export const EventService: EventService = facade('event');

const KEPT = 50;
/** OFFSET needs a LIMIT: this is more than a user ever has. */
const ALL = 1_000_000;
/** Limits for events that strangers can cause: they must not push the other events out. */
const KEPT_OF: Partial<Record<EventKind, number>> = {
  'login-failed': 10,
  'login-limited': 5,
  'password-failed': 10,
  'recovery-requested': 10,
  'deletion-requested': 10,
};
/** Events that a request without a session can cause. */
const OF_STRANGERS: ReadonlySet<EventKind> = new Set([
  'login-failed',
  'login-limited',
  'recovery-requested',
  'deletion-requested',
]);
/** Signs of an attack. */
const WARNINGS: ReadonlySet<EventKind> = new Set(['login-failed', 'login-limited', 'password-failed', 'refresh-reuse']);

export interface EventDeps {
  database: Database;
  /** The device of the current request. */
  origin: () => Device;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  instruments: Pick<Instruments, 'authEvents'>;
}

export function createEventService({ database, origin, waitUntil, now, instruments }: EventDeps): EventService {
  const nextId = timeOrderedIds();

  function report({ kind, userId, sessionId, by }: NewEvent): void {
    instruments.authEvents.count(kind);
    const level = WARNINGS.has(kind) ? 'warn' : 'info';
    log(level, `audit.${kind.replaceAll('-', '_')}`, { userId, sessionId, by });
  }

  function prepare(event: NewEvent, when?: SQL): EventEntry {
    const { kind, userId, sessionId = null } = event;
    // The account's owner must not see an administrator's device or address.
    const from = event.by === undefined ? origin() : { device: '', address: '' };
    const { address } = from;
    // A stranger who causes these events chooses the User-Agent. The owner must not see a stranger's text.
    const device = OF_STRANGERS.has(kind) ? '' : from.device;
    const atMs = now();
    const row = { id: nextId(atMs), kind, sessionId, address, device, atMs };
    const insert = (db: Drizzle) =>
      db
        .insert(events)
        .select(
          db
            .select({
              id: sql<string>`${row.id}`.as('id'),
              userId: users.id,
              kind: sql<EventKind>`${row.kind}`.as('kind'),
              sessionId: sql<string | null>`${row.sessionId}`.as('session_id'),
              address: sql<string>`${row.address}`.as('address'),
              device: sql<string>`${row.device}`.as('device'),
              atMs: sql<number>`${row.atMs}`.as('at_ms'),
            })
            .from(users)
            .where(and(eq(users.id, userId), when)),
        )
        .returning({ id: events.id });
    return {
      insert,
      statements: (db) => {
        const keptOfKind = KEPT_OF[kind];
        const ofKind = keptOfKind === undefined ? [] : [prune(db, userId, keptOfKind, kind)];
        // Prune the event's kind first, so that a new event displaces one of its own kind.
        return [insert(db), ...ofKind, prune(db, userId, KEPT)];
      },
      report: () => report(event),
    };
  }

  return {
    prepare,

    unknownLogin() {
      instruments.authEvents.count('login-failed');
      log('warn', 'audit.login_failed', { known: false });
    },

    count: (kind) => instruments.authEvents.count(kind),

    note(event) {
      report(event);
      const entry = prepare(event);
      const recorded = timingPause().then(() => database.batch((db) => entry.statements(db)));
      waitUntil(recorded.catch((error: unknown) => log('warn', 'event.lost', describeError(error))));
    },

    list: (userId) =>
      database.run((db) => {
        const { id, kind, sessionId, address, device, atMs } = events;
        return db
          .select({ id, kind, sessionId, address, device, atMs })
          .from(events)
          .where(eq(events.userId, userId))
          .orderBy(desc(atMs), desc(id))
          .limit(KEPT);
      }),
  };
}

/** Deletes all but a user's newest events, of all kinds or of one. */
function prune(db: Drizzle, userId: string, kept: number, kind?: EventKind): Statement {
  const ofUser = and(eq(events.userId, userId), kind && eq(events.kind, kind));
  return db.delete(events).where(
    sql`${events.id} in (select ${events.id} from ${events} where ${ofUser}
      order by ${events.atMs} desc, ${events.id} desc limit ${ALL} offset ${kept})`,
  );
}
