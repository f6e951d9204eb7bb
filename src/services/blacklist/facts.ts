import { eq, getTableColumns, sql } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Database, Drizzle } from '../../db/client';
import { revokedTokens, sessions, users } from '../../db/schema';
import type { AccountRow } from '../../db/schema';
import { judgeVersions } from './denials';
import type { Verdict, Versions } from './denials';
import { recentDenials } from './recent';
import type { Denial } from './recent';
import type { AccessClaims } from '../token/accessToken';

/** What D1 says about a session and its user. `null`: there is no such user. */
export type RevocationFacts = (Versions & { sessionEnded: boolean; revokedTokens: ReadonlySet<string> }) | null;

/** The facts, and what else the same round trip to D1 has brought. */
export interface FoundFacts {
  facts: RevocationFacts;
  /** The user, for whoever is about to load it. */
  account: AccountRow | undefined;
  /** What denies tokens of the user, where it was asked for: for a Redis that has lost it. */
  denials: readonly Denial[] | undefined;
  /** When D1 was asked, by the request's clock and by the wall clock. */
  askedAtMs: number;
  askedAtWallMs: number;
}

const { passwordHash: _, ...accountColumns } = getTableColumns(users);

/** The facts and the user's row in one statement. */
function factsOf(db: Drizzle, userId: string, sessionId: string) {
  return db
    .select({
      ...accountColumns,
      // A session without a row counts as ended.
      sessionEnded: sql<number>`coalesce((select ${sessions.endedAtMs} is not null from ${sessions}
        where ${sessions.id} = ${sessionId}), 1)`.as('session_ended'),
      revokedTokens: sql<string>`(select json_group_array(${revokedTokens.id}) from ${revokedTokens}
        where ${revokedTokens.userId} = ${userId})`.as('revoked_tokens'),
    })
    .from(users)
    .where(eq(users.id, userId));
}

export interface FactsOptions {
  database: Database;
  config: Config;
  now: () => number;
  /** Whether Redis has lost the user's hash and needs what denies tokens. */
  withDenials: boolean;
}

/** One round trip to D1. @throws {DatabaseError} */
export async function readFacts(
  { userId, sessionId }: Pick<AccessClaims, 'userId' | 'sessionId'>,
  { database, config, now, withDenials }: FactsOptions,
): Promise<FoundFacts> {
  const asked = { askedAtMs: now(), askedAtWallMs: Date.now() };
  const [[row], denials] = await database.run(async (db) => {
    const facts = factsOf(db, userId, sessionId);
    if (!withDenials) return [await facts, undefined] as const;
    return db.batch([facts, recentDenials(db, userId, config, asked.askedAtMs)]);
  });
  if (row === undefined) return { facts: null, account: undefined, denials, ...asked };
  const { sessionEnded, revokedTokens: tokens, ...account } = row;
  const facts = {
    epoch: account.epoch,
    accessVersion: account.accessVersion,
    sessionEnded: sessionEnded !== 0,
    revokedTokens: new Set(JSON.parse(tokens) as string[]),
  };
  return { facts, account, denials, ...asked };
}

export function judge(claims: AccessClaims, facts: RevocationFacts): Verdict {
  if (facts === null || facts.sessionEnded || facts.revokedTokens.has(claims.tokenId)) return 'revoked';
  return judgeVersions(claims, facts);
}
