import type { Context } from 'hono';

import { AppError } from '../errors';
import { AuthService } from '../services/auth.service';
import { BlacklistService } from '../services/blacklist.service';
import type { RevocationFailurePolicy, RevocationVerdict } from '../services/blacklist.service';
import { LastSeenService } from '../services/lastSeen.service';
import { TokenService } from '../services/token.service';
import type { AccessClaims } from '../services/token.service';
import { contextWith } from './appEnv';
import { check } from './check';
import type { Check } from './check';
import { leaveToRepeat } from './repeats';
import type { AppEnv } from './services.middleware';

/** Variables that {@link authenticate} adds to the context. */
export interface AuthVariables {
  auth: AccessClaims;
}

export interface AuthenticateOptions {
  /** How to decide whether a token is revoked while Redis is away. @default 'd1' */
  whenUnavailable?: RevocationFailurePolicy;
  /**
   * How to treat a revoked token. `repeat`: its request gets only the stored response of an earlier request with the same
   * `Idempotency-Key`, which may be the request that revoked the token. `renewed`: a token that only a renewal of its own session
   * has outdated passes; the handler must not change anything for it. @default 'refuse'
   */
  revoked?: 'refuse' | 'repeat' | 'renewed';
}

/**
 * Identifies the caller by a valid, unrevoked access token in `Authorization: Bearer`. The token itself is checked locally, its
 * revocation by one command.
 *
 * @example
 * app.get('/orders', authenticate(), (c) => c.json(ordersOf(c.var.auth.userId)));
 */
export function authenticate(options: AuthenticateOptions = {}): Check<AuthVariables> {
  const { whenUnavailable = 'd1', revoked = 'refuse' } = options;
  /** Requests whose token this isolate knows to be revoked: they must not count as the token owner's. */
  const knownRevoked = new WeakSet<Context>();

  /** Whether a revoked token passes for now. */
  async function passes(c: Context<AppEnv>, claims: AccessClaims): Promise<boolean> {
    if (revoked === 'repeat') return leaveToRepeat(c, new AppError('TOKEN_REVOKED'));
    return revoked === 'renewed' && AuthService.isRenewed(claims);
  }

  return check<AuthVariables>({
    name: 'authenticate()',
    provides: 'auth',
    async local(c) {
      const claims = await TokenService.verifyAccess(bearerOf(c));
      const known = BlacklistService.known(claims);
      if (known === 'revoked' && revoked !== 'refuse') knownRevoked.add(c);
      else refuse(known);
      setAuth(c, claims);
    },
    prepare(c, withinMs) {
      const auth = authOf(c);
      if (auth === undefined) return undefined;
      const verdict = BlacklistService.check(auth, whenUnavailable, withinMs);
      // Checks before this one may refuse first.
      verdict.catch(() => undefined);
      return async () => {
        const found = knownRevoked.has(c) ? 'revoked' : await verdict;
        if (found === 'revoked' && (await passes(c, auth))) return;
        refuse(found);
        LastSeenService.note(auth);
      };
    },
    uncounted: (c) => knownRevoked.has(c),
    recall(c, withinMs) {
      const auth = authOf(c);
      const rely = auth && BlacklistService.recall(auth, withinMs);
      if (auth === undefined || rely === undefined) return undefined;
      return () => {
        rely();
        LastSeenService.note(auth);
      };
    },
  });
}

/** Refuses callers with another role. Put it after {@link authenticate}. */
export function requireRole(role: AccessClaims['role']): Check {
  // The token's role decides, so this check needs nothing from Redis.
  const decide = (c: Context<AppEnv>) => () => {
    if (authOf(c)?.role !== role) throw new AppError('FORBIDDEN');
  };
  return check({ name: 'requireRole()', requires: 'auth', prepare: decide, recall: decide });
}

function refuse(verdict: RevocationVerdict): void {
  switch (verdict) {
    case 'valid':
      return;
    case 'revoked':
      throw new AppError('TOKEN_REVOKED');
    case 'superseded':
      throw new AppError('TOKEN_SUPERSEDED');
  }
}

/** Credentials in the `Authorization` header alone (RFC 6750, section 2.1). */
function bearerOf(c: Context<AppEnv>): string {
  const header = c.req.header('Authorization');
  if (header === undefined) throw new AppError('AUTHENTICATION_REQUIRED');
  // Two headers arrive joined by a comma, which no token has.
  if (!/^Bearer [\w.~+/=-]+$/i.test(header)) {
    throw new AppError('INVALID_TOKEN', { detail: 'The Authorization header must be "Bearer" and one access token.' });
  }
  return header.slice('Bearer '.length);
}

/** The caller, once the token's signature was verified. Its revocation may still be unknown: good enough as a limiter's identity. */
export function authOf(c: Context<AppEnv>): AccessClaims | undefined {
  return contextWith<Partial<AuthVariables>>(c).get('auth');
}

function setAuth(c: Context<AppEnv>, auth: AccessClaims): void {
  contextWith<AuthVariables>(c).set('auth', auth);
}
