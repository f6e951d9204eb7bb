import { and, eq, gt, lte, ne, notInArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle, Statement } from '../../db/client';
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
}

/** Gives a user a token, and stores its hash. @returns the token, for the mail alone */
export async function issueOneTimeToken(
  database: Database,
  { id: userId, email }: Pick<UserRow, 'id' | 'email'>,
  { purpose, ttlSeconds, atMs }: OneTimeOptions,
  more: (db: Drizzle) => Statement[] = () => [],
): Promise<string> {
  const token = newOneTimeToken(purpose);
  const hash = oneTimeHash(token, purpose)!;
  const row = { hash, purpose, userId, email, createdAtMs: atMs, expiresAtMs: atMs + ttlSeconds * 1_000 };
  await database.batch((db) => {
    const own = and(eq(oneTimeTokens.userId, userId), eq(oneTimeTokens.purpose, purpose));
    const newest = db
      .select({ hash: oneTimeTokens.hash })
      .from(oneTimeTokens)
      .where(own)
      // The order of insertion: clocks of two isolates differ.
      .orderBy(sql`rowid desc`)
      .limit(LIVE_TOKENS);
    return [
      // Only while the account exists: a row that its deletion has not seen would keep the address.
      db.insert(oneTimeTokens).select(
        db
          .select({
            hash: sql<string>`${row.hash}`.as('hash'),
            purpose: sql<OneTimePurpose>`${row.purpose}`.as('purpose'),
            userId: users.id,
            email: sql<string>`${row.email}`.as('email'),
            createdAtMs: sql<number>`${row.createdAtMs}`.as('created_at_ms'),
            expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
          })
          .from(users)
          .where(eq(users.id, userId)),
      ),
      db.delete(oneTimeTokens).where(and(own, notInArray(oneTimeTokens.hash, newest))),
      ...more(db),
    ];
  });
  return token;
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
  const [[row], [owner]] = await database.run((db) => {
    const live = and(eq(oneTimeTokens.hash, hash), gt(oneTimeTokens.expiresAtMs, atMs));
    const userId = db.select({ id: oneTimeTokens.userId }).from(oneTimeTokens).where(live);
    return db.batch([db.select().from(oneTimeTokens).where(live), db.select().from(users).where(eq(users.id, userId))]);
  });
  if (row === undefined || owner?.email !== row.email) throw invalidOneTimeToken();
  return { row, owner };
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
export function dropOneTimeTokens(db: Drizzle, userId: string, purpose?: OneTimePurpose): Statement {
  return db
    .delete(oneTimeTokens)
    .where(
      and(eq(oneTimeTokens.userId, userId), purpose === undefined ? undefined : eq(oneTimeTokens.purpose, purpose)),
    );
}

/** Forgets what has expired. */
export async function purgeOneTimeTokens(database: Database, atMs: number): Promise<void> {
  await database.run((db) => db.delete(oneTimeTokens).where(lte(oneTimeTokens.expiresAtMs, atMs)));
}

export function invalidOneTimeToken(): AppError {
  return new AppError('ONE_TIME_TOKEN_INVALID');
}
