import type { AccessClaims } from '../token/accessToken';
import type { UserVersions } from './denials';

/** Redis's reply about a token that it did not deny. */
export interface RememberedRevocation extends UserVersions {
  readonly userId: string;
  readonly sessionId: string;
  readonly tokenId: string;
}

/** Identifies a check by user, session and token. */
export function questionOf({ userId, sessionId, tokenId }: AccessClaims): string {
  return `${userId} ${sessionId} ${tokenId}`;
}

/** Whether the reply belongs to this user, session and token. Needed because names may contain spaces. */
export function isOf({ userId, sessionId, tokenId }: AccessClaims, reply: RememberedRevocation): boolean {
  return reply.userId === userId && reply.sessionId === sessionId && reply.tokenId === tokenId;
}
