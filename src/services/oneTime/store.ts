import { and, desc, eq, gt, inArray, lte, ne, notInArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle, Statement } from '../../db/client';
import { asNumber } from '../../db/portable';
import { oneTimeTokens, users } from '../../db/schema';
import type { OneTimeTokenRow, UserRow } from '../../db/schema';
import { AppError } from '../../errors';
import { newOneTimeToken, oneTimeHash } from './token';
import type { OneTimePurpose } from './token';

/** Live tokens a user and purpose; one more, and the oldest goes. */
const LIVE_TOKENS = 3;

export interface OneTimeOptions {
  purpose: OneTimePurpose;
  ttlSeconds: number;
  atMs: number;
  /** The account's address, where the token is sent to another one. */
  formerEmail?: string;
}

/** Gives a user a token, and stores its hash. @returns the token, for the mail alone */
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
      // Only while the account exists: a row that its deletion has not seen would keep the address.
      insertOneTimeToken(db, row),
      db.delete(oneTimeTokens).where(and(own, notInArray(oneTimeTokens.hash, newest))),
      ...more(db),
    ];
  });
  return token;
}

/**
 * The row of a token that is issued in the batch of a change. Its time is later than that of all tokens which the user
 * already has for this purpose: clocks of two isolates differ, and the order of tokens must be the order of insertion.
 *
 * @param when a condition on the user's row: without it there is no token
 */
export function insertOneTimeToken(db: Drizzle, row: OneTimeTokenRow, when?: SQL): Statement {
  // Read once, in an aggregate that yields a row in any case.
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
 * Whether an address is reserved for an account that may still go back to it: no other account can get it meanwhile.
 *
 * @param except that account
 */
export function isReserved(email: string, atMs: number, except = ''): SQL {
  // A literal, as in the index.
  return sql`exists (select 1 from ${oneTimeTokens} where ${oneTimeTokens.purpose} = 'email-undo'
    and ${oneTimeTokens.email} = ${email} and ${oneTimeTokens.userId} <> ${except}
    and ${oneTimeTokens.expiresAtMs} > ${atMs})`;
}

/** A token that is still good, and whose it is. */
export interface FoundOneTimeToken {
  row: OneTimeTokenRow;
  owner: UserRow;
}

/**
 * Looks a token up; that takes nothing.
 *
 * @throws {AppError} `ONE_TIME_TOKEN_INVALID` for one that never was, was used, was withdrawn or has expired, and for one
 *   that was sent to an address which its account has no more
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

/** Whether the account has the address that a token speaks of; to undo a change is what another address is for. */
function isStill({ purpose, email, formerEmail }: OneTimeTokenRow, owner: UserRow): boolean {
  return purpose === 'email-undo' || owner.email === (purpose === 'email-change' ? formerEmail : email);
}

/** What a token is good for, and its end, in one batch. */
export interface TakenOneTimeToken {
  /** Holds in one batch alone, whatever happens at the same time, for the statements before those that take the token. */
  granted: SQL;
  statements(db: Drizzle): Statement[];
}

export function takeOneTimeToken({ hash, userId, purpose }: OneTimeTokenRow, atMs: number): TakenOneTimeToken {
  const live = and(eq(oneTimeTokens.hash, hash), gt(oneTimeTokens.expiresAtMs, atMs));
  const granted = sql`exists (select 1 from ${oneTimeTokens} where ${live})`;
  return {
    granted,
    statements: (db) => [
      // The user's others have done their duty as well.
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

/** Withdraws a user's tokens, for the batch of a change that outdates them. */
export function dropOneTimeTokens(db: Drizzle, userId: string, ...purposes: OneTimePurpose[]): Statement {
  return db
    .delete(oneTimeTokens)
    .where(and(eq(oneTimeTokens.userId, userId), inArray(oneTimeTokens.purpose, purposes)));
}

/** Forgets what has expired. */
export async function purgeOneTimeTokens(database: Database, atMs: number): Promise<void> {
  await database.run((db) => db.delete(oneTimeTokens).where(lte(oneTimeTokens.expiresAtMs, atMs)));
}

export function invalidOneTimeToken(): AppError {
  return new AppError('ONE_TIME_TOKEN_INVALID');
}
