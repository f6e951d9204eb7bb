import { eq, lt } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database } from '../db/client';
import { DatabaseUnavailable } from '../db/client';
import { revokedTokens, sessions, users } from '../db/schema';
import { unavailable } from '../errors';
import type { RedisBatch } from '../redis/batch';
import type { RedisValue } from '../redis/client';
import { RedisError } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { blacklistMerge } from '../redis/scripts/blacklistMerge';
import { judgeVersions } from './blacklist/denials';
import type { LocalDenials, Verdict } from './blacklist/denials';
import { denialFields, recentDenials } from './blacklist/recent';
import type { RevocationFacts, RevocationMemo } from './blacklist/memo';
import { CLOCK_TOLERANCE_SECONDS } from './token/accessToken';
import type { AccessClaims } from './token/accessToken';
import type { EventEntry } from './event.service';
import type { OutboxService } from './outbox.service';
import { facade } from './scope';

export type { Verdict } from './blacklist/denials';

/** What decides while Redis is away: the database, everybody passes until the token expires, or nobody (503). */
export type RevocationFailurePolicy = 'd1' | 'open' | 'closed';

/**
 * Which tokens are revoked. Redis holds one hash a user: `ep` ends sessions issued before it, `av` access tokens,
 * `s:<sid>` one session, `j:<jti>` one token. A hash without `ep` means that Redis has lost it: D1 knows. `least` is an
 * epoch that Redis was told of in between.
 */
export interface BlacklistService {
  /** What this isolate knows without asking: it never accepts what it has revoked itself. */
  known(claims: AccessClaims): Verdict;
  /**
   * Denies one access token until it expires; its session goes on. Resolves once D1 has it.
   *
   * @param event for the account's history
   */
  revokeToken(claims: AccessClaims, event: EventEntry): Promise<void>;
  /** Forgets denials of tokens that have expired. */
  purge(): Promise<void>;
  /** Asks in the request's next pipeline; @throws {AppError} `SERVICE_UNAVAILABLE` when nobody can tell. */
  check(claims: AccessClaims, whenUnavailable?: RevocationFailurePolicy): Promise<Verdict>;
}

declare module './scope' {
  interface ServiceMap {
    blacklist: BlacklistService;
  }
}

export const BlacklistService: BlacklistService = facade('blacklist');

/** The hash outlives the longest refresh token: while it is there, what it does not deny is allowed. */
export function blacklistTtlMs(config: Config): number {
  return (config.tokens.refreshAbsoluteSeconds + 86_400) * 1_000;
}

export interface BlacklistDeps {
  batch: RedisBatch;
  database: Database;
  outbox: OutboxService;
  keys: Keys;
  config: Config;
  memo: RevocationMemo;
  denials: LocalDenials;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  degraded: (what: string) => void;
}

export function createBlacklistService(deps: BlacklistDeps): BlacklistService {
  const { batch, database, outbox, keys, config, memo, denials, waitUntil, now, degraded } = deps;

  async function readFacts(userId: string, sessionId: string): Promise<RevocationFacts> {
    const [user, session, tokens] = await database.run((db) =>
      db.batch([
        db.select({ epoch: users.epoch, accessVersion: users.accessVersion }).from(users).where(eq(users.id, userId)),
        db.select({ endedAtMs: sessions.endedAtMs }).from(sessions).where(eq(sessions.id, sessionId)),
        db.select({ id: revokedTokens.id }).from(revokedTokens).where(eq(revokedTokens.userId, userId)),
      ]),
    );
    if (user[0] === undefined) return null;
    const sessionEnded = session[0] === undefined || session[0].endedAtMs !== null;
    return { ...user[0], sessionEnded, revokedTokens: new Set(tokens.map(({ id }) => id)) };
  }

  /** One lookup at a time a session and isolate; a follower whose leader died asks for itself. */
  async function sharedFacts(userId: string, sessionId: string): Promise<RevocationFacts> {
    const known = memo.get(sessionId, now());
    if (known !== undefined) return known;
    const underWay = memo.underWay(sessionId);
    if (underWay !== undefined) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<'late'>((resolve) => {
        timer = setTimeout(() => resolve('late'), config.databaseDeadlineMs);
      });
      const facts = await Promise.race([underWay, late]).finally(() => clearTimeout(timer));
      if (facts !== 'late') return facts;
    }
    const lookup = memo.track(sessionId, readFacts(userId, sessionId), now);
    waitUntil(lookup.catch(() => undefined));
    return lookup;
  }

  async function fromDatabase(
    claims: AccessClaims,
    facts: (userId: string, sessionId: string) => Promise<RevocationFacts>,
  ): Promise<Verdict> {
    try {
      return judge(claims, await facts(claims.userId, claims.sessionId));
    } catch (error) {
      if (error instanceof DatabaseUnavailable) throw unavailable('The check for revoked tokens', 5, error);
      throw error;
    }
  }

  /** Redis answers but has lost this user's hash: it gets it back after the answer, with what D1 denies. */
  async function seed(userId: string): Promise<void> {
    const [user, recent] = await database.run((db) =>
      db.batch([
        db.select({ epoch: users.epoch, accessVersion: users.accessVersion }).from(users).where(eq(users.id, userId)),
        recentDenials(db, userId, config, now()),
      ]),
    );
    const denied = denialFields(recent);
    if (user[0] === undefined || denied === undefined) return;
    void batch.deferRun(
      blacklistMerge,
      [keys.blacklist(userId)],
      [blacklistTtlMs(config), ...denied, 'av', user[0].accessVersion, 'ep', user[0].epoch],
    );
  }

  async function ask(claims: AccessClaims, whenUnavailable: RevocationFailurePolicy): Promise<Verdict> {
    const { userId, sessionId, tokenId } = claims;
    let reply: RedisValue;
    try {
      reply = await batch.send('HMGET', keys.blacklist(userId), 'ep', 'av', `s:${sessionId}`, `j:${tokenId}`);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded(`revocation=${whenUnavailable}`);
      if (whenUnavailable === 'open') return 'valid';
      if (whenUnavailable === 'closed') throw unavailable('The check for revoked tokens', 5, error);
      return fromDatabase(claims, sharedFacts);
    }

    const [epoch, accessVersion, sessionDenied, tokenDenied] = Array.isArray(reply) ? reply : [];
    if (sessionDenied != null || tokenDenied != null) return 'revoked';
    if (epoch != null && Number.isSafeInteger(Number(epoch))) {
      return judgeVersions(claims, { epoch: Number(epoch), accessVersion: Number(accessVersion ?? 0) });
    }
    degraded('revocation=unknown');
    waitUntil(seed(userId).catch((error: unknown) => log('warn', 'blacklist.seed_failed', describeError(error))));
    // Asked anew: what was acknowledged a moment ago counts, although Redis has lost it since.
    return fromDatabase(claims, readFacts);
  }

  return {
    known: (claims) => denials.verdict(claims),

    async revokeToken({ userId, tokenId, expiresAt }, event) {
      const expiresAtMs = (expiresAt + CLOCK_TOLERANCE_SECONDS) * 1_000;
      const entry = outbox.prepare([{ kind: 'token-end', userId, tokenId, expiresAtMs }]);
      const committed = database.batch((db) => [
        ...event.statements(db),
        db.insert(revokedTokens).values({ id: tokenId, userId, expiresAtMs }).onConflictDoNothing(),
        ...entry.statements(db),
      ]);
      await Promise.all([committed, entry.deliver(committed)]);
    },

    async purge() {
      await database.run((db) => db.delete(revokedTokens).where(lt(revokedTokens.expiresAtMs, now() - 60_000)));
    },

    async check(claims, whenUnavailable = 'd1') {
      const verdict = await ask(claims, whenUnavailable);
      if (verdict === 'revoked') denials.endToken(claims.tokenId);
      // Something may have been revoked here while the question was on its way.
      return verdict === 'valid' ? denials.verdict(claims) : verdict;
    },
  };
}

function judge(claims: AccessClaims, facts: RevocationFacts): Verdict {
  if (facts === null || facts.sessionEnded || facts.revokedTokens.has(claims.tokenId)) return 'revoked';
  return judgeVersions(claims, facts);
}
