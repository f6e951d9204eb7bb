import type { AccessClaims, AccessTokens, NewClaims } from './token/accessToken';
import type { RefreshGrant, RefreshTokens } from './token/refreshToken';
import { AppError } from '../errors';
import { REFRESH_TOKEN_PREFIX } from './token/refreshToken';
import { facade } from './scope';

export type { AccessClaims } from './token/accessToken';
export type { RefreshGrant } from './token/refreshToken';

/** A token response (RFC 6749, section 5.1). */
export interface TokenPair {
  access_token: string;
  refresh_token: string;
  token_type: 'Bearer';
  /** Lifetime of the access token, in seconds. */
  expires_in: number;
}

/** The data from which both tokens of a pair are made. */
export interface TokenSubject {
  userId: string;
  role: 'user' | 'admin';
  accessVersion: number;
  /** When the user last confirmed the password in the session; `undefined` if D1 was unavailable. */
  authenticatedAtMs?: number | undefined;
}

export type RecognizedToken =
  | { kind: 'refresh'; sessionId: string; grant: RefreshGrant }
  | { kind: 'access'; sessionId: string; claims: AccessClaims };

export interface TokenService {
  /** @param tokenId the access token's `jti` @default a random one */
  issue(subject: TokenSubject, grant: RefreshGrant, tokenId?: string): Promise<TokenPair>;
  verifyAccess: AccessTokens['verify'];
  readRefresh: RefreshTokens['read'];
  /** The kind and content of one of the app's tokens; `undefined` for any other text, and for an expired token. */
  recognize(token: string): Promise<RecognizedToken | undefined>;
  jwks: AccessTokens['jwks'];
}

declare module './scope' {
  interface ServiceMap {
    token: TokenService;
  }
}

export const TokenService: TokenService = facade('token');

export interface TokenDeps {
  access: AccessTokens;
  refresh: RefreshTokens;
  accessTtlSeconds: number;
  now: () => number;
}

export function createTokenService({ access, refresh, accessTtlSeconds, now }: TokenDeps): TokenService {
  return {
    async issue({ userId, role, accessVersion, authenticatedAtMs }, grant, tokenId) {
      const claims: NewClaims = {
        ...(tokenId !== undefined && { tokenId }),
        userId,
        role,
        accessVersion,
        sessionId: grant.sessionId,
        epoch: grant.epoch,
        generation: grant.generation,
        authenticatedAt: authenticatedAtMs === undefined ? undefined : Math.floor(authenticatedAtMs / 1_000),
      };
      // A token must not outlive its session.
      const restSeconds = Math.floor((grant.expiresAtMs - now()) / 1_000);
      const ttlSeconds = Math.max(1, Math.min(accessTtlSeconds, restSeconds));
      return {
        access_token: await access.sign(claims, ttlSeconds),
        refresh_token: refresh.mint(grant),
        token_type: 'Bearer',
        expires_in: ttlSeconds,
      };
    },
    verifyAccess: (token) => access.verify(token),
    readRefresh: (token) => refresh.read(token),
    async recognize(presented) {
      try {
        if (presented.startsWith(REFRESH_TOKEN_PREFIX)) {
          const grant = refresh.read(presented);
          return { kind: 'refresh', sessionId: grant.sessionId, grant };
        }
        const claims = await access.verify(presented);
        return { kind: 'access', sessionId: claims.sessionId, claims };
      } catch (error) {
        if (error instanceof AppError && (error.code === 'INVALID_TOKEN' || error.code === 'TOKEN_EXPIRED')) {
          return undefined;
        }
        throw error;
      }
    },
    jwks: () => access.jwks(),
  };
}
