import { and, eq, sql } from 'drizzle-orm';

import { describeError, log } from '../config/log';
import { isUniqueViolation } from '../db/client';
import type { Database, Statement } from '../db/client';
import { flag, greatest, jsonObject } from '../db/portable';
import { revokedTokens, sessions, users } from '../db/schema';
import type { UserRow } from '../db/schema';
import { AppError, unavailable } from '../errors';
import { versionStep } from './blacklist/versionStep';
import type { LoginAttempts } from './login/attempts';
import { createReauthentication } from './login/reauthentication';
import type { FreshToken } from './login/reauthentication';
import { dropOneTimeTokens, isReserved } from './oneTime/store';
import type { OutboxService } from './outbox.service';
import type { PasswordService } from './password.service';
import { authenticatedAt } from './session/refresh';
import { endOthers, whileOwner } from './session/statements';
import type { Device, SessionService } from './session.service';
import type { AccessClaims, RefreshGrant, TokenPair, TokenService, TokenSubject } from './token.service';
import { normalizeEmail, presentUser, userInvalidation } from './user.service';
import type { User } from './user.service';
import { searchText } from './user/search';
import type { BlacklistService } from './blacklist.service';
import type { EventService } from './event.service';
import type { IdempotencyService } from './idempotency.service';
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

/** Registration, login, logout and password changes. Refusals are `AppError`s. */
export interface AuthService {
  /** @throws {AppError} `EMAIL_TAKEN`, or `VALIDATION_FAILED` for a password that {@link PasswordService.check} refuses */
  register(registration: Registration, device: Device): Promise<SignedIn>;
  /** @throws {AppError} `INVALID_CREDENTIALS`, or `ACCOUNT_DISABLED` if the password is right */
  login(credentials: Credentials, device: Device): Promise<SignedIn>;
  /** @throws {AppError} `INVALID_TOKEN`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`, `TOKEN_REUSED` */
  refresh(refreshToken: string): Promise<TokenPair>;
  /**
   * Revokes a token (RFC 7009, section 2). A refresh token's session ends; an access token is refused from now on. An
   * unknown or expired token is not an error: the client's goal is already met.
   */
  revoke(token: string): Promise<void>;
  logout(claims: AccessClaims): Promise<void>;
  /** Ends every session of the user. */
  logoutAll(claims: AccessClaims): Promise<void>;
  /**
   * Confirms the password again in this session, as `requireFresh()` demands.
   *
   * @throws {AppError} `PASSWORD_INCORRECT`
   */
  reauthenticate(claims: AccessClaims, password: string): Promise<FreshToken>;
  /**
   * Ends every other session; this one gets new tokens. A retry with a token from before the change gets tokens of this
   * session if it sends the same new password.
   *
   * @throws {AppError} `PASSWORD_INCORRECT`, `VALIDATION_FAILED`; `TOKEN_REVOKED` for a session that has ended
   */
  changePassword(claims: AccessClaims, current: string, next: string): Promise<TokenPair>;
  /** Whether this token was outdated only by a renewal of its session. One query. */
  isRenewed(claims: AccessClaims): Promise<boolean>;
  /**
   * Issues tokens like those of an earlier response, with the user's present data. A session that has ended never gets
   * tokens again: Redis remembers an ended session only until the tokens issued before its end have expired.
   *
   */
  reissue(issued: IssuedTokens): Promise<SignedIn>;
}

/** The claims and grant of a response's tokens. */
export type IssuedTokens = RefreshGrant & TokenSubject;

declare module './scope' {
  interface ServiceMap {
    auth: AuthService;
  }
}

export const AuthService: AuthService = facade('auth');

/** An attempt fails only if another request ends sessions of the same user at the same moment. */
const LOGIN_ATTEMPTS = 3;

export interface AuthDeps {
  database: Database;
  session: SessionService;
  token: TokenService;
  passwords: PasswordService;
  outbox: OutboxService;
  blacklist: BlacklistService;
  event: EventService;
  idempotency: Pick<IdempotencyService, 'batch'>;
  attempts: LoginAttempts;
  waitUntil: (promise: Promise<unknown>) => void;
  now: () => number;
}

export function createAuthService(deps: AuthDeps): AuthService {
  const { database, session, token, passwords, outbox, blacklist, event, idempotency, attempts, waitUntil, now } = deps;

  const reauthentication = createReauthentication(deps);

  /** Whether the address belongs to an account, or is reserved for one that may change back to it. */
  const isTaken = async (email: string) => {
    const [row] = await database.run((db) =>
      db
        .select({ taken: flag(sql`${isAccounts(email)} or ${isReserved(email, now())}`).as('taken') })
        .from(sql`(select 1) as one`),
    );
    return row?.taken === 1;
  };

  const taken = () => new AppError('EMAIL_TAKEN', { errors: [{ pointer: '/email', detail: 'is already registered' }] });

  /**
   * Starts a session together with `extra`, and returns its tokens. `undefined` if, after `user` was read, the user's
   * sessions were ended or the account was disabled.
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
    const results = await idempotency.batch(
      (db) => {
        const first = extra(db);
        before = first.length;
        return [...first, ...start.statements(db), ...happened.statements(db)];
      },
      {
        when: sessionExists(sessionId),
        reference: { ...start.grant, ...subjectOf(user, now()) } satisfies IssuedTokens,
        userId: user.id,
      },
    );
    if ((results[before] as unknown[]).length === 0) return undefined;
    const [tokens, published] = await Promise.all([token.issue(subjectOf(user, now()), start.grant), start.publish()]);
    if (published === 'ended') return undefined;
    happened.report();
    if (published === 'current') return { user: presentUser(user), ...tokens };
    const grant = { ...start.grant, epoch: published.epoch };
    return { user: presentUser(published), ...(await token.issue(subjectOf(published, now()), grant)) };
  }

  /** Stores a new hash of the password, made with the present settings, unless the password has changed in the meantime. */
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
      await passwords.check(password, { email, name }, '/password');
      // Check before the expensive hash. The unique index decides finally.
      if (await isTaken(email)) throw taken();
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
          db.insert(users).select(newUser(user)),
          ...entry.statements(db),
          ...attempts.registered(db, user, device.address),
        ]);
      } catch (error) {
        throw isUniqueViolation(error) ? taken() : error;
      }
      // The address was reserved in the meantime.
      if (signedIn === undefined) throw taken();
      // The response need not wait until lists show the new user.
      waitUntil(entry.deliver());
      return signedIn;
    },

    async login({ email, password }, device) {
      for (let attempt = 1; attempt <= LOGIN_ATTEMPTS; attempt += 1) {
        const tried = await attempts.begin(normalizeEmail(email), device.address);
        const { user } = tried;
        const { valid, rehash } = await passwords.verify(user?.passwordHash, password);
        if (user === undefined || !valid) {
          if (user === undefined) event.unknownLogin();
          else event.note({ kind: 'login-failed', userId: user.id });
          if (user !== undefined && attempts.isTurningPoint(tried)) {
            event.note({ kind: 'login-limited', userId: user.id });
          }
          throw new AppError('INVALID_CREDENTIALS');
        }
        if (user.status !== 'active') throw new AppError('ACCOUNT_DISABLED');
        const signedIn = await signIn(user, device, 'login', (db) => attempts.succeeded(db, user.id, device.address));
        // Overtaken by a logout everywhere, a new password or a disabling: try again with the present data.
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
      const tokens = await token.issue(outcome.subject, outcome.grant, outcome.tokenId);
      event.count(outcome.rotated ? 'refresh' : 'refresh-repeated');
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
      const [rows] = await idempotency.batch((db) => [
        db
          .update(users)
          // Also larger than the epoch of the caller's token: D1 may have been restored from a backup since that token was
          // issued.
          .set({ epoch: sql`${greatest(users.epoch, epoch)} + ${versionStep()}` })
          .where(eq(users.id, userId))
          .returning(),
        endOthers(db, { userId, reason: 'logout-all', atMs: now() }),
        // An attacker with access to the account may have requested these.
        dropOneTimeTokens(db, userId, 'email-change', 'deletion'),
        ...versions.statements(db),
        ...happened.statements(db),
      ]);
      const [user] = rows;
      if (user === undefined) return;
      await versions.deliver(user);
      happened.report();
    },

    reauthenticate: (claims, password) => reauthentication.reauthenticate(claims, password),

    async changePassword(claims, current, next) {
      const { userId, sessionId, generation, epoch } = claims;
      const found = await session.find(sessionId);
      const user = found?.owner;
      if (found === undefined || user == null) throw new AppError('TOKEN_REVOKED');
      const renewed = session.renewedSince(found, claims);
      if (renewed !== undefined) {
        // The token was outdated by a change whose response was lost. A client that knows the new password gets its tokens
        // again. Nothing else can be changed with such a token.
        await session.countPassword(sessionId);
        const { valid } = await passwords.verify(user.passwordHash, next);
        if (!valid) throw new AppError('TOKEN_REVOKED');
        await renewed.publish();
        return token.issue(subjectOf(user, authenticatedAt(found.session)), renewed.grant);
      }
      await passwords.check(next, user, '/newPassword');
      await reauthentication.prove(user, sessionId, current, '/currentPassword');
      const passwordHash = await passwords.hash(next);
      const versions = outbox.prepareVersions(userId);
      const renewal = session.prepareRenewal(found, generation);
      // Only one of two concurrent changes succeeds. Its salted hash shows which one it is.
      const made = eq(users.passwordHash, passwordHash);
      const happened = event.prepare({ kind: 'password-changed', userId, sessionId }, made);
      const { expiresAtMs, generation: nextGeneration } = renewal.grant(user);
      // The database decides the epoch.
      const issued = jsonObject({
        sessionId,
        generation: nextGeneration,
        expiresAtMs,
        epoch: users.epoch,
        userId: users.id,
        role: users.role,
        accessVersion: users.accessVersion,
        authenticatedAtMs: now(),
      });
      const reference = sql<string>`(select ${issued} from ${users} where ${users.id} = ${userId})`;
      const [changed, continued] = await idempotency.batch(
        (db) => [
          db
            .update(users)
            .set({ passwordHash, epoch: sql`${greatest(users.epoch, epoch)} + ${versionStep()}`, updatedAtMs: now() })
            .where(and(eq(users.id, userId), eq(users.passwordHash, user.passwordHash)))
            .returning(),
          renewal.statement(db, made),
          endOthers(db, { userId, except: sessionId, reason: 'password', atMs: now(), when: made }),
          dropOneTimeTokens(db, userId, 'recovery', 'email-change', 'deletion'),
          ...versions.statements(db),
          ...happened.statements(db),
          ...attempts.forget(db, userId),
        ],
        { when: whileOwner(userId, made), reference },
      );
      const [owner] = changed;
      if (owner === undefined) throw new AppError('CONFLICT', { detail: 'The password was changed in the meantime.' });
      const continues = (continued as unknown[]).length > 0;
      const [tokens, { overtaken }, first] = await Promise.all([
        token.issue(subjectOf(owner, now()), renewal.grant(owner)),
        versions.deliver(owner),
        continues ? renewal.publish(owner) : ('ended' as const),
      ]);
      const published = continues && overtaken !== undefined ? await renewal.publish(overtaken) : first;
      happened.report();
      if (published === 'ended')
        throw new AppError('TOKEN_REVOKED', { detail: 'The password was changed; this session had ended.' });
      const latest = published === 'current' ? overtaken : published;
      if (latest === undefined) return tokens;
      return token.issue(subjectOf(latest, now()), renewal.grant(latest));
    },

    async isRenewed(claims) {
      const found = await session.find(claims.sessionId);
      return found !== undefined && session.renewedSince(found, claims) !== undefined;
    },

    async reissue(issued) {
      const owner = await session.ownerOfLive(issued);
      if (owner === undefined) throw new AppError('TOKEN_REVOKED');
      return { user: presentUser(owner), ...(await token.issue(issued, issued)) };
    },
  };
}

type Statements = (db: Parameters<Parameters<Database['batch']>[0]>[0]) => Statement[];

const subjectOf = ({ id, role, accessVersion }: UserRow, authenticatedAtMs: number) => ({
  userId: id,
  role,
  accessVersion,
  authenticatedAtMs,
});

const isAccounts = (email: string) => sql`exists (select 1 from ${users} where ${users.email} = ${email})`;

/** A new account's row, in the order of the table's columns. No row if its address is reserved for another account. */
const newUser = (user: UserRow) => sql`select ${user.id}, ${user.email}, ${user.name}, ${user.search}, ${user.role},
  ${user.status}, null, ${user.passwordHash}, ${user.epoch}, ${user.accessVersion}, ${user.createdAtMs}, ${user.updatedAtMs}
  where not ${isReserved(user.email, user.createdAtMs)}`;

const sessionExists = (id: string) => sql`exists (select 1 from ${sessions} where ${sessions.id} = ${id})`;
const notYetRevoked = (tokenId: string) =>
  sql`not exists (select 1 from ${revokedTokens} where ${revokedTokens.id} = ${tokenId})`;
