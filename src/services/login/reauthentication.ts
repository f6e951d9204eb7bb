import { and, eq, isNull, sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { sessions } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import { AppError } from '../../errors';
import type { EventService } from '../event.service';
import type { PasswordService } from '../password.service';
import type { SessionService } from '../session.service';
import type { AccessClaims, TokenPair, TokenService } from '../token.service';

/** An access token only: the session's refresh token stays unchanged. */
export type FreshToken = Omit<TokenPair, 'refresh_token'>;

export interface Reauthentication {
  /**
   * Checks the password within a session. Wrong ones are counted; at the limit the session ends.
   *
   * @param pointer the password's place in the body
   * @throws {AppError} `PASSWORD_INCORRECT`; `TOKEN_REVOKED` once the session has reached the limit
   */
  prove(user: UserRow, sessionId: string, password: string, pointer: string): Promise<void>;
  /** Records in the session that the password was confirmed now. @throws {AppError} as {@link prove} */
  reauthenticate(claims: AccessClaims, password: string): Promise<FreshToken>;
}

export interface ReauthenticationDeps {
  database: Database;
  session: SessionService;
  token: TokenService;
  passwords: PasswordService;
  event: EventService;
  now: () => number;
}

export function createReauthentication(deps: ReauthenticationDeps): Reauthentication {
  const { database, session, token, passwords, event, now } = deps;

  const prove: Reauthentication['prove'] = async (user, sessionId, password, pointer) => {
    const { isLast } = await session.countPassword(sessionId);
    const { valid } = await passwords.verify(user.passwordHash, password);
    if (valid) return;
    event.note({ kind: 'password-failed', userId: user.id, sessionId });
    if (isLast) await session.ensureEnded(sessionId, 'revoked');
    // Not a 401: the caller is authenticated, and need not log in again.
    throw new AppError('PASSWORD_INCORRECT', {
      errors: [{ pointer, detail: 'is not the password of this account' }],
    });
  };

  return {
    prove,

    async reauthenticate({ userId, sessionId, generation }, password) {
      const found = await session.find(sessionId);
      const user = found?.owner;
      if (found === undefined || user == null) throw new AppError('TOKEN_REVOKED');
      await prove(user, sessionId, password, '/password');
      const atMs = now();
      const live = and(eq(sessions.id, sessionId), isNull(sessions.endedAtMs), eq(sessions.epoch, user.epoch));
      const happened = event.prepare(
        { kind: 'reauthenticated', userId, sessionId },
        sql`exists (select 1 from ${sessions} where ${live})`,
      );
      const [changed] = await database.batch((db) => [
        db.update(sessions).set({ authenticatedAtMs: atMs, passwordFailures: 0 }).where(live).returning(),
        ...happened.statements(db),
      ]);
      const [row] = changed;
      if (row === undefined) throw new AppError('TOKEN_REVOKED');
      happened.report();
      const { id, role, accessVersion } = user;
      const { epoch, expiresAtMs } = row;
      const { refresh_token: _, ...fresh } = await token.issue(
        { userId: id, role, accessVersion, authenticatedAtMs: atMs },
        { sessionId, generation, epoch, expiresAtMs },
      );
      return fresh;
    },
  };
}
