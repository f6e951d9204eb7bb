import { userOfSession } from '../../redis/keys';
import { BoundedMap } from '../../util/boundedMap';
import type { Config } from '../../config/env';
import { CLOCK_TOLERANCE_SECONDS } from '../token/accessToken';
import type { AccessClaims } from '../token/accessToken';

/** A user's versions. Tokens issued under an older version are refused. */
export interface UserVersions {
  /** Raising it ends sessions. */
  epoch: number;
  /** Raising it ends access tokens. */
  accessVersion: number;
}

/** `superseded`: the session lives, but the token must be refreshed (a role has changed, or the token was issued again). */
export type RevocationVerdict = 'valid' | 'revoked' | 'superseded';

/** The denial of a single token. A time that ends in 001 ms means: the session lives, the token must be refreshed. */
export type TokenDenial = Exclude<RevocationVerdict, 'valid'>;

/**
 * Expiry of the denial of a superseded access token that was issued until now: when the token has expired. Redis and D1
 * store only this time of a denial, so the time also encodes its kind. For a revoked token it is in whole seconds.
 */
export function supersededUntil({ tokens }: Config, nowMs: number): number {
  return (Math.ceil(nowMs / 1_000) + tokens.accessTtlSeconds + CLOCK_TOLERANCE_SECONDS) * 1_000 + 1;
}

export const denialOf = (untilMs: number): TokenDenial => (untilMs % 1_000 === 1 ? 'superseded' : 'revoked');

/**
 * Revocations that this isolate has made or delivered itself. The isolate never accepts these tokens again, even if the
 * message to Redis is lost. Bounded: an access token lives for minutes.
 */
export class LocalDenials {
  readonly #sessions = new BoundedMap<string, true>(10_000);
  readonly #tokens = new BoundedMap<string, TokenDenial>(10_000);
  readonly #versions = new BoundedMap<string, UserVersions>(10_000);

  /** Remembers a token that Redis or D1 reported as revoked. Its next use costs neither a trip nor its owner's quota. */
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

  /** Whether a session with this epoch has ended. */
  ends(sessionId: string, epoch = Infinity): boolean {
    if (this.#sessions.get(sessionId) !== undefined) return true;
    return epoch < (this.#versions.get(userOfSession(sessionId))?.epoch ?? 0);
  }

  /** A user's versions as raised by this isolate; 0 if it has raised none. */
  versionsOf(userId: string): UserVersions {
    return this.#versions.get(userId) ?? { epoch: 0, accessVersion: 0 };
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
