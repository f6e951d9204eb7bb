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

/** A mail with a one-time token. The person who asks for it may be a stranger to the account. */
export interface LinkMail {
  purpose: OneTimePurpose;
  /** @returns `undefined`: no mail is to be sent */
  issue: () => Promise<string | undefined>;
  mailOf: (token: string) => Mail;
  /** Told of an error after the response. */
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
 * Mails a link. Nothing that depends on the account happens before the response, so neither the response nor its time tells
 * whether there is one.
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
  await assertDatabaseAnswers(database);
  waitUntil(send().catch(failed));
}

export interface OwnerTokenOptions {
  purpose: OneTimePurpose;
  ttlSeconds: number;
  /** What the account's history says of it. */
  kind: 'recovery-requested' | 'deletion-requested';
  /** The administrator who asks for it. */
  by?: string | undefined;
}

/** A token for the active account of this address. @returns `undefined` where there is none */
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

/** The same query for every address, before a mail is promised: an outage shows for all of them, and tells nothing of one. */
async function assertDatabaseAnswers(database: Database): Promise<void> {
  await database.run((db) =>
    db
      .select({ one: sql`1` })
      .from(users)
      .limit(1),
  );
}
