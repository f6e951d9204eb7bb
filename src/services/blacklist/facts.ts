import { eq, getTableColumns, isNotNull, sql } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Database, Drizzle } from '../../db/client';
import { flag, jsonMap } from '../../db/portable';
import { revokedTokens, sessions, users } from '../../db/schema';
import type { AccountRow } from '../../db/schema';
import { denialOf, judgeVersions } from './denials';
import type { TokenDenial, RevocationVerdict, UserVersions } from './denials';
import { recentDenials } from './recent';
import type { Denial } from './recent';
import type { AccessClaims } from '../token/accessToken';

/** D1's data about a session and its user. `null`: there is no such user. */
export type RevocationFacts =
  | (UserVersions & { sessionEnded: boolean; revokedTokens: ReadonlyMap<string, TokenDenial> })
  | null;

/** The facts, and other results of the same round trip to D1. */
export interface FoundFacts {
  facts: RevocationFacts;
  /** The user's row, for a handler that is about to load it. */
  account: AccountRow | undefined;
  /** The user's denials, if requested: Redis has lost them. */
  denials: readonly Denial[] | undefined;
  /** When D1 was asked, by the request's clock and by the wall clock. */
  askedAtMs: number;
  askedAtWallMs: number;
}

const { passwordHash: _, ...accountColumns } = getTableColumns(users);

/** Reads the facts and the user's row in one statement. */
function factsOf(db: Drizzle, userId: string, sessionId: string) {
  return db
    .select({
      ...accountColumns,
      // A session without a row counts as ended.
      sessionEnded: sql<number>`coalesce((select ${flag(isNotNull(sessions.endedAtMs))} from ${sessions}
        where ${sessions.id} = ${sessionId}), 1)`.as('session_ended'),
      revokedTokens: sql<string>`(select ${jsonMap(revokedTokens.id, revokedTokens.expiresAtMs)} from ${revokedTokens}
        where ${revokedTokens.userId} = ${userId})`.as('revoked_tokens'),
    })
    .from(users)
    .where(eq(users.id, userId));
}

export interface FactsOptions {
  database: Database;
  config: Config;
  now: () => number;
  /** Whether Redis has lost the user's hash, so that its denials are needed. */
  withDenials: boolean;
}

/** One round trip to D1. @throws {DatabaseError} */
export async function readFacts(
  { userId, sessionId }: Pick<AccessClaims, 'userId' | 'sessionId'>,
  { database, config, now, withDenials }: FactsOptions,
): Promise<FoundFacts> {
  const asked = { askedAtMs: now(), askedAtWallMs: Date.now() };
  const facts = (db: Drizzle) => factsOf(db, userId, sessionId);
  const [[row], denials] = withDenials
    ? await database.batch((db) => [facts(db), recentDenials(db, userId, config, asked.askedAtMs)])
    : [await database.run(facts), undefined];
  if (row === undefined) return { facts: null, account: undefined, denials, ...asked };
  const { sessionEnded, revokedTokens: tokens, ...account } = row;
  const found = {
    epoch: account.epoch,
    accessVersion: account.accessVersion,
    sessionEnded: sessionEnded !== 0,
    revokedTokens: new Map(
      Object.entries(JSON.parse(tokens) as Record<string, number>).map(([id, untilMs]) => [id, denialOf(untilMs)]),
    ),
  };
  return { facts: found, account, denials, ...asked };
}

export function judge(claims: AccessClaims, facts: RevocationFacts): RevocationVerdict {
  if (facts === null || facts.sessionEnded) return 'revoked';
  const verdict = judgeVersions(claims, facts);
  return verdict === 'revoked' ? verdict : (facts.revokedTokens.get(claims.tokenId) ?? verdict);
}
