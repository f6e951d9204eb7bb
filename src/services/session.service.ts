import { and, desc, eq, gt, isNull, lt, ne, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { Database, Drizzle, Statement } from '../db/client';
import { greatest, least } from '../db/portable';
import { revokedTokens, sessions, users } from '../db/schema';
import type { SessionEndReason, SessionRow, UserRow } from '../db/schema';
import { AppError } from '../errors';
import type { RedisBatch } from '../redis/batch';
import { RedisError } from '../redis/errors';
import { userOfSession } from '../redis/keys';
import type { Keys } from '../redis/keys';
import { supersededUntil } from './blacklist/denials';
import type { LocalDenials } from './blacklist/denials';
import { recentDenials } from './blacklist/recent';
import type { AuditService } from './audit.service';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
import type { OutboxService } from './outbox.service';
import { facade } from './scope';
import { createAdministration } from './session/administration';
import type { SessionAdministration } from './session/administration';
import type { Device } from './session/device';
import { createEnding, isLive } from './session/ending';
import { createPublishing } from './session/publishing';
import type { Published } from './session/publishing';
import { createSessionRecords } from './session/record';
import type { SessionOwner } from './session/record';
import { createRefresh } from './session/refresh';
import type { FoundSession, RefreshOutcome, SessionTruth } from './session/refresh';
import { createRenewal } from './session/renewal';
import type { SessionRenewals } from './session/renewal';
import { began } from './session/statements';
import type { RefreshGrant } from './token.service';

export type { Device } from './session/device';

/** Session data of the app; `userId` is required. */
export interface SessionData {
  userId: string;
  email?: string;
  role?: string;
  [name: string]: unknown;
}

/** One entry in a user's list of devices. Times in milliseconds since the epoch. */
export interface DeviceSession extends Device {
  id: string;
  createdAtMs: number;
  lastSeenAtMs: number;
  expiresAtMs: number;
}

/** A session that is about to begin: its statements go into the batch of the change that starts it. */
export interface SessionStart {
  grant: RefreshGrant;
  /** The first statement returns a row unless the owner's sessions were ended, or the account disabled, in the meantime. */
  statements(db: Drizzle): Statement[];
  /** Writes the session to Redis, once D1 has committed. Never rejects because of Redis. */
  publish(): Promise<Published>;
}

/**
 * Device sessions. D1 is authoritative; Redis has a copy with the state of the refresh token. A session that is missing in
 * Redis has not necessarily ended.
 */
export interface SessionService extends SessionAdministration, SessionRenewals {
  /**
   * Stores a session under an id chosen by the app, `<userId>.<random>`.
   *
   * @throws {AppError} `CONFLICT` for the id of a session that has ended
   */
  createSession(sessionId: string, data: SessionData, ttlSeconds?: number): Promise<void>;
  /**
   * The stored data; for a device session, with its owner's present role. `null` for a session that does not exist, has
   * ended or has expired.
   */
  getSession<T extends object = SessionData>(sessionId: string): Promise<T | null>;
  /**
   * Ends a session: its tokens are refused from now on. False if it did not exist or had already ended.
   *
   * @param by the administrator who ends it
   */
  deleteSession(sessionId: string, reason?: SessionEndReason, by?: string): Promise<boolean>;
  /**
   * Ends the session of a genuine token. If D1 has already recorded its end, or does not know the session (D1 was restored
   * from a backup), the end is delivered to Redis again, because Redis has just accepted the token.
   */
  ensureEnded(sessionId: string, reason: SessionEndReason): Promise<void>;

  /** A session and its owner, from D1. */
  find(sessionId: string): Promise<FoundSession | undefined>;
  /**
   * The owner of a session in which tokens of this epoch are valid; `undefined` once the session has ended or expired, its
   * user's sessions were ended, or the account was disabled or deleted. One query.
   */
  ownerOfLive(grant: Pick<RefreshGrant, 'sessionId' | 'epoch'>): Promise<UserRow | undefined>;
  prepareStart(owner: SessionOwner, device: Device): Promise<SessionStart>;
  refresh(grant: RefreshGrant): Promise<RefreshOutcome>;
  /** Live sessions, last seen first. */
  list(userId: string): Promise<DeviceSession[]>;
  /** Deletes sessions whose tokens have all expired. */
  purge(): Promise<void>;
  /**
   * Counts a password that is about to be checked in a session as wrong, so that concurrent attempts cannot pass together.
   * A correct password resets the count. At the limit the session ends: a thief of its token can guess no more, and the
   * owner must sign in again.
   *
   * @throws {AppError} `TOKEN_REVOKED` for a session that has ended
   */
  countPassword(sessionId: string): Promise<{ isLast: boolean }>;
}

declare module './scope' {
  interface ServiceMap {
    session: SessionService;
  }
}

export const SessionService: SessionService = facade('session');

/** The most consecutive wrong passwords in one session. */
const SESSION_PASSWORD_FAILURES = 20;
export interface SessionDeps {
  batch: RedisBatch;
  database: Database;
  outbox: OutboxService;
  event: EventService;
  audit: AuditService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  keys: Keys;
  config: Config;
  denials: LocalDenials;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  degraded: (what: string) => void;
}

/** The user of a session id. */
export const sessionOwner = userOfSession;

function newSessionId(userId: string): string {
  return `${userId}.${Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('base64url')}`;
}

export function createSessionService(deps: SessionDeps): SessionService {
  const { database, outbox, idempotency, config, denials, waitUntil, now, degraded } = deps;
  const { refreshIdleSeconds, refreshAbsoluteSeconds, refreshGraceSeconds, sessionsPerUser } = config.tokens;
  const idleMs = refreshIdleSeconds * 1_000;
  const records = createSessionRecords(deps);
  const { publish, publishSession, raiseVersions } = createPublishing({ database, records, degraded });
  const { prepareEnds, end } = createEnding(deps);

  /** When a session expires, by its last use and its absolute expiry. */
  const endsAt = () => least(sql`${sessions.lastSeenAtMs} + ${idleMs}`, sessions.expiresAtMs);
  /** Live device sessions. The app's own sessions, which have no device, are neither counted nor listed. */
  const alive = (userId: string) =>
    and(eq(sessions.userId, userId), isNull(sessions.endedAtMs), gt(endsAt(), now()), ne(sessions.device, ''));

  /** When sessions were last used, according to Redis. */
  async function seenOf(sessionIds: readonly string[]): Promise<Map<string, number>> {
    try {
      return await records.lastSeen(sessionIds);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('session=d1');
      return new Map();
    }
  }

  async function rowAndOwner(sessionId: string): Promise<FoundSession | undefined> {
    // No join: in a batch, columns with the same name from two tables are merged into one.
    const [[session], [owner], denied] = await database.batch((db) => [
      db.select().from(sessions).where(eq(sessions.id, sessionId)),
      db
        .select()
        .from(users)
        .where(eq(users.id, db.select({ id: sessions.userId }).from(sessions).where(eq(sessions.id, sessionId)))),
      recentDenials(db, userOfSession(sessionId), config, now()),
    ]);
    if (session === undefined) return undefined;
    // The app's own data stay as stored; a device's data follow its owner's present state.
    const data = owner !== undefined && session.device !== '' ? dataOf(owner) : session.data;
    const known = deniedOf(sessionId, session.userId, denied);
    return { session: { ...session, data }, owner: owner ?? null, denied: known };
  }

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
      records.endLater({ sessionId, reason, expiresAtMs });
      if (truth?.owner != null) records.raiseLater(userOfSession(sessionId), truth.owner);
    },
    raise: (owner) => records.raiseLater(owner.id, owner),
    catchUp: async (userId, versions) => {
      const raised = raiseVersions(userId, versions);
      waitUntil(raised.catch((error: unknown) => log('warn', 'session.catch_up_failed', describeError(error))));
      await raised;
    },
  });

  /** Records a refresh in D1, with the access token that it has ended. */
  async function refreshed({ grant, rotated, tokenId, superseded }: RefreshOutcome & { status: 'ok' }): Promise<void> {
    const { sessionId, generation } = grant;
    const userId = userOfSession(sessionId);
    const untilMs = supersededUntil(config, now());
    if (superseded !== undefined) denials.endToken(superseded, 'superseded');
    const entry =
      superseded === undefined
        ? undefined
        : outbox.prepare([{ kind: 'token-end', userId, tokenId: superseded, expiresAtMs: untilMs }]);
    const isNewest = sql`${sessions.generation} <= ${generation}`;
    await database.batch((db) => [
      db
        .update(sessions)
        .set({
          lastSeenAtMs: now(),
          generation: greatest(sessions.generation, generation),
          // Without a rotation, the token's generation may be older than D1's.
          ...(rotated && { tokenId: sql`case when ${isNewest} then ${tokenId} else ${sessions.tokenId} end` }),
        })
        .where(and(eq(sessions.id, sessionId), isNull(sessions.endedAtMs))),
      ...(superseded === undefined
        ? []
        : [db.insert(revokedTokens).values({ id: superseded, userId, expiresAtMs: untilMs }).onConflictDoNothing()]),
      ...(entry?.statements(db) ?? []),
    ]);
    // Deliver the denial again: Redis may lose the script's write.
    if (entry !== undefined) waitUntil(entry.deliver());
  }

  const service: SessionService = {
    ...createAdministration({ ...deps, lastSeen: (ids) => seenOf(ids), idleMs }),
    ...createRenewal({ publishSession, isAlive, now }),

    async createSession(sessionId, data, ttlSeconds = refreshIdleSeconds) {
      const createdAtMs = now();
      const text = JSON.stringify(data);
      const [[owner], denied] = await database.batch((db) => [
        db.select().from(users).where(eq(users.id, data.userId)),
        recentDenials(db, data.userId, config, createdAtMs),
      ]);
      const epoch = owner?.epoch ?? 1;
      const session = { id: sessionId, data: text, epoch, expiresAtMs: createdAtMs + ttlSeconds * 1_000 };
      // The session lives for its TTL. It is never refreshed, so it must not become idle earlier.
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
      if (written.length === 0) throw new AppError('CONFLICT', { detail: 'A session with this id has ended.' });
      const versions = { role: owner?.role ?? 'user', epoch, accessVersion: owner?.accessVersion ?? 1 } as const;
      const known = deniedOf(sessionId, data.userId, denied);
      const state = { session, owner: versions, generation: 1, confirmed: 0, denied: known, replace: true };
      await publish([records.write(state)]);
    },

    async getSession<T extends object = SessionData>(sessionId: string) {
      if (denials.ends(sessionId)) return null;
      try {
        const data = await records.data(sessionId, denials.versionsOf(userOfSession(sessionId)));
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
      const { generation, tokenId } = session;
      records.writeLater({ session, owner, generation, confirmed: generation - 1, tokenId, denied });
      return JSON.parse(session.data) as T;
    },

    async deleteSession(sessionId, reason = 'revoked', by) {
      const row = await rowAndOwner(sessionId);
      // Not `isAlive`: the session may have been used since D1's last record of its use, and only Redis knows.
      if (row === undefined || row.session.endedAtMs !== null || row.session.expiresAtMs <= now()) return false;
      await end(row.session, reason, by);
      return true;
    },

    async ensureEnded(sessionId, reason) {
      if (await service.deleteSession(sessionId, reason)) return;
      const known = await readTruth(sessionId);
      const expiresAtMs = known?.session.expiresAtMs ?? now() + refreshAbsoluteSeconds * 1_000;
      if (expiresAtMs <= now()) return;
      const ended = known?.session.endedReason ?? reason;
      const entry = outbox.prepare([{ kind: 'session-end', sessionId, reason: ended, expiresAtMs }]);
      await idempotency.batch((db) => entry.statements(db));
      await entry.deliver();
    },

    find: rowAndOwner,

    async ownerOfLive({ sessionId, epoch }) {
      if (denials.ends(sessionId, epoch)) return undefined;
      const truth = await readTruth(sessionId);
      if (truth?.owner == null || truth.owner.status !== 'active' || !isAlive(truth.session)) return undefined;
      return Math.min(epoch, truth.session.epoch) < truth.owner.epoch ? undefined : truth.owner;
    },

    async prepareStart(owner, { device, address }) {
      const createdAtMs = now();
      const [active, denied] = await database.batch((db) => [
        db
          .select({ id: sessions.id, expiresAtMs: sessions.expiresAtMs })
          .from(sessions)
          .where(alive(owner.id))
          .orderBy(desc(endsAt()))
          .limit(1_000),
        recentDenials(db, owner.id, config, createdAtMs),
      ]);
      const id = newSessionId(owner.id);
      // If the new session begins, evict those that would expire first.
      const evicted = prepareEnds(active.slice(sessionsPerUser - 1), 'evicted', isLive(id));
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
      const outcome = await refresh(grant, crypto.randomUUID());
      const { sessionId, expiresAtMs } = grant;
      if (outcome.status === 'reuse') {
        await end({ id: sessionId, userId: userOfSession(sessionId), expiresAtMs }, 'reuse');
      } else if (outcome.status === 'ok') {
        const seen = refreshed(outcome);
        waitUntil(seen.catch((error: unknown) => log('warn', 'session.seen_failed', describeError(error))));
        // The response acknowledges it, so D1 must have recorded it. But an outage of D1 does not stop the refresh.
        if (outcome.superseded !== undefined) {
          await seen.catch((error: unknown) => {
            if (!(error instanceof DatabaseUnavailable)) throw error;
          });
        }
      }
      return outcome;
    },

    async list(userId) {
      const rows = await database.run((db) => db.select().from(sessions).where(alive(userId)).limit(1_000));
      const seen = await seenOf(rows.map(({ id }) => id));
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

    async countPassword(sessionId) {
      const [counted] = await database.run((db) =>
        db
          .update(sessions)
          .set({ passwordFailures: sql`${sessions.passwordFailures} + 1` })
          .where(
            and(
              eq(sessions.id, sessionId),
              isNull(sessions.endedAtMs),
              lt(sessions.passwordFailures, SESSION_PASSWORD_FAILURES),
            ),
          )
          .returning({ failed: sessions.passwordFailures }),
      );
      if (counted === undefined) throw new AppError('TOKEN_REVOKED');
      return { isLast: counted.failed === SESSION_PASSWORD_FAILURES };
    },
  };
  return service;
}

/** The result of `getSession` for a device. */
const dataOf = ({ id, email, role }: SessionOwner) => JSON.stringify({ userId: id, email, role });

/**
 * A session's denials are in the slot of the user in its id. An id in another form belongs to another slot, so the user's
 * denials do not cover it, and D1 keeps deciding.
 */
function deniedOf<T>(sessionId: string, userId: string, denied: T): T | undefined {
  return userOfSession(sessionId) === userId ? denied : undefined;
}
