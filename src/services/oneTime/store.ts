import { and, desc, eq, gt, inArray, lte, ne, notInArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle, Statement } from '../../db/client';
import { asNumber } from '../../db/portable';
import { oneTimeTokens, users } from '../../db/schema';
import type { OneTimeTokenRow, UserRow } from '../../db/schema';
import { AppError } from '../../errors';
import { newOneTimeToken, oneTimeHash } from './token';
import type { OneTimePurpose } from './token';

/** The most valid tokens per user and purpose. A further one replaces the oldest. */
const LIVE_TOKENS = 3;

export interface OneTimeOptions {
  purpose: OneTimePurpose;
  ttlSeconds: number;
  atMs: number;
  /** The account's present address, if the token is sent to another one. */
  formerEmail?: string;
}

/** Issues a token to a user, and stores its hash. @returns the token, for use in the mail only */
export async function issueOneTimeToken(
  database: Database,
  { id: userId, email }: Pick<UserRow, 'id' | 'email'>,
  { purpose, ttlSeconds, atMs, formerEmail }: OneTimeOptions,
  more: (db: Drizzle) => Statement[] = () => [],
): Promise<string> {
  const token = newOneTimeToken(purpose);
  const hash = oneTimeHash(token, purpose)!;
  const row = {
    hash,
    purpose,
    userId,
    email,
    formerEmail: formerEmail ?? null,
    createdAtMs: atMs,
    expiresAtMs: atMs + ttlSeconds * 1_000,
  };
  await database.batch((db) => {
    const own = and(eq(oneTimeTokens.userId, userId), eq(oneTimeTokens.purpose, purpose));
    const newest = db
      .select({ hash: oneTimeTokens.hash })
      .from(oneTimeTokens)
      .where(own)
      .orderBy(desc(oneTimeTokens.createdAtMs))
      .limit(LIVE_TOKENS);
    return [
      // Only while the account exists: a row inserted after the account's deletion would keep the address.
      insertOneTimeToken(db, row),
      db.delete(oneTimeTokens).where(and(own, notInArray(oneTimeTokens.hash, newest))),
      ...more(db),
    ];
  });
  return token;
}

/**
 * The row of a token that is issued in the batch of a change. Its time is later than that of all tokens which the user
 * already has for this purpose: the clocks of two isolates differ, and the order of tokens must be the order of insertion.
 *
 * @param when a condition on the user's row: if it is false, no token is issued
 */
export function insertOneTimeToken(db: Drizzle, row: OneTimeTokenRow, when?: SQL): Statement {
  // Read once, in an aggregate, which always yields a row.
  const createdAtMs = sql<number>`(select case when max(${oneTimeTokens.createdAtMs}) >= ${row.createdAtMs}
    then max(${oneTimeTokens.createdAtMs}) + 1 else ${asNumber(row.createdAtMs)} end from ${oneTimeTokens}
    where ${oneTimeTokens.userId} = ${row.userId} and ${oneTimeTokens.purpose} = ${row.purpose})`;
  return db.insert(oneTimeTokens).select(
    db
      .select({
        hash: sql<string>`${row.hash}`.as('hash'),
        purpose: sql<OneTimePurpose>`${row.purpose}`.as('purpose'),
        userId: users.id,
        email: sql<string>`${row.email}`.as('email'),
        formerEmail: sql<string | null>`${row.formerEmail}`.as('former_email'),
        createdAtMs: createdAtMs.as('created_at_ms'),
        expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
      })
      .from(users)
      .where(and(eq(users.id, row.userId), when)),
  );
}

/**
 * Whether an address is reserved for an account that may be changed back to it. No other account can get it meanwhile.
 *
 * @param except that account
 */
export function isReserved(email: string, atMs: number, except = ''): SQL {
  // A literal, so that the query uses the partial index.
  return sql`exists (select 1 from ${oneTimeTokens} where ${oneTimeTokens.purpose} = 'email-undo'
    and ${oneTimeTokens.email} = ${email} and ${oneTimeTokens.userId} <> ${except}
    and ${oneTimeTokens.expiresAtMs} > ${atMs})`;
}

/** A valid token's row, and the token's owner. */
export interface FoundOneTimeToken {
  row: OneTimeTokenRow;
  owner: UserRow;
}

/**
 * Looks a token up, without using it up.
 *
 * @throws {AppError} `ONE_TIME_TOKEN_INVALID` if it never existed, was used, was withdrawn or has expired, or if the
 *   account no longer has the address that it was sent to
 */
export async function findOneTimeToken(
  database: Database,
  token: string,
  { purpose, atMs }: Pick<OneTimeOptions, 'purpose' | 'atMs'>,
): Promise<FoundOneTimeToken> {
  const hash = oneTimeHash(token, purpose);
  if (hash === undefined) throw invalidOneTimeToken();
  const [[row], [owner]] = await database.batch((db) => {
    const live = and(eq(oneTimeTokens.hash, hash), gt(oneTimeTokens.expiresAtMs, atMs));
    const userId = db.select({ id: oneTimeTokens.userId }).from(oneTimeTokens).where(live);
    return [db.select().from(oneTimeTokens).where(live), db.select().from(users).where(eq(users.id, userId))];
  });
  if (row === undefined || owner === undefined || !isStill(row, owner)) throw invalidOneTimeToken();
  return { row, owner };
}

/** Whether the account still has the token's address. For undoing a change, the address is expected to differ. */
function isStill({ purpose, email, formerEmail }: OneTimeTokenRow, owner: UserRow): boolean {
  return purpose === 'email-undo' || owner.email === (purpose === 'email-change' ? formerEmail : email);
}

/** The condition and the statements with which one batch uses a token up. */
export interface TakenOneTimeToken {
  /** True in only one batch, even for concurrent requests. For the statements before those that delete the token. */
  granted: SQL;
  statements(db: Drizzle): Statement[];
}

export function takeOneTimeToken({ hash, userId, purpose }: OneTimeTokenRow, atMs: number): TakenOneTimeToken {
  const live = and(eq(oneTimeTokens.hash, hash), gt(oneTimeTokens.expiresAtMs, atMs));
  const granted = sql`exists (select 1 from ${oneTimeTokens} where ${live})`;
  return {
    granted,
    statements: (db) => [
      // The user's other tokens for this purpose are no longer needed either.
      db
        .delete(oneTimeTokens)
        .where(
          and(
            eq(oneTimeTokens.userId, userId),
            eq(oneTimeTokens.purpose, purpose),
            ne(oneTimeTokens.hash, hash),
            granted,
          ),
        ),
      db.delete(oneTimeTokens).where(live).returning({ hash: oneTimeTokens.hash }),
    ],
  };
}

/** Withdraws a user's tokens, for the batch of a change that makes them obsolete. */
export function dropOneTimeTokens(db: Drizzle, userId: string, ...purposes: OneTimePurpose[]): Statement {
  return db
    .delete(oneTimeTokens)
    .where(and(eq(oneTimeTokens.userId, userId), inArray(oneTimeTokens.purpose, purposes)));
}

/** Deletes expired tokens. */
export async function purgeOneTimeTokens(database: Database, atMs: number): Promise<void> {
  await database.run((db) => db.delete(oneTimeTokens).where(lte(oneTimeTokens.expiresAtMs, atMs)));
}

export function invalidOneTimeToken(): AppError {
  return new AppError('ONE_TIME_TOKEN_INVALID');
}
