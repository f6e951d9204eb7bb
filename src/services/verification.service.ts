import { and, eq, isNull, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database } from '../db/client';
import { users } from '../db/schema';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
import { verificationMail } from './mail/messages';
import type { MailService } from './mail.service';
import { findOneTimeToken, invalidOneTimeToken, issueOneTimeToken, takeOneTimeToken } from './oneTime/store';
import type { OutboxService } from './outbox.service';
import { facade } from './scope';
import { whileOwner } from './session/statements';
import { userInvalidation } from './user.service';
import type { User } from './user.service';

/** Verifies that an account's owner can read mail at its address. */
export interface VerificationService {
  /** Mails a link to a new user, after the response, if there is a mailer. */
  welcome(user: Pick<User, 'id' | 'email'>): void;
  /**
   * Mails a link to the account's address, after the response, unless it is verified already.
   *
   * @throws {AppError} `CONFIG_INVALID` without a mailer
   * @throws {DatabaseUnavailable}
   */
  request(userId: string): Promise<void>;
  /** Uses up the token of such a mail. @throws {AppError} `ONE_TIME_TOKEN_INVALID` */
  confirm(token: string): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    verification: VerificationService;
  }
}

export const VerificationService: VerificationService = facade('verification');

export interface VerificationDeps {
  database: Database;
  mail: MailService;
  outbox: OutboxService;
  event: EventService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  config: Config;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createVerificationService({
  database,
  mail,
  outbox,
  event,
  idempotency,
  config,
  waitUntil,
  now,
}: VerificationDeps): VerificationService {
  const purpose = 'verification' as const;
  const ttlSeconds = config.mail.verificationTtlSeconds;
  const issue = (user: Pick<User, 'id' | 'email'>) =>
    issueOneTimeToken(database, user, { purpose, ttlSeconds, atMs: now() });
  const send = (to: string, token: string) => mail.send(purpose, verificationMail(to, token, config.mail));

  return {
    welcome(user) {
      if (!mail.enabled) return;
      const sent = issue(user).then((token) => send(user.email, token));
      // If this fails, the owner can request another mail.
      waitUntil(sent.catch((error: unknown) => log('warn', 'auth.welcome_failed', describeError(error))));
    },

    async request(userId) {
      mail.assertEnabled();
      const [user] = await database.run((db) => db.select().from(users).where(eq(users.id, userId)));
      if (user === undefined || user.emailVerifiedAtMs !== null) return;
      const token = await issue(user);
      waitUntil(send(user.email, token));
    },

    async confirm(token) {
      const { row } = await findOneTimeToken(database, token, { purpose, atMs: now() });
      const { userId, email } = row;
      const atMs = now();
      const invalidation = outbox.prepare([userInvalidation(userId, 'details')]);
      const taken = takeOneTimeToken(row, atMs);
      // The token does not verify an address that the account got later.
      const stands = and(eq(users.email, email), taken.granted);
      const happened = event.prepare({ kind: 'email-verified', userId }, and(isNull(users.emailVerifiedAtMs), stands));
      const [first, changed] = await idempotency.batch(
        (db) => [
          // Before the change: its condition tests the row's old values.
          happened.insert(db),
          db
            .update(users)
            .set({ emailVerifiedAtMs: sql`coalesce(${users.emailVerifiedAtMs}, ${atMs})`, updatedAtMs: atMs })
            .where(and(eq(users.id, userId), stands))
            .returning(),
          ...invalidation.statements(db),
          ...taken.statements(db),
        ],
        { when: whileOwner(userId, eq(users.updatedAtMs, atMs)), userId },
      );
      if (changed.length === 0) throw invalidOneTimeToken();
      await invalidation.deliver();
      if ((first as unknown[]).length > 0) happened.report();
    },
  };
}
