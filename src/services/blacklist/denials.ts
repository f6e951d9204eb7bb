import { userOfSession } from '../../redis/keys';
import { BoundedMap } from '../../util/boundedMap';
import type { Config } from '../../config/env';
import { CLOCK_TOLERANCE_SECONDS } from '../token/accessToken';
import type { AccessClaims } from '../token/accessToken';

/** A user's versions: tokens issued under an older one are refused. */
export interface UserVersions {
  /** Ends sessions. */
  epoch: number;
  /** Ends access tokens. */
  accessVersion: number;
}

/** `superseded`: the session lives, but the token must be refreshed (a role has changed, or it was issued once more). */
export type RevocationVerdict = 'valid' | 'revoked' | 'superseded';

/** What denies a single token. A time that ends in 001 ms: the session lives, the token must be refreshed. */
export type TokenDenial = Exclude<RevocationVerdict, 'valid'>;

/**
 * Until when an access token must be known as superseded that was issued until now: when it has expired. All that is known
 * of a denial, in Redis and in D1, is its time, so the time says which kind it is; that of a revoked token is in whole
 * seconds.
 */
export function supersededUntil({ tokens }: Config, nowMs: number): number {
  return (Math.ceil(nowMs / 1_000) + tokens.accessTtlSeconds + CLOCK_TOLERANCE_SECONDS) * 1_000 + 1;
}

export const denialOf = (untilMs: number): TokenDenial => (untilMs % 1_000 === 1 ? 'superseded' : 'revoked');

/**
 * What this isolate has revoked, or passed on, itself: whatever becomes of the message to Redis, it never accepts that
 * again. Bounded: an access token lives for minutes.
 */
export class LocalDenials {
  readonly #sessions = new BoundedMap<string, true>(10_000);
  readonly #tokens = new BoundedMap<string, TokenDenial>(10_000);
  readonly #versions = new BoundedMap<string, UserVersions>(10_000);

  /** A token that Redis or D1 has called revoked: the next time it costs neither a trip nor its owner's quota. */
  endToken(tokenId: string, denial: TokenDenial = 'revoked'): void {
    this.#tokens.set(tokenId, denial);
  }

  endSession(sessionId: string): void {
    this.#sessions.set(sessionId, true);
  }

  raise(userId: string, { epoch, accessVersion }: UserVersions): void {
    const known = this.#versions.get(userId);
    this.#versions.set(userId, {
      epoch: Math.max(epoch, known?.epoch ?? 0),
      accessVersion: Math.max(accessVersion, known?.accessVersion ?? 0),
    });
  }

  /** Whether a session that carries this epoch has ended. */
  ends(sessionId: string, epoch = Infinity): boolean {
    if (this.#sessions.get(sessionId) !== undefined) return true;
    return epoch < (this.#versions.get(userOfSession(sessionId))?.epoch ?? 0);
  }

  verdict(claims: AccessClaims): RevocationVerdict {
    if (this.#sessions.get(claims.sessionId) !== undefined) return 'revoked';
    const versions = this.#versions.get(claims.userId);
    const verdict = versions === undefined ? 'valid' : judgeVersions(claims, versions);
    return verdict === 'revoked' ? verdict : (this.#tokens.get(claims.tokenId) ?? verdict);
  }
}

export function judgeVersions(claims: AccessClaims, { epoch, accessVersion }: UserVersions): RevocationVerdict {
  if (claims.epoch < epoch) return 'revoked';
  return claims.accessVersion < accessVersion ? 'superseded' : 'valid';
}
