import { and, desc, eq, gte, lt, lte, notInArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Config } from '../../config/env';
import type { Database, Drizzle, Statement } from '../../db/client';
import { knownOrigins, loginFailures, users } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import { AppError } from '../../errors';
import type { Keys } from '../../redis/keys';
import { UNKNOWN_ADDRESS } from '../../util/identity';

/** The first wait after a wrong password, once waits apply. It doubles in seven steps, up to the longest. */
const FIRST_WAIT_MS = 30_000;
const LONGEST_WAIT_MS = 3_600_000;
const STEPS = 7;
/** The most known sign-in addresses per account; older ones are dropped. */
const KNOWN_ORIGINS = 20;
/** Counts for e-mail addresses without an account are deleted this long after the last attempt. */
const UNKNOWN_KEPT_MS = 30 * 86_400_000;
const PURGED_ROWS = 1_000;

/** An admitted attempt. It is already counted as a failure, so that concurrent attempts cannot pass together. */
export interface LoginAttempt {
  user: UserRow | undefined;
  /** Consecutive wrong passwords from unknown addresses, including this one; `undefined`: this address is known. */
  strangerFailures: number | undefined;
}

/**
 * Limits the consecutive wrong passwords of an account (NIST SP 800-63B-4, section 3.2.2: at most 100).
 *
 * All addresses where the account has never signed in share one count. From half of the limit on, they must wait after each
 * failure, longer each time. At the limit they are refused until a login from a known address succeeds, or the password is
 * reset by mail. An address where the account has signed in has its own count, so strangers cannot lock the owner out. At
 * its limit the address counts as unknown again. D1 counts: Redis is not needed.
 */
export interface LoginAttempts {
  /**
   * Reads the account and counts the attempt, in one trip to D1.
   *
   * @throws {AppError} `RATE_LIMITED`, the same for accounts that do not exist
   */
  begin(email: string, address: string): Promise<LoginAttempt>;
  /** For the batch of a successful login: deletes the failures, and makes the address a known one. */
  succeeded(db: Drizzle, userId: string, address: string): Statement[];
  /** For the batch of a new account: failures counted before it existed are not its owner's. */
  registered(db: Drizzle, user: Pick<UserRow, 'id' | 'email'>, address: string): Statement[];
  /** For the batch of a password that was confirmed or replaced in another way. */
  forget(db: Drizzle, userId: string): Statement[];
  /** Whether the attempt is the first with a wait, or the last before the limit: recorded in the account's history. */
  isTurningPoint(attempt: LoginAttempt): boolean;
  /** Deletes old counts for e-mail addresses without an account. */
  purge(): Promise<void>;
}

export interface LoginAttemptDeps {
  database: Database;
  keys: Keys;
  config: Config;
  now: () => number;
}

export function createLoginAttempts({ database, keys, config, now }: LoginAttemptDeps): LoginAttempts {
  const most = config.passwords.failuresMax;
  const slowFrom = Math.floor(most / 2);
  const step = Math.max(1, Math.ceil((most - slowFrom) / STEPS));

  /** The wait below each number of failures, the same in SQL and here. From the last number on it is the longest. */
  const waits = Array.from({ length: STEPS + 1 }, (_, index) => ({
    below: slowFrom + index * step,
    waitMs: index === 0 ? 0 : FIRST_WAIT_MS * 2 ** (index - 1),
  }));
  const waitAfter = (failed: number) => waits.find(({ below }) => failed < below)?.waitMs ?? LONGEST_WAIT_MS;
  const cases = waits.map(
    ({ below, waitMs }) =>
      sql`when ${loginFailures.failed} < ${sql.raw(String(below))} then ${sql.raw(String(waitMs))}`,
  );
  const waitSql = sql`(case ${sql.join(cases, sql` `)} else ${sql.raw(String(LONGEST_WAIT_MS))} end)`;

  const ofUser = (userId: string) => `u:${userId}`;
  const ofEmail = (email: string) => `e:${keys.account(email)}`;

  const isKnown = (address: string) => address !== '' && address !== UNKNOWN_ADDRESS;
  const knowing = (db: Drizzle, userId: string, address: string): Statement[] => {
    if (!isKnown(address)) return [];
    const origin = keys.origin(address);
    const mine = eq(knownOrigins.userId, userId);
    const newest = db
      .select({ origin: knownOrigins.origin })
      .from(knownOrigins)
      .where(mine)
      // The new address first, even if another isolate's clock gave a later time.
      .orderBy(desc(eq(knownOrigins.origin, origin)), desc(knownOrigins.lastAtMs))
      .limit(KNOWN_ORIGINS);
    const lastAtMs = now();
    return [
      db
        .insert(knownOrigins)
        .values({ userId, origin, failed: 0, lastAtMs })
        .onConflictDoUpdate({ target: [knownOrigins.userId, knownOrigins.origin], set: { failed: 0, lastAtMs } }),
      db.delete(knownOrigins).where(and(mine, notInArray(knownOrigins.origin, newest))),
    ];
  };

  function refused(state: { failed: number; lastAtMs: number } | undefined): AppError {
    const { failed, lastAtMs } = state ?? { failed: most, lastAtMs: now() };
    const waitMs = failed >= most ? LONGEST_WAIT_MS : lastAtMs + waitAfter(failed) - now();
    return new AppError('RATE_LIMITED', {
      detail:
        'Too many wrong passwords for this account. Sign in from a place where you have signed in before, or reset the password.',
      headers: { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1_000))) },
      extensions: { 'violated-policies': ['login-account'] },
    });
  }

  return {
    async begin(email, address) {
      const origin = keys.origin(address);
      const lastAtMs = now();
      const userId = sql`(select ${users.id} from ${users} where ${users.email} = ${email})`;
      const account = sql<string>`coalesce('u:' || ${userId}, ${ofEmail(email)})`;
      const fromHere: SQL | undefined = and(
        eq(knownOrigins.userId, userId),
        eq(knownOrigins.origin, origin),
        lt(knownOrigins.failed, most),
      );
      const [counted, known, states, found] = await database.batch((db) => [
        // Must come first: the next statement may exhaust the address's own count.
        db
          .insert(loginFailures)
          .select(
            sql`select ${account}, 1, ${lastAtMs} where not exists (select 1 from ${knownOrigins} where ${fromHere})`,
          )
          .onConflictDoUpdate({
            target: loginFailures.account,
            set: { failed: sql`${loginFailures.failed} + 1`, lastAtMs },
            setWhere: sql`${loginFailures.failed} < ${most} and ${loginFailures.lastAtMs} + ${waitSql} <= ${lastAtMs}`,
          })
          .returning({ failed: loginFailures.failed }),
        db
          .update(knownOrigins)
          .set({ failed: sql`${knownOrigins.failed} + 1` })
          .where(fromHere)
          .returning({ failed: knownOrigins.failed }),
        db.select().from(loginFailures).where(eq(loginFailures.account, account)),
        db.select().from(users).where(eq(users.email, email)),
      ]);
      const [stranger] = counted;
      const [user] = found;
      if (stranger === undefined && (known as unknown[]).length === 0) {
        throw refused(states[0]);
      }
      return { user, strangerFailures: stranger?.failed };
    },

    succeeded: (db, userId, address) => [
      db.delete(loginFailures).where(eq(loginFailures.account, ofUser(userId))),
      ...knowing(db, userId, address),
    ],

    registered: (db, { id, email }, address) => [
      db.delete(loginFailures).where(eq(loginFailures.account, ofEmail(email))),
      ...knowing(db, id, address),
    ],

    forget: (db, userId) => [
      db.delete(loginFailures).where(eq(loginFailures.account, ofUser(userId))),
      db.update(knownOrigins).set({ failed: 0 }).where(eq(knownOrigins.userId, userId)),
    ],

    isTurningPoint: ({ strangerFailures }) => strangerFailures === slowFrom || strangerFailures === most,

    async purge() {
      const old = and(
        gte(loginFailures.account, 'e:'),
        lt(loginFailures.account, 'e;'),
        lte(loginFailures.lastAtMs, now() - UNKNOWN_KEPT_MS),
      );
      await database.run((db) =>
        db.delete(loginFailures).where(
          sql`${loginFailures.account} in (select ${loginFailures.account} from ${loginFailures}
              where ${old} limit ${PURGED_ROWS})`,
        ),
      );
    },
  };
}
