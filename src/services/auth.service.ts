import { and, eq, sql } from 'drizzle-orm';

import { describeError, log } from '../config/log';
import { isUniqueViolation } from '../db/client';
import type { Database, Statement } from '../db/client';
import { revokedTokens, sessions, users } from '../db/schema';
import type { UserRow } from '../db/schema';
import { AppError, unavailable } from '../errors';
import { dropOneTimeTokens } from './oneTime/store';
import type { OutboxService } from './outbox.service';
import type { PasswordService } from './password.service';
import { endOthers } from './session/statements';
import type { Device, SessionService } from './session.service';
import type { AccessClaims, TokenPair, TokenService } from './token.service';
import { normalizeEmail, presentUser, userInvalidation } from './user.service';
import type { User } from './user.service';
import { searchText } from './user/search';
import type { BlacklistService } from './blacklist.service';
import { reportUnknownLogin } from './event.service';
import type { EventService } from './event.service';
import { facade } from './scope';

export interface Registration {
  email: string;
  password: string;
  name: string;
}

export interface Credentials {
  email: string;
  password: string;
}

export type SignedIn = { user: User } & TokenPair;

/** Accounts' way in and out. Everything that it refuses is an `AppError`. */
export interface AuthService {
  /** @throws {AppError} `EMAIL_TAKEN`, or `VALIDATION_FAILED` for a password that {@link PasswordService.check} refuses */
  register(registration: Registration, device: Device): Promise<SignedIn>;
  /** @throws {AppError} `INVALID_CREDENTIALS` or, to who knows the password, `ACCOUNT_DISABLED` */
  login(credentials: Credentials, device: Device): Promise<SignedIn>;
  /** @throws {AppError} `INVALID_TOKEN`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`, `TOKEN_REUSED` */
  refresh(refreshToken: string): Promise<TokenPair>;
  /**
   * Revokes a token (RFC 7009, section 2): with a refresh token its session ends, an access token is refused from now
   * on. A token that is not ours, or no good any more, is no error: the client has what it wants.
   */
  revoke(token: string): Promise<void>;
  logout(claims: AccessClaims): Promise<void>;
  /** Ends every session of the user. */
  logoutAll(claims: AccessClaims): Promise<void>;
  /** Ends every other session; this one gets new tokens. @throws {AppError} `PASSWORD_INCORRECT`, `VALIDATION_FAILED` */
  changePassword(claims: AccessClaims, current: string, next: string): Promise<TokenPair>;
}

declare module './scope' {
  interface ServiceMap {
    auth: AuthService;
  }
}

export const AuthService: AuthService = facade('auth');

/** Each is overtaken only by somebody who ends sessions of this very user at this very moment. */
const LOGIN_ATTEMPTS = 3;

export interface AuthDeps {
  database: Database;
  session: SessionService;
  token: TokenService;
  passwords: PasswordService;
  outbox: OutboxService;
  blacklist: BlacklistService;
  event: EventService;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createAuthService(deps: AuthDeps): AuthService {
  const { database, session, token, passwords, outbox, blacklist, event, waitUntil, now } = deps;

  const byEmail = async (email: string) => {
    const [row] = await database.run((db) => db.select().from(users).where(eq(users.email, email)));
    return row;
  };

  const taken = () => new AppError('EMAIL_TAKEN', { errors: [{ pointer: '/email', detail: 'is already registered' }] });

  /**
   * Begins a session together with `extra`, and answers its tokens; `undefined` when the user's sessions were ended, or
   * the account disabled, after `user` was read.
   */
  async function signIn(
    user: UserRow,
    device: Device,
    kind: 'registered' | 'login',
    extra: Statements = () => [],
  ): Promise<SignedIn | undefined> {
    const start = await session.prepareStart(user, device);
    const { sessionId } = start.grant;
    const happened = event.prepare({ kind, userId: user.id, sessionId }, sessionExists(sessionId));
    let before = 0;
    const results = await database.batch((db) => {
      const first = extra(db);
      before = first.length;
      return [...first, ...start.statements(db), ...happened.statements(db)];
    });
    if ((results[before] as unknown[]).length === 0) return undefined;
    const [tokens, published] = await Promise.all([token.issue(subjectOf(user), start.grant), start.publish()]);
    if (published === 'ended') return undefined;
    happened.report();
    if (published === 'current') return { user: presentUser(user), ...tokens };
    const grant = { ...start.grant, epoch: published.epoch };
    return { user: presentUser(published), ...(await token.issue(subjectOf(published), grant)) };
  }

  /** Stores the password as the settings of today want it, unless it was changed meanwhile. */
  async function rehashed({ id, passwordHash: former }: UserRow, password: string): Promise<void> {
    try {
      const passwordHash = await passwords.hash(password);
      await database.run((db) =>
        db
          .update(users)
          .set({ passwordHash })
          .where(and(eq(users.id, id), eq(users.passwordHash, former))),
      );
    } catch (error) {
      log('warn', 'auth.rehash_failed', describeError(error));
    }
  }

  return {
    async register({ email: given, password, name }, device) {
      const email = normalizeEmail(given);
      passwords.check(password, { email, name }, '/password');
      // Before the hash, which is dear; the unique index decides.
      if ((await byEmail(email)) !== undefined) throw taken();
      const at = now();
      const user: UserRow = {
        id: crypto.randomUUID(),
        email,
        name,
        search: searchText({ name, email }),
        role: 'user',
        status: 'active',
        emailVerifiedAtMs: null,
        passwordHash: await passwords.hash(password),
        epoch: 1,
        accessVersion: 1,
        createdAtMs: at,
        updatedAtMs: at,
      };
      const entry = outbox.prepare([userInvalidation(user.id)]);
      let signedIn: SignedIn | undefined;
      try {
        signedIn = await signIn(user, device, 'registered', (db) => [
          db.insert(users).values(user),
          ...entry.statements(db),
        ]);
      } catch (error) {
        throw isUniqueViolation(error) ? taken() : error;
      }
      if (signedIn === undefined) throw new Error('a session of a new account did not begin');
      // Nobody waits for a list to show the newcomer.
      waitUntil(entry.deliver());
      return signedIn;
    },

    async login({ email, password }, device) {
      for (let attempt = 1; attempt <= LOGIN_ATTEMPTS; attempt += 1) {
        const user = await byEmail(normalizeEmail(email));
        const { valid, rehash } = await passwords.verify(user?.passwordHash, password);
        if (user === undefined || !valid) {
          if (user === undefined) reportUnknownLogin();
          else event.note({ kind: 'login-failed', userId: user.id });
          throw new AppError('INVALID_CREDENTIALS');
        }
        if (user.status !== 'active') throw new AppError('ACCOUNT_DISABLED');
        const signedIn = await signIn(user, device, 'login');
        // Overtaken by a logout everywhere, a new password or a disabling: what holds now decides.
        if (signedIn === undefined) continue;
        if (rehash) waitUntil(rehashed(user, password));
        return signedIn;
      }
      throw unavailable('The login', 1);
    },

    async refresh(refreshToken) {
      const outcome = await session.refresh(token.readRefresh(refreshToken));
      if (outcome.status === 'revoked') throw new AppError('TOKEN_REVOKED');
      if (outcome.status === 'reuse') throw new AppError('TOKEN_REUSED');
      const tokens = await token.issue(outcome.subject, outcome.grant);
      return outcome.rotated ? tokens : { ...tokens, refresh_token: refreshToken };
    },

    async revoke(presented) {
      const recognized = await token.recognize(presented);
      if (recognized === undefined) return;
      if (recognized.kind === 'refresh') {
        await session.ensureEnded(recognized.sessionId, 'revoked');
        return;
      }
      const { claims } = recognized;
      const { userId, sessionId, tokenId } = claims;
      const revoked = event.prepare({ kind: 'token-revoked', userId, sessionId }, notYetRevoked(tokenId));
      await blacklist.revokeToken(claims, revoked);
      revoked.report();
    },

    async logout({ sessionId }) {
      await session.ensureEnded(sessionId, 'logout');
    },

    async logoutAll({ userId, epoch }) {
      const versions = outbox.prepareVersions(userId);
      const happened = event.prepare({ kind: 'logout-all', userId });
      const [rows] = await database.batch((db) => [
        db
          .update(users)
          // Larger than that of the caller's token, too: D1 may have been restored from a backup since.
          .set({ epoch: sql`max(${users.epoch}, ${epoch}) + 1` })
          .where(eq(users.id, userId))
          .returning(),
        endOthers(db, { userId, reason: 'logout-all', atMs: now() }),
        ...versions.statements(db),
        ...happened.statements(db),
      ]);
      const [user] = rows as UserRow[];
      if (user === undefined) return;
      await versions.deliver(user);
      happened.report();
    },

    async changePassword({ userId, sessionId, generation, epoch }, current, next) {
      const found = await session.find(sessionId);
      const user = found?.owner;
      if (found === undefined || user == null) throw new AppError('TOKEN_REVOKED');
      passwords.check(next, user, '/newPassword');
      const { valid } = await passwords.verify(user.passwordHash, current);
      if (!valid) {
        // Not a 401: the caller is who they are, and need not log in again.
        throw new AppError('PASSWORD_INCORRECT', {
          errors: [{ pointer: '/currentPassword', detail: 'is not the password of this account' }],
        });
      }
      const passwordHash = await passwords.hash(next);
      const versions = outbox.prepareVersions(userId);
      const renewal = session.prepareRenewal(found, generation);
      // Of two changes at once one is made: the hash, salted, tells whether it is this one.
      const made = eq(users.passwordHash, passwordHash);
      const happened = event.prepare({ kind: 'password-changed', userId, sessionId }, made);
      const [changed, renewed] = await database.batch((db) => [
        db
          .update(users)
          .set({ passwordHash, epoch: sql`max(${users.epoch}, ${epoch}) + 1`, updatedAtMs: now() })
          .where(and(eq(users.id, userId), eq(users.passwordHash, user.passwordHash)))
          .returning(),
        renewal.statement(db, made),
        endOthers(db, { userId, except: sessionId, reason: 'password', atMs: now(), when: made }),
        dropOneTimeTokens(db, userId, 'recovery'),
        ...versions.statements(db),
        ...happened.statements(db),
      ]);
      const [owner] = changed as UserRow[];
      if (owner === undefined) throw new AppError('CONFLICT', { detail: 'The password was changed meanwhile.' });
      const goesOn = (renewed as unknown[]).length > 0;
      const [tokens, , published] = await Promise.all([
        token.issue(subjectOf(owner), renewal.grant(owner)),
        versions.deliver(owner),
        goesOn ? renewal.publish(owner) : ('ended' as const),
      ]);
      happened.report();
      if (published === 'ended')
        throw new AppError('TOKEN_REVOKED', { detail: 'The password was changed; this session had ended.' });
      if (published === 'current') return tokens;
      return token.issue(subjectOf(published), renewal.grant(published));
    },
  };
}

type Statements = (db: Parameters<Parameters<Database['batch']>[0]>[0]) => Statement[];

const subjectOf = ({ id, role, accessVersion }: UserRow) => ({ userId: id, role, accessVersion });

const sessionExists = (id: string) => sql`exists (select 1 from ${sessions} where ${sessions.id} = ${id})`;
const notYetRevoked = (tokenId: string) =>
  sql`not exists (select 1 from ${revokedTokens} where ${revokedTokens.id} = ${tokenId})`;
