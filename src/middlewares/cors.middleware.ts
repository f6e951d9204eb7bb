import type { MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';

import { configOf } from '../config/env';
import type { AppEnv } from './services.middleware';

/**
 * CORS for the browser apps of `CORS_ORIGINS`. A native app sends no `Origin`, and gets no header of CORS; where there are
 * browser apps, its answers say all the same that others may look different (Fetch standard, "CORS protocol and HTTP caches"):
 * a cache between us would give a browser the answer without them.
 */
export function browserOrigins(): MiddlewareHandler<AppEnv> {
  const handle = cors({
    origin: (origin, c) => (configOf(c.env as Env).corsOrigins.includes(origin) ? origin : null),
    allowHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'If-None-Match', 'X-Request-Id'],
    exposeHeaders: [
      'Age',
      'Cache-Status',
      // The client library takes the time from it.
      'Date',
      'ETag',
      'RateLimit',
      'RateLimit-Policy',
      'Retry-After',
      'X-Request-Id',
    ],
    maxAge: 600,
  });
  return async function browserOrigins(c, next) {
    if (c.req.header('Origin') !== undefined) return handle(c, next);
    const varies = configOf(c.env).corsOrigins.length > 0;
    await next();
    if (varies) c.header('Vary', 'Origin', { append: true });
  };
}
