import { and, eq, sql } from 'drizzle-orm';

import { issueToOwner, mailLink } from './oneTime/links';
import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database } from '../db/client';
import { users } from '../db/schema';
import { versionStep } from './blacklist/versionStep';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
import { recoveryMail } from './mail/messages';
import type { LoginAttempts } from './login/attempts';
import type { MailService } from './mail.service';
import {
  dropOneTimeTokens,
  findOneTimeToken,
  invalidOneTimeToken,
  purgeOneTimeTokens,
  takeOneTimeToken,
} from './oneTime/store';
import type { OutboxService } from './outbox.service';
import type { PasswordService } from './password.service';
import { facade } from './scope';
import { endOthers, whileOwner } from './session/statements';
import { normalizeEmail, userInvalidation } from './user.service';

/** Password recovery for owners who have forgotten the password but can read the account's mail. */
export interface RecoveryService {
  /**
   * Mails a link to the account with this address, if there is one. The response is the same in both cases.
   *
   * @param by the administrator who requests it
   * @throws {AppError} `CONFIG_INVALID` without a mailer
   * @throws {DatabaseUnavailable}
   */
  request(email: string, by?: string): Promise<void>;
  /**
   * Uses up the token of such a mail: sets a new password, and ends every session of the account. It starts no session: a
   * thief of the mail can only change the password, which the owner notices, and gets no hidden session.
   *
   * @throws {AppError} `ONE_TIME_TOKEN_INVALID`; `VALIDATION_FAILED` for a password that is refused, which leaves the token
   *   valid
   */
  reset(token: string, newPassword: string): Promise<void>;
  /** Deletes expired one-time tokens, and old counts of wrong passwords for addresses without an account. */
  purge(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    recovery: RecoveryService;
  }
}

export const RecoveryService: RecoveryService = facade('recovery');

export interface RecoveryDeps {
  database: Database;
  mail: MailService;
  outbox: OutboxService;
  passwords: PasswordService;
  event: EventService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  attempts: LoginAttempts;
  config: Config;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createRecoveryService(deps: RecoveryDeps): RecoveryService {
  const { database, outbox, passwords, event, idempotency, attempts, config, now } = deps;
  const ttlSeconds = config.mail.recoveryTtlSeconds;

  return {
    async request(given, by) {
      const email = normalizeEmail(given);
      await mailLink(deps, {
        purpose: 'recovery',
        issue: () => issueToOwner(deps, email, { purpose: 'recovery', ttlSeconds, kind: 'recovery-requested', by }),
        mailOf: (token) => recoveryMail(email, token, config.mail),
        failed: (error) => log('error', 'auth.recovery_failed', describeError(error)),
      });
    },

    async reset(token, newPassword) {
      // Check before the expensive hash. The batch decides finally.
      const { row, owner: before } = await findOneTimeToken(database, token, { purpose: 'recovery', atMs: now() });
      if (before.status !== 'active') throw invalidOneTimeToken();
      const { userId, email } = row;
      await passwords.check(newPassword, before, '/newPassword');
      const passwordHash = await passwords.hash(newPassword);
      // The salt is new: of all concurrent requests with this token, only one finds its own hash in the account.
      const mine = eq(users.passwordHash, passwordHash);
      const happened = event.prepare({ kind: 'password-reset', userId }, mine);
      const atMs = now();
      const versions = outbox.prepareVersions(userId);
      const invalidation = outbox.prepare([userInvalidation(userId, 'details')]);
      const taken = takeOneTimeToken(row, atMs);
      const [changed] = await idempotency.batch(
        (db) => [
          db
            .update(users)
            .set({
              passwordHash,
              epoch: sql`${users.epoch} + ${versionStep()}`,
              // The token proves that its holder can read this mailbox.
              emailVerifiedAtMs: sql`coalesce(${users.emailVerifiedAtMs}, ${atMs})`,
              updatedAtMs: atMs,
            })
            // Only if the account was not disabled, and its address not changed, since the mail was sent.
            .where(and(eq(users.id, userId), eq(users.email, email), eq(users.status, 'active'), taken.granted))
            .returning(),
          endOthers(db, { userId, reason: 'password', atMs, when: mine }),
          // Two concurrent requests with one token both leave these messages. Delivering a version again is harmless.
          ...versions.statements(db),
          ...invalidation.statements(db),
          ...happened.statements(db),
          ...attempts.forget(db, userId),
          dropOneTimeTokens(db, userId, 'email-change', 'deletion'),
          ...taken.statements(db),
        ],
        { when: whileOwner(userId, mine), userId },
      );
      const [owner] = changed;
      if (owner === undefined) throw invalidOneTimeToken();
      await Promise.all([versions.deliver(owner), invalidation.deliver()]);
      happened.report();
    },

    async purge() {
      await purgeOneTimeTokens(database, now());
      await attempts.purge();
    },
  };
}
