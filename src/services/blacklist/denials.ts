import { userOfSession } from '../../redis/keys';
import { BoundedMap } from '../../redis/boundedMap';
import type { AccessClaims } from '../token/accessToken';

/** A user's versions: tokens issued under an older one are refused. */
export interface Versions {
  /** Ends sessions. */
  epoch: number;
  /** Ends access tokens. */
  accessVersion: number;
}

/** `superseded`: the session lives, but its access tokens must be refreshed (a role has changed). */
export type Verdict = 'valid' | 'revoked' | 'superseded';

/**
 * What this isolate has revoked, or passed on, itself: whatever becomes of the message to Redis, it never accepts that
 * again. Bounded: an access token lives for minutes.
 */
export class LocalDenials {
  readonly #sessions = new BoundedMap<string, true>(10_000);
  readonly #tokens = new BoundedMap<string, true>(10_000);
  readonly #versions = new BoundedMap<string, Versions>(10_000);

  /** A token that Redis or D1 has called revoked: the next time it costs neither a trip nor its owner's quota. */
  endToken(tokenId: string): void {
    this.#tokens.set(tokenId, true);
  }

  endSession(sessionId: string): void {
    this.#sessions.set(sessionId, true);
  }

  raise(userId: string, { epoch, accessVersion }: Versions): void {
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

  verdict(claims: AccessClaims): Verdict {
    if (this.#sessions.get(claims.sessionId) !== undefined) return 'revoked';
    if (this.#tokens.get(claims.tokenId) !== undefined) return 'revoked';
    const versions = this.#versions.get(claims.userId);
    return versions === undefined ? 'valid' : judgeVersions(claims, versions);
  }
}

export function judgeVersions(claims: AccessClaims, { epoch, accessVersion }: Versions): Verdict {
  if (claims.epoch < epoch) return 'revoked';
  return claims.accessVersion < accessVersion ? 'superseded' : 'valid';
}
