import { AuthService } from '../services/auth.service';
import type { TokenPair } from '../services/token.service';
import { contextWith } from './appEnv';
import { check } from './check';
import type { Check } from './check';
import { PerRequest } from './perRequest';

/** Variables that {@link refreshed} adds to the context. */
export interface RefreshVariables {
  tokens: TokenPair;
}

/**
 * Exchanges the refresh token of a validated JSON body in the same pipeline as the limiter. If the limit refuses the request,
 * the token has still rotated. That is harmless: until the successor is used, a retry gets it again.
 */
export function refreshed(): Check<RefreshVariables> {
  const shown = new PerRequest<string>();
  return check<RefreshVariables>({
    name: 'refreshed()',
    async identify(c) {
      const body = await c.req.json<{ refresh_token: string }>();
      shown.set(c, body.refresh_token);
    },
    prepare(c) {
      const tokens = AuthService.refresh(shown.get(c) ?? '');
      // The limiter may refuse first.
      tokens.catch(() => undefined);
      return async () => contextWith<RefreshVariables>(c).set('tokens', await tokens);
    },
  });
}
