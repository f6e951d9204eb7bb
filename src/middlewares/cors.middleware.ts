import type { MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';

import { configOf } from '../config/env';
import { log } from '../config/log';
import type { AppEnv } from './services.middleware';

/**
 * CORS for the browser apps of `CORS_ORIGINS`. A native app sends no `Origin`, and gets no CORS headers. Where there are
 * browser apps, its responses carry `Vary: Origin` all the same (Fetch standard, "CORS protocol and HTTP caches"): otherwise a
 * cache in between could give a browser the response without CORS headers.
 */
export function browserOrigins(): MiddlewareHandler<AppEnv> {
  const reported = new Set<string>();
  const handle = cors({
    origin: (origin, c) => (configOf(c.env as Env).corsOrigins.includes(origin) ? origin : null),
    allowHeaders: ['Authorization', 'Content-Type', 'Idempotency-Key', 'If-None-Match', 'X-Request-Id'],
    exposeHeaders: [
      'Age',
      'Cache-Status',
      // The client library reads the server's time from it.
      'Date',
      'ETag',
      'Idempotency-Replayed',
      'RateLimit',
      'RateLimit-Policy',
      'Retry-After',
      'X-Request-Id',
    ],
    maxAge: 600,
  });
  const varyingByOrigin: MiddlewareHandler<AppEnv> = async (c, next) => {
    await next();
    c.header('Vary', 'Origin', { append: true });
  };
  // Not async: a promise of its own would cost every request.
  return function browserOrigins(c, next): ReturnType<typeof handle> {
    const origin = c.req.header('Origin');
    if (origin !== undefined) {
      if (c.req.method === 'OPTIONS') reportUnlisted(origin, configOf(c.env).corsOrigins, reported);
      return handle(c, next);
    }
    return configOf(c.env).corsOrigins.length === 0 ? next() : varyingByOrigin(c, next);
  };
}

/** Origins that an isolate reports, at most. */
const REPORTED_MAX = 20;

/** A refused preflight names no reason, and neither does the browser, so the log names the setting once. */
function reportUnlisted(origin: string, listed: readonly string[], reported: Set<string>): void {
  if (listed.includes(origin) || reported.has(origin) || reported.size >= REPORTED_MAX || origin.length > 200) return;
  reported.add(origin);
  log('warn', 'cors.origin_not_listed', { origin, setting: `CORS_ORIGINS=${[...listed, origin].join(',')}` });
}
