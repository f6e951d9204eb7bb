import { and, desc, eq, gt, inArray, isNull, lt, ne, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { chunks, DatabaseUnavailable, isUniqueViolation } from '../db/client';
import type { Database, Drizzle, Statement } from '../db/client';
import { sessions, users } from '../db/schema';
import type { SessionEndReason, SessionRow, UserRow } from '../db/schema';
import { AppError } from '../errors';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { userOfSession } from '../redis/keys';
import type { Keys } from '../redis/keys';
import type { LocalDenials, Versions } from './blacklist/denials';
import { recentDenials } from './blacklist/recent';
import type { EventKind, EventService } from './event.service';
import type { OutboxMessage, OutboxService } from './outbox.service';
import { retry } from './retry';
import { facade } from './scope';
import { createSessionRecords } from './session/record';
import type { SessionOwner, SessionState } from './session/record';
import type { Device } from './session/device';
import { createRefresh } from './session/refresh';
import type { FoundSession, RefreshOutcome, SessionTruth } from './session/refresh';
import { began, whileOwner } from './session/statements';
import type { RefreshGrant } from './token.service';

export type { Device } from './session/device';

/** An app's own session data; `userId` is required. */
export interface SessionData {
  userId: string;
  email?: string;
  role?: string;
  [name: string]: unknown;
}

/** One line of a user's list of devices. Times in milliseconds since the epoch. */
export interface DeviceSession extends Device {
  id: string;
  createdAtMs: number;
  lastSeenAtMs: number;
  expiresAtMs: number;
}

/**
 * What became of a session that Redis was told of: its tokens may be issued, or must carry the versions of this owner, or
 * it was ended meanwhile.
 */
export type Published = 'current' | 'ended' | UserRow;

/** A session that is about to begin: its statements go into the batch that causes it. */
export interface SessionStart {
  grant: RefreshGrant;
  /** The first one returns a row unless the owner's sessions were ended, or the account disabled, meanwhile. */
  statements(db: Drizzle): Statement[];
  /** Tells Redis, once D1 has committed. Never rejects because of Redis. */
  publish(): Promise<Published>;
}

/** A session that goes on while all others of its user end. */
export interface SessionRenewal {
  /**
   * Returns the session's id unless it ended meanwhile; goes after the statement that raises the epoch.
   *
   * @param when a condition on the owner's row: without it nothing is done
   */
  statement(db: Drizzle, when: SQL): Statement;
  grant(owner: SessionOwner): RefreshGrant;
  /** Tells Redis, once D1 has committed. Never rejects because of Redis. */
  publish(owner: SessionOwner): Promise<Published>;
}

/**
 * Device sessions. D1 is the truth; Redis has a copy with the state of the refresh token. A session that Redis does not
 * know is not an ended one.
 */
export interface SessionService {
  /**
   * Stores a session under an id of the app's own, `<userId>.<random>`.
   *
   * @throws {AppError} `CONFLICT` for the id of a session that has ended
   */
  createSession(sessionId: string, data: SessionData, ttlSeconds?: number): Promise<void>;
  /** The data as they were stored, those of a device with its owner's role of today; `null` for a session that does not exist, has ended or has expired. */
  getSession<T extends object = SessionData>(sessionId: string): Promise<T | null>;
  /** Ends a session: its tokens are refused from now on. False when there was none, or it had ended already. */
  deleteSession(sessionId: string, reason?: SessionEndReason): Promise<boolean>;
  /**
   * Ends the session of a token of ours. Where D1 holds it as ended already, or does not know it (it was restored from a
   * backup), Redis is told again: it has just taken the token for good.
   */
  ensureEnded(sessionId: string, reason: SessionEndReason): Promise<void>;

  /** A session and its owner as D1 has them. */
  find(sessionId: string): Promise<FoundSession | undefined>;
  prepareStart(owner: SessionOwner, device: Device): Promise<SessionStart>;
  refresh(grant: RefreshGrant): Promise<RefreshOutcome>;
  /** Live sessions, last seen first. */
  list(userId: string): Promise<DeviceSession[]>;
  /** Forgets sessions whose every token has expired. */
  purge(): Promise<void>;
  /** For the batch that raises the owner's epoch: this session goes on under the new one. */
  prepareRenewal(found: Pick<FoundSession, 'session' | 'denied'>, shownGeneration: number): SessionRenewal;
}

declare module './scope' {
  interface ServiceMap {
    session: SessionService;
  }
}

export const SessionService: SessionService = facade('session');

/** How a session's end stands in its account's history. */
const ENDINGS: Partial<Record<SessionEndReason, EventKind>> = {
  logout: 'logout',
  revoked: 'session-revoked',
  reuse: 'refresh-reuse',
};

/** D1 binds at most 100 values a statement. */
const IDS_A_STATEMENT = 90;
/** Pauses between attempts to record an end after its answer. */
const RECORD_WAITS_MS = [250, 1_000, 4_000, 10_000];
/** More refreshes than there can be of which a renewal does not know: since it read D1, or D1 was last told. */
const RENEWAL_LEAD = 1_000;
/** Versions that are further ahead than this are not believed. */
const MOST_BEHIND = 1_000_000;

export interface SessionDeps {
  batch: RedisBatch;
  database: Database;
  outbox: OutboxService;
  event: EventService;
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  degraded: (what: string) => void;
}

/** The user that a session id belongs to. */
export const sessionOwner = userOfSession;

function newSessionId(userId: string): string {
  return `${userId}.${Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url')}`;
}

export function createSessionService(deps: SessionDeps): SessionService {
  const { database, outbox, event, config, denials, waitUntil, now, degraded } = deps;
  const { refreshIdleSeconds, refreshAbsoluteSeconds, refreshGraceSeconds, sessionsPerUser } = config.tokens;
  const idleMs = refreshIdleSeconds * 1_000;
  const records = createSessionRecords(deps);

  /** What a session is until, by its use. */
  const endsAt = () => sql<number>`min(${sessions.lastSeenAtMs} + ${idleMs}, ${sessions.expiresAtMs})`;
  /** Live device sessions; the app's own, which name no device, are neither counted nor listed. */
  const alive = (userId: string) =>
    and(eq(sessions.userId, userId), isNull(sessions.endedAtMs), gt(endsAt(), now()), ne(sessions.device, ''));

  /** Redis's copy can wait: a session it does not know is read from D1. */
  async function publish(calls: Promise<unknown>[]): Promise<void> {
    try {
      await Promise.all(calls);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('session=d1');
    }
  }

  async function rowAndOwner(sessionId: string): Promise<FoundSession | undefined> {
    // No join: in a batch, columns of one name from two tables collapse into one.
    const [[session], [owner], denied] = await database.run((db) =>
      db.batch([
        db.select().from(sessions).where(eq(sessions.id, sessionId)),
        db
          .select()
          .from(users)
          .where(eq(users.id, db.select({ id: sessions.userId }).from(sessions).where(eq(sessions.id, sessionId)))),
        recentDenials(db, userOfSession(sessionId), config, now()),
      ]),
    );
    if (session === undefined) return undefined;
    // The app's own data are as they were stored, a device's what its owner is today.
    const data = owner !== undefined && session.device !== '' ? dataOf(owner) : session.data;
    const known = deniedOf(sessionId, session.userId, denied);
    return { session: { ...session, data }, owner: owner ?? null, denied: known };
  }

  const isLive = (sessionId: string) =>
    sql`exists (select 1 from ${sessions} where ${sessions.id} = ${sessionId} and ${sessions.endedAtMs} is null)`;

  const isAlive = (session: SessionRow) =>
    session.endedAtMs === null && Math.min(session.lastSeenAtMs + idleMs, session.expiresAtMs) > now();

  /** One query. */
  async function readTruth(sessionId: string): Promise<SessionTruth | undefined> {
    const [row] = await database.run((db) =>
      db
        .select({ session: sessions, owner: users })
        .from(sessions)
        .leftJoin(users, eq(users.id, sessions.userId))
        .where(eq(sessions.id, sessionId)),
    );
    return row;
  }

  const refresh = createRefresh({
    records,
    read: readTruth,
    find: rowAndOwner,
    idleMs,
    graceMs: refreshGraceSeconds * 1_000,
    now,
    degraded,
    correct: ({ sessionId, expiresAtMs }, truth) => {
      denials.endSession(sessionId);
      const reason = truth?.session.endedReason ?? 'revoked';
      records.endLater({ sessionId, reason, expiresAtMs }, truth?.owner ?? undefined);
    },
    catchUp: async (userId, versions) => {
      const raised = raiseVersions(userId, versions);
      waitUntil(raised.catch((error: unknown) => log('warn', 'session.catch_up_failed', describeError(error))));
      await raised;
    },
  });

  /**
   * D1 has gone back in time (it was restored from a backup) when Redis, or a token, carries larger versions of a user: D1
   * goes on from those, since tokens under smaller ones are refused.
   */
  async function raiseVersions(userId: string, { epoch, accessVersion }: Versions): Promise<UserRow | undefined> {
    const [owner] = await database.run((db) =>
      db
        .update(users)
        .set({
          epoch: sql`max(${users.epoch}, ${epoch})`,
          accessVersion: sql`max(${users.accessVersion}, ${accessVersion})`,
        })
        .where(eq(users.id, userId))
        .returning(),
    );
    return owner;
  }

  /**
   * Writes the record of a session that was begun or renewed in D1.
   *
   * @returns the versions that its tokens must carry, where they are not those of `state`; `ended` when the session was
   *   ended meanwhile
   */
  async function publishSession(state: SessionState & { owner: SessionOwner }): Promise<Published> {
    let known: Versions | undefined;
    try {
      [, known] = await Promise.all([records.write(state), records.versions(state.owner.id)]);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('session=d1');
    }
    const { owner, session } = state;
    if (known === undefined || (known.epoch <= owner.epoch && known.accessVersion <= owner.accessVersion))
      return 'current';
    // Overtaken by a logout everywhere or a new role, or D1 was restored from a backup.
    if (known.epoch - owner.epoch > MOST_BEHIND || known.accessVersion - owner.accessVersion > MOST_BEHIND)
      return 'current';
    const raised = await raiseVersions(owner.id, known);
    const [renewed] = await database.run((db) =>
      db
        .update(sessions)
        .set({ epoch: sql`(select ${users.epoch} from ${users} where ${users.id} = ${owner.id})` })
        .where(and(eq(sessions.id, session.id), isNull(sessions.endedAtMs)))
        .returning({ id: sessions.id }),
    );
    if (raised === undefined || renewed === undefined) return 'ended';
    await publish([records.write({ ...state, session: { ...session, epoch: raised.epoch }, owner: raised })]);
    return raised;
  }

  /** Marks sessions ended in D1 and leaves the message for Redis, as one transaction; nothing of it without `when`. */
  function ending(ended: readonly Pick<SessionRow, 'id' | 'expiresAtMs'>[], reason: SessionEndReason, when?: SQL) {
    const messages = ended.map(({ id, expiresAtMs }): OutboxMessage => ({
      kind: 'session-end',
      sessionId: id,
      reason,
      expiresAtMs,
    }));
    const entry = outbox.prepare(messages, when);
    const ids = ended.map(({ id }) => id);
    const statements = (db: Drizzle): Statement[] => [
      ...chunks(ids, IDS_A_STATEMENT).map((chunk) =>
        db
          .update(sessions)
          .set({ endedAtMs: now(), endedReason: reason })
          .where(and(inArray(sessions.id, chunk), isNull(sessions.endedAtMs), when)),
      ),
      ...entry.statements(db),
    ];
    return { entry, statements };
  }

  async function end(
    { id, userId, expiresAtMs }: Pick<SessionRow, 'id' | 'userId' | 'expiresAtMs'>,
    reason: SessionEndReason,
  ): Promise<void> {
    const { entry, statements } = ending([{ id, expiresAtMs }], reason);
    const kind = ENDINGS[reason];
    const happened = kind && event.prepare({ kind, userId, sessionId: id }, isLive(id));
    const record = () => database.batch((db) => [...(happened?.statements(db) ?? []), ...statements(db)]);
    // Together: the answer waits for both, and counts on D1 alone.
    const committed = record();
    try {
      // But a replay Redis has found out by itself, and goes on to say so until it is told that D1 knows.
      if (reason === 'reuse') await committed;
      await Promise.all([committed, entry.deliver(committed)]);
    } catch (error) {
      // Whoever asks again may be refused as signed out, because Redis has been told: D1 must hear of it all the same.
      if (error instanceof DatabaseUnavailable) waitUntil(recorded(record));
      throw error;
    }
    happened?.report();
  }

  async function recorded(record: () => Promise<unknown>): Promise<void> {
    try {
      await retry(record, { waitsMs: RECORD_WAITS_MS, isFinal: isUniqueViolation });
    } catch (error) {
      // Its rows are there: only the answer was lost.
      if (!isUniqueViolation(error)) log('error', 'session.end_lost', describeError(error));
    }
  }

  const service: SessionService = {
    async createSession(sessionId, data, ttlSeconds = refreshIdleSeconds) {
      const createdAtMs = now();
      const text = JSON.stringify(data);
      const [[owner], denied] = await database.run((db) =>
        db.batch([
          db.select().from(users).where(eq(users.id, data.userId)),
          recentDenials(db, data.userId, config, createdAtMs),
        ]),
      );
      const epoch = owner?.epoch ?? 1;
      const session = { id: sessionId, data: text, epoch, expiresAtMs: createdAtMs + ttlSeconds * 1_000 };
      // Its life is its TTL: nothing refreshes it, so it must not count as idle before.
      const lastSeenAtMs = Math.max(createdAtMs, session.expiresAtMs - idleMs);
      const written = await database.run((db) =>
        db
          .insert(sessions)
          .values({ ...session, userId: data.userId, device: '', address: '', createdAtMs, lastSeenAtMs })
          .onConflictDoUpdate({
            target: sessions.id,
            set: { data: text, epoch, lastSeenAtMs, expiresAtMs: session.expiresAtMs },
            setWhere: isNull(sessions.endedAtMs),
          })
          .returning({ id: sessions.id }),
      );
      if (written.length === 0) throw new AppError('CONFLICT', { detail: 'A session of this id has ended.' });
      const versions = { role: owner?.role ?? 'user', epoch, accessVersion: owner?.accessVersion ?? 1 } as const;
      const known = deniedOf(sessionId, data.userId, denied);
      const state = { session, owner: versions, generation: 1, confirmed: 0, denied: known, replace: true };
      await publish([records.write(state)]);
    },

    async getSession<T extends object = SessionData>(sessionId: string) {
      if (denials.ends(sessionId)) return null;
      try {
        const data = await records.data(sessionId);
        if (data !== undefined) return data === null ? null : (JSON.parse(data) as T);
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('session=d1');
      }
      const row = await rowAndOwner(sessionId);
      if (row === undefined || !isAlive(row.session)) return null;
      const { session, denied } = row;
      const owner = row.owner ?? { role: 'user' as const, epoch: session.epoch, accessVersion: 1 };
      if (session.epoch < owner.epoch) return null;
      const { generation } = session;
      records.writeLater({ session, owner, generation, confirmed: generation - 1, denied });
      return JSON.parse(session.data) as T;
    },

    async deleteSession(sessionId, reason = 'revoked') {
      const row = await rowAndOwner(sessionId);
      // Not `isAlive`: it may have been used since D1 was last told so, and Redis knows.
      if (row === undefined || row.session.endedAtMs !== null || row.session.expiresAtMs <= now()) return false;
      await end(row.session, reason);
      return true;
    },

    async ensureEnded(sessionId, reason) {
      if (await service.deleteSession(sessionId, reason)) return;
      const known = await readTruth(sessionId);
      const expiresAtMs = known?.session.expiresAtMs ?? now() + refreshAbsoluteSeconds * 1_000;
      if (expiresAtMs <= now()) return;
      const ended = known?.session.endedReason ?? reason;
      const entry = outbox.prepare([{ kind: 'session-end', sessionId, reason: ended, expiresAtMs }]);
      await database.batch((db) => entry.statements(db));
      await entry.deliver();
    },

    find: rowAndOwner,

    async prepareStart(owner, { device, address }) {
      const createdAtMs = now();
      const [active, denied] = await database.run((db) =>
        db.batch([
          db
            .select({ id: sessions.id, expiresAtMs: sessions.expiresAtMs })
            .from(sessions)
            .where(alive(owner.id))
            .orderBy(desc(endsAt()))
            .limit(1_000),
          recentDenials(db, owner.id, config, createdAtMs),
        ]),
      );
      const id = newSessionId(owner.id);
      // Those that would expire first leave, for a session that does begin.
      const evicted = ending(active.slice(sessionsPerUser - 1), 'evicted', isLive(id));
      const session = {
        id,
        userId: owner.id,
        device,
        address,
        createdAtMs,
        lastSeenAtMs: createdAtMs,
        expiresAtMs: createdAtMs + refreshAbsoluteSeconds * 1_000,
        epoch: owner.epoch,
        data: dataOf(owner),
      };
      const { id: sessionId, expiresAtMs, epoch } = session;
      return {
        grant: { sessionId, generation: 1, epoch, expiresAtMs },
        statements: (db) => [
          db.insert(sessions).select(began(db, session)).returning({ id: sessions.id }),
          ...evicted.statements(db),
        ],
        publish: async () => {
          const state = { session, owner, generation: 1, confirmed: 0, denied };
          const [published] = await Promise.all([publishSession(state), evicted.entry.deliver()]);
          return published;
        },
      };
    },

    async refresh(grant) {
      if (denials.ends(grant.sessionId, grant.epoch)) return { status: 'revoked' };
      const outcome = await refresh(grant);
      const { sessionId, expiresAtMs } = grant;
      if (outcome.status === 'reuse') {
        await end({ id: sessionId, userId: userOfSession(sessionId), expiresAtMs }, 'reuse');
      } else if (outcome.status === 'ok') {
        const { generation } = outcome.grant;
        const seen = database.run((db) =>
          db
            .update(sessions)
            .set({ lastSeenAtMs: now(), generation: sql`max(${sessions.generation}, ${generation})` })
            .where(and(eq(sessions.id, sessionId), isNull(sessions.endedAtMs))),
        );
        waitUntil(seen.catch((error: unknown) => log('warn', 'session.seen_failed', describeError(error))));
      }
      return outcome;
    },

    async list(userId) {
      const rows = await database.run((db) => db.select().from(sessions).where(alive(userId)).limit(1_000));
      let seen = new Map<string, number>();
      try {
        seen = await records.lastSeen(rows.map(({ id }) => id));
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        degraded('session=d1');
      }
      return rows
        .map(({ id, device, address, createdAtMs, lastSeenAtMs, expiresAtMs }) => ({
          id,
          device,
          address,
          createdAtMs,
          lastSeenAtMs: Math.min(now(), Math.max(lastSeenAtMs, seen.get(id) ?? 0)),
          expiresAtMs,
        }))
        .sort((a, b) => b.lastSeenAtMs - a.lastSeenAtMs);
    },

    async purge() {
      await database.run((db) => db.delete(sessions).where(lt(sessions.expiresAtMs, now() - 3_600_000)));
    },

    prepareRenewal({ session, denied }, shownGeneration) {
      const { id, userId, expiresAtMs } = session;
      // Ahead of anything that Redis may know, so that it is adopted wherever it is shown first.
      const generation = Math.max(session.generation, shownGeneration) + RENEWAL_LEAD;
      return {
        statement: (db, when) =>
          db
            .update(sessions)
            .set({ epoch: sql`(select ${users.epoch} from ${users} where ${users.id} = ${userId})`, generation })
            .where(and(eq(sessions.id, id), isNull(sessions.endedAtMs), whileOwner(userId, when)))
            .returning({ id: sessions.id }),
        grant: ({ epoch }) => ({ sessionId: id, generation, epoch, expiresAtMs }),
        publish: (owner) => {
          const renewed = { ...session, epoch: owner.epoch };
          return publishSession({ session: renewed, owner, generation, confirmed: generation - 1, denied });
        },
      };
    },
  };
  return service;
}

/** What `getSession` gives for a device. */
const dataOf = ({ id, email, role }: SessionOwner) => JSON.stringify({ userId: id, email, role });

/**
 * A session's denials live in the slot that its id names. Under an id of another form that is nobody's, or somebody
 * else's: what is known of the user says nothing there, and D1 stays the one to ask.
 */
function deniedOf<T>(sessionId: string, userId: string, denied: T): T | undefined {
  return userOfSession(sessionId) === userId ? denied : undefined;
}
