import type { Context } from 'hono';

import { AppError } from '../errors';
import { BlacklistService } from '../services/blacklist.service';
import type { RevocationFailurePolicy, Verdict } from '../services/blacklist.service';
import { LastSeenService } from '../services/lastSeen.service';
import { TokenService } from '../services/token.service';
import type { AccessClaims } from '../services/token.service';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';

/** What {@link authenticate} adds to the context. */
export interface AuthVariables {
  auth: AccessClaims;
}

export interface AuthenticateOptions {
  /** What decides whether a token is revoked while Redis is away. @default 'd1' */
  whenUnavailable?: RevocationFailurePolicy;
}

/**
 * Who is asking: a valid, unrevoked access token in `Authorization: Bearer`. The token itself is checked locally, its
 * revocation by one command.
 *
 * @example
 * app.get('/orders', authenticate(), (c) => c.json(ordersOf(c.var.auth.userId)));
 */
export function authenticate({ whenUnavailable = 'd1' }: AuthenticateOptions = {}): Check<AuthVariables> {
  return check<AuthVariables>({
    name: 'authenticate()',
    provides: 'auth',
    async local(c) {
      const claims = await TokenService.verifyAccess(bearerOf(c));
      refuse(BlacklistService.known(claims));
      setAuth(c, claims);
    },
    prepare(c) {
      const auth = authOf(c);
      if (auth === undefined) return undefined;
      const verdict = BlacklistService.check(auth, whenUnavailable);
      // Checks before this one may refuse first.
      verdict.catch(() => undefined);
      return async () => {
        refuse(await verdict);
        LastSeenService.note(auth);
      };
    },
  });
}

/** Refuses whoever is authenticated in another role. Stands after {@link authenticate}. */
export function requireRole(role: AccessClaims['role']): Check {
  return check({
    name: 'requireRole()',
    requires: 'auth',
    prepare: (c) => () => {
      if (authOf(c)?.role !== role) throw new AppError('FORBIDDEN');
    },
  });
}

function refuse(verdict: Verdict): void {
  switch (verdict) {
    case 'valid':
      return;
    case 'revoked':
      throw new AppError('TOKEN_REVOKED');
    case 'superseded':
      throw new AppError('TOKEN_SUPERSEDED');
  }
}

/** The credentials of RFC 6750, section 2.1, and no other place for them. */
function bearerOf(c: Context<AppEnv>): string {
  const header = c.req.header('Authorization');
  if (header === undefined) throw new AppError('AUTHENTICATION_REQUIRED');
  // Two headers arrive joined by a comma, which no token has.
  const match = /^Bearer ([\w.~+/=-]+)$/i.exec(header);
  if (match?.[1] === undefined) throw new AppError('INVALID_TOKEN');
  return match[1];
}

type WithAuth = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & Partial<AuthVariables> }>;

/** The caller, once the token was verified; a check that must not rely on it yet may still use it as an identity. */
export function authOf(c: Context<AppEnv>): AccessClaims | undefined {
  return (c as unknown as WithAuth).get('auth');
}

function setAuth(c: Context<AppEnv>, auth: AccessClaims): void {
  (c as unknown as WithAuth).set('auth', auth);
}
