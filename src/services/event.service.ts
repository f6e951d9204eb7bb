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
  /** Who did it, where that is not the user: the id of an administrator. */
  by?: string;
}

/** Something that happened to an account, as its owner sees it. */
export type AccountEvent = Pick<EventRow, 'id' | 'kind' | 'sessionId' | 'address' | 'device' | 'atMs'>;

/** An event and its change: recorded together, and logged after that. */
export interface EventEntry {
  /**
   * To go into the D1 batch that makes the change: before it where `when` looks at what it changes, after it where it
   * makes the user. Returns a row if the event happened.
   */
  insert(db: Drizzle): Statement;
  /** {@link insert}, and what forgets older ones. */
  statements(db: Drizzle): Statement[];
  /** Writes the line of the audit log, `audit.<kind>`: ids and nothing that is personal. */
  report(): void;
}

/** What happened to accounts: the audit log, and the last events of each for its owner. */
export interface EventService {
  /** @param when a condition on D1, told in the same transaction: without it there is no event */
  prepare(event: NewEvent, when?: SQL): EventEntry;
  /** A failed login for an address without an account: there is no history to write to. */
  unknownLogin(): void;
  /** Counts what is no event of an account's list, such as a refresh. */
  count(kind: string): void;
  /** Logs now, and records after a timing pause: for events without another change, whose timing would reveal an account. */
  note(event: NewEvent): void;
  /** The last 50, newest first; of what strangers can cause, such as failed logins, at most 10 each. */
  list(userId: string): Promise<AccountEvent[]>;
}

declare module './scope' {
  interface ServiceMap {
    event: EventService;
  }
}

export const EventService: EventService = facade('event');

const KEPT = 50;
/** OFFSET needs a LIMIT: more than a user ever has. */
const ALL = 1_000_000;
/** Kept in smaller numbers: events that strangers can cause must not push the others out. */
const KEPT_OF: Partial<Record<EventKind, number>> = {
  'login-failed': 10,
  'login-limited': 5,
  'password-failed': 10,
  'recovery-requested': 10,
  'deletion-requested': 10,
};
/** What a request without a session can cause. */
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
  /** Where the request comes from. */
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
    // Of an administrator the account's owner learns neither device nor address.
    const from = event.by === undefined ? origin() : { device: '', address: '' };
    const { address } = from;
    // A stranger who sends these chooses the User-Agent: no text of theirs comes before the owner's eyes.
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
        // These first: they make room for the newcomer among their own.
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

/** Forgets all but the newest of a user, or of a user's one kind. */
function prune(db: Drizzle, userId: string, kept: number, kind?: EventKind): Statement {
  const ofUser = and(eq(events.userId, userId), kind && eq(events.kind, kind));
  return db.delete(events).where(
    sql`${events.id} in (select ${events.id} from ${events} where ${ofUser}
      order by ${events.atMs} desc, ${events.id} desc limit ${ALL} offset ${kept})`,
  );
}
