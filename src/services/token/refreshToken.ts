import { createHmac, timingSafeEqual } from 'node:crypto';

import type { KeySetConfig } from '../../config/env';
import { AppError } from '../../errors';

/** The content of a refresh token. Redis and D1 store these numbers, never the token. */
export interface RefreshGrant {
  sessionId: string;
  generation: number;
  epoch: number;
  /** Absolute end of the session, in milliseconds since the epoch. */
  expiresAtMs: number;
}

/**
 * Refresh tokens are deterministic: an HMAC over their grant. The same grant always gives the same token, so a retry after
 * a lost response gets the same one. Garbage is recognised without asking Redis or D1, and leaked data of Redis do not help
 * to forge a token.
 */
export interface RefreshTokens {
  mint(grant: RefreshGrant): string;
  /** @throws {AppError} `INVALID_TOKEN`; `TOKEN_EXPIRED` after the session's absolute end */
  read(token: string): RefreshGrant;
}

/** No access token begins with this. */
export const REFRESH_TOKEN_PREFIX = 'grt1.';

const FORM =
  /^grt1\.([\w-]{1,64})\.([\w-]{1,64})\.([\w-]{1,64})\.([0-9a-z]{1,11})\.([0-9a-z]{1,11})\.([0-9a-z]{1,11})\.[\w-]{43}$/;

export function createRefreshTokens({ keys }: KeySetConfig, now: () => number): RefreshTokens {
  const secrets = new Map(keys.map((key) => [key.kid, Buffer.from(String(key['k']), 'base64url')]));
  const activeKid = keys.find((key) => key.state === 'active')?.kid ?? '';

  function mintWith(kid: string, { sessionId, generation, epoch, expiresAtMs }: RefreshGrant): string | undefined {
    const secret = secrets.get(kid);
    if (secret === undefined) return undefined;
    const body = ['grt1', kid, sessionId, ...[generation, epoch, expiresAtMs].map((part) => part.toString(36))].join(
      '.',
    );
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
  }

  return {
    mint(grant) {
      const token = mintWith(activeKid, grant);
      if (token === undefined) throw new AppError('CONFIG_INVALID', { detail: 'REFRESH_KEYS has no active key' });
      return token;
    },

    read(token) {
      const match = token.length <= 512 ? FORM.exec(token) : null;
      if (match === null) throw new AppError('INVALID_TOKEN');
      const [, kid = '', userId = '', random = '', generation = '', epoch = '', expiresAt = ''] = match;
      const grant: RefreshGrant = {
        sessionId: `${userId}.${random}`,
        generation: Number.parseInt(generation, 36),
        epoch: Number.parseInt(epoch, 36),
        expiresAtMs: Number.parseInt(expiresAt, 36),
      };
      // Mint the token again and compare it as a whole: this excludes other spellings of a token.
      const genuine = mintWith(kid, grant);
      if (genuine === undefined || !equal(genuine, token)) throw new AppError('INVALID_TOKEN');
      if (grant.expiresAtMs <= now()) throw new AppError('TOKEN_EXPIRED');
      return grant;
    },
  };
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
