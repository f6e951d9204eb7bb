import { and, eq, sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { users } from '../../db/schema';
import { retry } from '../../util/retry';
import type { EventService } from '../event.service';
import type { MailService } from '../mail.service';
import type { Mail } from '../mail/mailer';
import { timingPause } from '../timingPause';
import { issueOneTimeToken } from './store';
import type { OneTimePurpose } from './token';

/** A mail with a one-time token. The person who requests it may be a stranger to the account. */
export interface LinkMail {
  purpose: OneTimePurpose;
  /** @returns `undefined` if no mail must be sent */
  issue: () => Promise<string | undefined>;
  mailOf: (token: string) => Mail;
  /** Called with an error that occurs after the response. */
  failed: (error: unknown) => void;
}

export interface LinkDeps {
  database: Database;
  mail: MailService;
  waitUntil: (promise: Promise<unknown>) => void;
}

/** After the response the client cannot retry, so the service does. */
const DATABASE_WAITS_MS = [500, 2_000];

/**
 * Mails a link. All work that depends on the account happens after the response, so neither the response nor its timing
 * reveals whether the account exists.
 *
 * @throws {AppError} `CONFIG_INVALID` without a mailer
 * @throws {DatabaseUnavailable}
 */
export async function mailLink(
  { database, mail, waitUntil }: LinkDeps,
  { purpose, issue, mailOf, failed }: LinkMail,
): Promise<void> {
  const send = async () => {
    await timingPause();
    const token = await retry(issue, { waitsMs: DATABASE_WAITS_MS });
    if (token !== undefined) await mail.send(purpose, mailOf(token));
  };
  mail.assertEnabled();
  await assertDatabaseResponds(database);
  waitUntil(send().catch(failed));
}

export interface OwnerTokenOptions {
  purpose: OneTimePurpose;
  ttlSeconds: number;
  /** The event in the account's history. */
  kind: 'recovery-requested' | 'deletion-requested';
  /** The administrator who requests it. */
  by?: string | undefined;
}

/** Issues a token for the active account with this address. @returns `undefined` if there is none */
export async function issueToOwner(
  { database, event, now }: { database: Database; event: EventService; now: () => number },
  email: string,
  { purpose, ttlSeconds, kind, by }: OwnerTokenOptions,
): Promise<string | undefined> {
  const [owner] = await database.run((db) =>
    db
      .select({ id: users.id, email: users.email })
      .from(users)
      .where(and(eq(users.email, email), eq(users.status, 'active'))),
  );
  if (owner === undefined) return undefined;
  const requested = event.prepare({ kind, userId: owner.id, ...(by !== undefined && { by }) });
  const token = await issueOneTimeToken(database, owner, { purpose, ttlSeconds, atMs: now() }, (db) =>
    requested.statements(db),
  );
  requested.report();
  return token;
}

/**
 * Runs the same query for every address before a mail is promised. An outage then shows for every address and reveals
 * nothing about one.
 */
async function assertDatabaseResponds(database: Database): Promise<void> {
  await database.run((db) =>
    db
      .select({ one: sql`1` })
      .from(users)
      .limit(1),
  );
}
