import { and, eq, sql } from 'drizzle-orm';

import { issueToOwner, mailLink } from './oneTime/links';
import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import type { Database } from '../db/client';
import { users } from '../db/schema';
import { unavailable } from '../errors';
import type { EventService } from './event.service';
import { deletionMail } from './mail/messages';
import type { MailService } from './mail.service';
import { findOneTimeToken, invalidOneTimeToken, takeOneTimeToken } from './oneTime/store';
import { facade } from './scope';
import { normalizeEmail } from './user.service';
import type { UserService } from './user.service';
import { lastAdministrator } from './user/administrators';

/** Deletes accounts without the app: by a link that is mailed to the owner. */
export interface AccountDeletionService {
  /**
   * Mails a link to the active account with this address, if there is one. The look-up begins only after the response, so
   * the response's timing reveals nothing.
   *
   * @throws {AppError} `CONFIG_INVALID` without a mailer
   * @throws {DatabaseUnavailable}
   */
  request(email: string): Promise<void>;
  /**
   * Deletes the account with the token of such a mail.
   *
   * @throws {AppError} `ONE_TIME_TOKEN_INVALID`; `LAST_ADMINISTRATOR`, which leaves the token valid
   */
  confirm(token: string): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    accountDeletion: AccountDeletionService;
  }
}

export const AccountDeletionService: AccountDeletionService = facade('accountDeletion');

/** An attempt fails only if the same user logs in, or the token is withdrawn, at the same moment. */
const ATTEMPTS = 3;

export interface AccountDeletionDeps {
  database: Database;
  mail: MailService;
  event: EventService;
  user: Pick<UserService, 'deleteUserWhile'>;
  config: Config;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createAccountDeletionService(deps: AccountDeletionDeps): AccountDeletionService {
  const { database, user, config, now } = deps;
  const purpose = 'deletion' as const;
  const ttlSeconds = config.mail.deletionTtlSeconds;

  return {
    async request(given) {
      const email = normalizeEmail(given);
      await mailLink(deps, {
        purpose,
        issue: () => issueToOwner(deps, email, { purpose, ttlSeconds, kind: 'deletion-requested' }),
        mailOf: (token) => deletionMail(email, token, config.mail),
        failed: (error) => log('error', 'auth.deletion_failed', describeError(error)),
      });
    },

    async confirm(token) {
      for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
        const { row, owner } = await findOneTimeToken(database, token, { purpose, atMs: now() });
        if (owner.status !== 'active') throw invalidOneTimeToken();
        const { granted } = takeOneTimeToken(row, now());
        const stands = sql`${granted} and exists (select 1 from ${users} where ${and(
          eq(users.id, row.userId),
          eq(users.email, row.email),
          eq(users.status, 'active'),
        )})`;
        const outcome = await user.deleteUserWhile(row.userId, stands);
        if (outcome === 'deleted') return;
        if (outcome === 'last-administrator') throw lastAdministrator();
        // `missing`: another request has deleted the account. `overtaken`: a session has begun or the token was withdrawn;
        // try again.
        if (outcome === 'missing') throw invalidOneTimeToken();
      }
      throw unavailable('The deletion', 1);
    },
  };
}
