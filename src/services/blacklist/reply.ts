import type { RedisValue } from '../../redis/client';
import { denialOf } from './denials';
import type { TokenDenial } from './denials';
import { isTimeMs, isVersion, orNull } from '../replies';

/** The state of one token in its user's blacklist hash. */
export interface RevocationReply {
  /** `null`: Redis has lost the hash, so the token's state is unknown. */
  epoch: number | null;
  accessVersion: number;
  /** The session or the token is denied. */
  denied: TokenDenial | undefined;
}

const isVersionOrNull = orNull(isVersion);
const isTimeOrNull = orNull(isTimeMs);

/**
 * Parses the reply to `HMGET hash ep av s:<sid> j:<jti>`. Only values in the form that the app's scripts write are
 * accepted.
 *
 * @returns `undefined` for any other reply, which is treated as no reply: neither "revoked" nor "allowed"
 */
export function parseRevocation(reply: RedisValue): RevocationReply | undefined {
  if (!Array.isArray(reply) || reply.length !== 4) return undefined;
  const [epoch, accessVersion, session, token] = reply;
  if (!isVersionOrNull(epoch) || !isVersionOrNull(accessVersion)) return undefined;
  // The value of a denial is when the denied session or token expires.
  if (!isTimeOrNull(session) || !isTimeOrNull(token)) return undefined;
  return {
    epoch: epoch === null ? null : Number(epoch),
    accessVersion: Number(accessVersion ?? 0),
    denied: session !== null ? 'revoked' : token === null ? undefined : denialOf(Number(token)),
  };
}
