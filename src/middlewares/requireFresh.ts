import type { Context } from 'hono';

import { configOf } from '../config/env';
import { AppError } from '../errors';
import { authOf } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';

/**
 * Refuses a session whose user has not proved the password recently (by a login, a new password or
 * `POST /v1/auth/reauthenticate`): for actions that a stolen access token alone must not allow. Put it after `authenticate()`.
 * It reads the token's `auth_time`, and asks neither Redis nor D1. The refusal is the 401 of RFC 9470 (step-up authentication),
 * with `max_age`.
 *
 * @param seconds how long ago the proof may be @default FRESH_SECONDS of the settings
 * @example
 * app.get('/export', guard(rateLimiter(policy.api), authenticate(), requireFresh()), handler);
 */
export function requireFresh(seconds?: number): Check {
  const decide = (c: Context<AppEnv>) => () => {
    const maxAge = seconds ?? configOf(c.env).tokens.freshSeconds;
    const authenticatedAt = authOf(c)?.authenticatedAt;
    const ageSeconds = Math.floor(c.get('request').now() / 1_000) - (authenticatedAt ?? Number.NEGATIVE_INFINITY);
    if (ageSeconds <= maxAge) return;
    throw new AppError('REAUTHENTICATION_REQUIRED', {
      headers: {
        'WWW-Authenticate': `Bearer error="insufficient_user_authentication", error_description="The password was given too long ago", max_age="${maxAge}"`,
      },
    });
  };
  return check({ name: 'requireFresh()', requires: 'auth', prepare: decide, recall: decide });
}
