import { Hono } from 'hono';

import type { AppEnv } from '../middlewares/services.middleware';
import { TokenService } from '../services/token.service';

/** A verifier may keep the keys this long; a rotation publishes the next key for longer before it signs. */
const MAX_AGE_SECONDS = 300;

export const wellKnownRoutes = new Hono<AppEnv>().get('/jwks.json', (c) => {
  c.header('Cache-Control', `public, max-age=${MAX_AGE_SECONDS}, stale-while-revalidate=${MAX_AGE_SECONDS}`);
  // A shared cache must not give a browser the response that a server got without CORS headers.
  c.header('Vary', 'Origin');
  return c.json(TokenService.jwks(), 200);
});
