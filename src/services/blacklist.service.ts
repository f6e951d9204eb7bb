import { lt } from 'drizzle-orm';

import type { Config } from '../config/env';
import type { Database } from '../db/client';
import { DatabaseUnavailable } from '../db/client';
import { revokedTokens } from '../db/schema';
import { unavailable } from '../errors';
import type { RedisBatch } from '../redis/batch';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { blacklistMerge } from '../redis/scripts/blacklistMerge';
import { judgeVersions } from './blacklist/denials';
import type { LocalDenials, RevocationVerdict } from './blacklist/denials';
import { judge, readFacts } from './blacklist/facts';
import type { FoundFacts } from './blacklist/facts';
import type { RevocationMemo } from './blacklist/memo';
import { denialFields } from './blacklist/recent';
import { parseRevocation } from './blacklist/reply';
import type { RevocationReply } from './blacklist/reply';
import { blacklistTtlMs } from './blacklist/ttl';
import { CLOCK_TOLERANCE_SECONDS } from './token/accessToken';
import type { AccessClaims } from './token/accessToken';
import type { EventEntry } from './event.service';
import { isOf, questionOf } from './blacklist/remembered';
import type { RememberedRevocation } from './blacklist/remembered';
import type { Lookups } from './lookups';
import type { Refresher } from './memory/refresher';
import { isDue, isWithin } from './memory/remembered';
import type { Remembered } from './memory/remembered';
import type { OutboxService } from './outbox.service';
import type { RequestAccounts } from './requestAccounts';
import { facade } from './scope';

export type { RevocationVerdict } from './blacklist/denials';

/**
 * The decision about tokens while Redis is away. `d1`: ask the database. `open`: accept every token until it expires.
 * `closed`: refuse all (503).
 */
export type RevocationFailurePolicy = 'd1' | 'open' | 'closed';

/**
 * Checks and records revocations. Redis holds one hash per user: `ep` ends sessions issued before it, `av` access tokens,
 * `s:<sid>` one session, `j:<jti>` one token. A hash without `ep` means that Redis has lost the hash and D1 must be asked.
 * `least` is an epoch that was delivered to Redis while `ep` was missing.
 */
export interface BlacklistService {
  /** The verdict from this isolate's memory, so the isolate never accepts a token that it has revoked itself. */
  known(claims: AccessClaims): RevocationVerdict;
  /**
   * Denies one access token until it expires; its session continues. Resolves once D1 has recorded it.
   *
   * @param event for the account's history
   */
  revokeToken(claims: AccessClaims, event: EventEntry): Promise<void>;
  /** Deletes denials of expired tokens. */
  purge(): Promise<void>;
  /**
   * Checks the token with the request's next pipeline.
   *
   * @param withinMs for how long this isolate may reuse Redis's reply; 0: never
   * @throws {AppError} `SERVICE_UNAVAILABLE` when neither Redis nor D1 responds
   */
  check(claims: AccessClaims, whenUnavailable?: RevocationFailurePolicy, withinMs?: number): Promise<RevocationVerdict>;
  /**
   * Whether Redis has allowed this token at most `withinMs` ago, and this isolate knows of no revocation since.
   *
   * @returns a function to call when the request relies on it. If the reply expires soon, it schedules a new check after
   *   the response. `undefined`: Redis must be asked now
   */
  recall(claims: AccessClaims, withinMs: number): (() => void) | undefined;
}

declare module './scope' {
  interface ServiceMap {
    blacklist: BlacklistService;
  }
}

export const BlacklistService: BlacklistService = facade('blacklist');

export interface BlacklistDeps {
  batch: RedisBatch;
  database: Database;
  outbox: OutboxService;
  keys: Keys;
  config: Config;
  memo: RevocationMemo;
  /** Limits the isolate's queries to D1 while Redis has no data. */
  lookups: Lookups;
  /** The current request's, to keep the user's row that a lookup returns. */
  accounts: () => RequestAccounts;
  denials: LocalDenials;
  /** Tokens that Redis has allowed recently. */
  revocations: Remembered<RememberedRevocation>;
  refresher: Refresher;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
  degraded: (what: string) => void;
}

/** How much longer than a lookup its followers wait. */
const LOOKUP_SLACK_MS = 500;

export function createBlacklistService(deps: BlacklistDeps): BlacklistService {
  const { batch, database, outbox, keys, config, memo, lookups, accounts, denials, waitUntil, now, degraded } = deps;
  const { revocations, refresher } = deps;
  const lostAfterMs = config.databaseDeadlineMs + LOOKUP_SLACK_MS;

  /** Asks D1. If Redis has lost the user's hash, restores it after the response. */
  async function lookUp(claims: AccessClaims, lost: boolean): Promise<FoundFacts> {
    const found = await lookups.run(() => readFacts(claims, { database, config, now, withDenials: lost }));
    memo.set(claims.sessionId, found.facts, found.askedAtMs);
    if (lost) seed(claims.userId, found);
    return found;
  }

  /**
   * While Redis is away, D1 decides. Its result is reused for up to a second. Parallel requests of a session share one
   * lookup.
   */
  async function withoutRedis(claims: AccessClaims): Promise<RevocationVerdict> {
    const { sessionId } = claims;
    const known = memo.get(sessionId, now());
    if (known !== undefined) return judge(claims, known);
    const order = accounts().nextOrder();
    const found = await memo.singleFlight.load(
      sessionId,
      async () => {
        // A lookup that finished while this one waited for its turn is recent enough.
        const meanwhile = memo.get(sessionId, now());
        if (meanwhile !== undefined) return withoutAccount(meanwhile);
        return lookUp(claims, false);
      },
      { waitUntil, lostAfterMs },
    );
    accounts().note(found, order);
    return judge(claims, found.facts);
  }

  /** Redis responds, but has lost this user's hash. Revocations acknowledged before this request must count. */
  async function withoutHash(claims: AccessClaims): Promise<RevocationVerdict> {
    // Wait for this request's cache reads before asking D1, so that the user's row can fill missed entries.
    await accounts().readsSettled();
    const order = accounts().nextOrder();
    const found = await memo.singleFlight.load(`lost ${claims.sessionId}`, () => lookUp(claims, true), {
      waitUntil,
      lostAfterMs,
    });
    accounts().note(found, order);
    return judge(claims, found.facts);
  }

  async function fromDatabase(claims: AccessClaims, verdict: (claims: AccessClaims) => Promise<RevocationVerdict>) {
    try {
      return await verdict(claims);
    } catch (error) {
      if (!(error instanceof DatabaseUnavailable)) throw error;
      throw unavailable('The check for revoked tokens', error.overloaded ? 10 : 5, error);
    }
  }

  /** Restores the user's hash with all denials from D1. */
  function seed(userId: string, { facts, denials: recent }: FoundFacts): void {
    const denied = recent && denialFields(recent);
    if (facts === null || denied === undefined) return;
    void batch.deferRun(
      blacklistMerge,
      [keys.blacklist(userId)],
      [blacklistTtlMs(config), ...denied, 'av', facts.accessVersion, 'ep', facts.epoch],
    );
  }

  async function askRedis(
    { userId, sessionId, tokenId }: AccessClaims,
    through: RedisBatch = batch,
  ): Promise<RevocationReply> {
    const reply = await through.send('HMGET', keys.blacklist(userId), 'ep', 'av', `s:${sessionId}`, `j:${tokenId}`);
    const parsed = parseRevocation(reply);
    if (parsed === undefined) throw new RedisUnavailable('garbage');
    return parsed;
  }

  /** Remembers that Redis allows a token. Any other reply deletes the memory. @param askedAtMs when Redis was asked */
  function remember(claims: AccessClaims, { epoch, accessVersion, denied }: RevocationReply, askedAtMs: number): void {
    const question = questionOf(claims);
    if (denied || epoch === null) return revocations.delete(question);
    const { userId, sessionId, tokenId } = claims;
    revocations.set(question, { userId, sessionId, tokenId, epoch, accessVersion }, askedAtMs, 2 * question.length);
  }

  /** Checks again after a response, for a caller with further requests. */
  async function askAgain(claims: AccessClaims, through: RedisBatch): Promise<void> {
    const askedAtMs = now();
    try {
      remember(claims, await askRedis(claims, through), askedAtMs);
    } catch (error) {
      // The earlier reply still expires at its time.
      if (!(error instanceof RedisError)) throw error;
    }
  }

  async function ask(
    claims: AccessClaims,
    whenUnavailable: RevocationFailurePolicy,
    withinMs: number,
  ): Promise<RevocationVerdict> {
    let reply: RevocationReply;
    const askedAtMs = now();
    try {
      reply = await askRedis(claims);
      if (withinMs > 0) remember(claims, reply, askedAtMs);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded(`revocation=${whenUnavailable}`);
      if (whenUnavailable === 'open') return 'valid';
      if (whenUnavailable === 'closed') throw unavailable('The check for revoked tokens', 5, error);
      return fromDatabase(claims, withoutRedis);
    }
    const { epoch, accessVersion, denied } = reply;
    if (denied === 'revoked') return denied;
    if (epoch !== null) {
      const verdict = judgeVersions(claims, { epoch, accessVersion });
      return verdict === 'revoked' ? verdict : (denied ?? verdict);
    }
    if (denied !== undefined) return denied;
    degraded('revocation=unknown');
    return fromDatabase(claims, withoutHash);
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

    recall(claims, withinMs) {
      const nowMs = now();
      const question = questionOf(claims);
      const known = revocations.get(question);
      if (known === undefined || !isOf(claims, known.value)) return undefined;
      const { value, askedAtMs } = known;
      if (!isWithin(askedAtMs, withinMs, nowMs)) return undefined;
      if (judgeVersions(claims, value) !== 'valid' || denials.verdict(claims) !== 'valid') return undefined;
      return () => {
        if (!isDue(askedAtMs, withinMs, nowMs)) return;
        refresher.note(`token ${question}`, (through) => askAgain(claims, through));
      };
    },

    async check(claims, whenUnavailable = 'd1', withinMs = 0) {
      const verdict = await ask(claims, whenUnavailable, withinMs);
      if (verdict === 'revoked') denials.endToken(claims.tokenId);
      if (verdict !== 'valid') revocations.delete(questionOf(claims));
      // This isolate may have revoked the token while the check was in flight.
      return verdict === 'valid' ? denials.verdict(claims) : verdict;
    },
  };
}

/** Facts that an earlier request has read, without the user's row: that belongs to the earlier request. */
function withoutAccount(facts: FoundFacts['facts']): FoundFacts {
  return { facts, account: undefined, denials: undefined, askedAtMs: 0, askedAtWallMs: 0 };
}
