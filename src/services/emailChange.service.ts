import { and, eq, sql } from 'drizzle-orm';
import { randomBytes } from 'node:crypto';

import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { isUniqueViolation } from '../db/client';
import type { Database } from '../db/client';
import { flag } from '../db/portable';
import { oneTimeTokens, users } from '../db/schema';
import type { OneTimeTokenRow, UserRow } from '../db/schema';
import { versionStep } from './blacklist/versionStep';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
import type { LoginAttempts } from './login/attempts';
import { emailChangedMail, emailChangeMail, recoveryMail } from './mail/messages';
import type { MailService } from './mail.service';
import { mailLink } from './oneTime/links';
import {
  dropOneTimeTokens,
  findOneTimeToken,
  insertOneTimeToken,
  invalidOneTimeToken,
  isReserved,
  issueOneTimeToken,
  takeOneTimeToken,
} from './oneTime/store';
import { newOneTimeToken, oneTimeHash } from './oneTime/token';
import type { OneTimePurpose } from './oneTime/token';
import type { OutboxService } from './outbox.service';
import type { PasswordService } from './password.service';
import { facade } from './scope';
import { endOthers, whileOwner } from './session/statements';
import { normalizeEmail, userInvalidation } from './user.service';
import { searchWithEmail } from './user/search';

/** Changes the e-mail address of an account: confirmed at the new address, announced at the old one, which can undo it. */
export interface EmailChangeService {
  /**
   * Mails a link to the new address, after the response. It reveals nowhere whether the address already has an account: not
   * in the response, its timing, or the account's history.
   *
   * @throws {AppError} `CONFIG_INVALID` without a mailer
   * @throws {DatabaseUnavailable}
   */
  request(userId: string, email: string): Promise<void>;
  /**
   * Takes the token of such a mail: the account gets the new address, which counts as verified. Sessions continue. The old
   * address gets a mail with a token that undoes the change, and stays reserved for this account while that token is valid.
   *
   * @throws {AppError} `ONE_TIME_TOKEN_INVALID`
   */
  confirm(token: string): Promise<void>;
  /**
   * Changes the account back to the old address: every session ends, the password becomes invalid, and a mail to the old
   * address lets its owner set a new one. Undoing an earlier change stays possible; undoing a later one does not.
   *
   * @throws {AppError} `ONE_TIME_TOKEN_INVALID`
   */
  undo(token: string): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    emailChange: EmailChangeService;
  }
}

export const EmailChangeService: EmailChangeService = facade('emailChange');

export interface EmailChangeDeps {
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

export function createEmailChangeService(deps: EmailChangeDeps): EmailChangeService {
  const { database, mail, outbox, passwords, event, idempotency, attempts, config, waitUntil, now } = deps;
  const { emailChangeTtlSeconds, emailUndoTtlSeconds, recoveryTtlSeconds } = config.mail;

  /** A new token, and its row. */
  function newToken(purpose: OneTimePurpose, user: { userId: string; email: string }, ttlSeconds: number) {
    const token = newOneTimeToken(purpose);
    const createdAtMs = now();
    const expiresAtMs = createdAtMs + ttlSeconds * 1_000;
    const hash = oneTimeHash(token, purpose)!;
    const row: OneTimeTokenRow = { hash, purpose, ...user, formerEmail: null, createdAtMs, expiresAtMs };
    return { token, row };
  }

  /** @returns `undefined` if the address is taken or reserved */
  async function issue(userId: string, email: string): Promise<string | undefined> {
    const requested = event.prepare({ kind: 'email-change-requested', userId });
    const atMs = now();
    const [[user], [other], [reserved]] = await database.batch((db) => [
      db
        .select()
        .from(users)
        .where(and(eq(users.id, userId), eq(users.status, 'active'))),
      db.select({ id: users.id }).from(users).where(eq(users.email, email)),
      db.select({ one: flag(isReserved(email, atMs, userId)).as('reserved') }).from(sql`(select 1) as one`),
    ]);
    if (user === undefined) return undefined;
    if (other !== undefined || reserved?.one === 1) {
      await database.batch((db) => requested.statements(db));
      requested.report();
      return undefined;
    }
    const options = {
      purpose: 'email-change',
      ttlSeconds: emailChangeTtlSeconds,
      atMs,
      formerEmail: user.email,
    } as const;
    const token = await issueOneTimeToken(database, { id: userId, email }, options, (db) => requested.statements(db));
    requested.report();
    return token;
  }

  return {
    async request(userId, given) {
      const email = normalizeEmail(given);
      await mailLink(deps, {
        purpose: 'email-change',
        issue: () => issue(userId, email),
        mailOf: (token) => emailChangeMail(email, token, config.mail),
        failed: (error) => log('error', 'auth.email_change_failed', describeError(error)),
      });
    },

    async confirm(token) {
      const { row, owner: before } = await findOneTimeToken(database, token, { purpose: 'email-change', atMs: now() });
      const { userId, email } = row;
      const former = before.email;
      const atMs = now();
      const taken = takeOneTimeToken(row, atMs);
      const free = sql`not ${isReserved(email, atMs, userId)}`;
      const stands = and(eq(users.email, former), eq(users.status, 'active'), taken.granted, free)!;
      const undo = newToken('email-undo', { userId, email: former }, emailUndoTtlSeconds);
      const happened = event.prepare({ kind: 'email-changed', userId }, stands);
      const versions = outbox.prepareVersions(userId, ['accessVersion']);
      const invalidation = outbox.prepare([userInvalidation(userId, 'name')]);
      let changed: UserRow[];
      try {
        const results = await idempotency.batch(
          (db) => [
            // Before the change: their conditions test the row's old values.
            happened.insert(db),
            insertOneTimeToken(db, undo.row, stands),
            db
              .update(users)
              .set({
                email,
                search: searchWithEmail(email),
                emailVerifiedAtMs: atMs,
                // Redis's copies of the sessions contain the address: a newer version makes them outdated, so they are
                // written again.
                accessVersion: sql`${users.accessVersion} + ${versionStep()}`,
                updatedAtMs: atMs,
              })
              .where(and(eq(users.id, userId), stands))
              .returning(),
            ...invalidation.statements(db),
            ...versions.statements(db),
            // Those sent to the former address. They are invalid in any case once the account has another address.
            dropOneTimeTokens(db, userId, 'recovery', 'verification', 'deletion'),
            ...taken.statements(db),
          ],
          { when: isIssued(undo.row), userId },
        );
        changed = results[2];
      } catch (error) {
        // Another account was registered with the address after the mail was sent.
        throw isUniqueViolation(error) ? invalidOneTimeToken() : error;
      }
      const [owner] = changed;
      if (owner === undefined) throw invalidOneTimeToken();
      await Promise.all([versions.deliver(owner), invalidation.deliver()]);
      happened.report();
      waitUntil(mail.send('email-changed', emailChangedMail(former, undo.token, config.mail)));
    },

    async undo(token) {
      const { row, owner: before } = await findOneTimeToken(database, token, { purpose: 'email-undo', atMs: now() });
      if (before.status !== 'active') throw invalidOneTimeToken();
      const { userId, email } = row;
      // The hash of a random password: the person who changed the address knew the former password.
      const passwordHash = await passwords.hash(randomBytes(32).toString('base64url'));
      const atMs = now();
      const live = and(eq(oneTimeTokens.hash, row.hash), eq(oneTimeTokens.purpose, 'email-undo'));
      const granted = sql`exists (select 1 from ${oneTimeTokens} where ${live})`;
      // The salt is new: if two requests use the same token, only one finds its own hash in the account.
      const mine = eq(users.passwordHash, passwordHash);
      const recovery = newToken('recovery', { userId, email }, recoveryTtlSeconds);
      const happened = event.prepare({ kind: 'email-change-undone', userId }, mine);
      const versions = outbox.prepareVersions(userId);
      const invalidation = outbox.prepare([userInvalidation(userId, 'name')]);
      const [changed] = await idempotency.batch(
        (db) => [
          db
            .update(users)
            .set({
              email,
              search: searchWithEmail(email),
              emailVerifiedAtMs: atMs,
              passwordHash,
              epoch: sql`${users.epoch} + ${versionStep()}`,
              updatedAtMs: atMs,
            })
            .where(and(eq(users.id, userId), eq(users.status, 'active'), granted))
            .returning(),
          endOthers(db, { userId, reason: 'email', atMs, when: mine }),
          ...versions.statements(db),
          ...invalidation.statements(db),
          ...happened.statements(db),
          ...attempts.forget(db, userId),
          dropOneTimeTokens(db, userId, 'recovery', 'verification', 'email-change', 'deletion'),
          // This token, and those of later changes: a thief's later changes must not lead back to a thief's address.
          db.delete(oneTimeTokens).where(
            sql`${oneTimeTokens.userId} = ${userId} and ${oneTimeTokens.purpose} = 'email-undo'
            and ${oneTimeTokens.createdAtMs} >= (select ${oneTimeTokens.createdAtMs} from ${oneTimeTokens} where ${live})`,
          ),
          insertOneTimeToken(db, recovery.row, mine),
        ],
        { when: whileOwner(userId, mine), userId },
      );
      const [owner] = changed;
      if (owner === undefined) throw invalidOneTimeToken();
      await Promise.all([versions.deliver(owner), invalidation.deliver()]);
      happened.report();
      waitUntil(mail.send('recovery', recoveryMail(email, recovery.token, config.mail)));
    },
  };
}

/** Only the batch that made the change has issued this token. */
const isIssued = ({ hash }: OneTimeTokenRow) =>
  sql`exists (select 1 from ${oneTimeTokens} where ${oneTimeTokens.hash} = ${hash})`;
