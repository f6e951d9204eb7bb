import type { RedisValue } from '../../redis/client';
import { denialOf } from './denials';
import type { TokenDenial } from './denials';
import { isTimeMs, isVersion, orNull } from '../replies';

/** What a user's blacklist hash says about one token. */
export interface RevocationReply {
  /** `null`: Redis has lost the hash, so it cannot tell. */
  epoch: number | null;
  accessVersion: number;
  /** The session or the token is denied. */
  denied: TokenDenial | undefined;
}

const isVersionOrNull = orNull(isVersion);
const isTimeOrNull = orNull(isTimeMs);

/**
 * The reply to `HMGET hash ep av s:<sid> j:<jti>`. Only values of the form that the app's scripts write count.
 *
 * @returns `undefined` for anything else: no response, neither "revoked" nor "allowed"
 */
export function parseRevocation(reply: RedisValue): RevocationReply | undefined {
  if (!Array.isArray(reply) || reply.length !== 4) return undefined;
  const [epoch, accessVersion, session, token] = reply;
  if (!isVersionOrNull(epoch) || !isVersionOrNull(accessVersion)) return undefined;
  // Denials hold the end of what they deny.
  if (!isTimeOrNull(session) || !isTimeOrNull(token)) return undefined;
  return {
    epoch: epoch === null ? null : Number(epoch),
    accessVersion: Number(accessVersion ?? 0),
    denied: session !== null ? 'revoked' : token === null ? undefined : denialOf(Number(token)),
  };
}
