import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';
import { matchedRoutes } from 'hono/route';

import { configOf } from '../config/env';
import { AppError } from '../errors';
import { factsOf, stating } from './contract';
import type { AppEnv } from './services.middleware';

/** Methods that change nothing (RFC 9110, section 9.2.1). */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);
const RETRY_SECONDS = 30;

/**
 * Marks a route that changes nothing although its method is POST, because its query is in the body. It is served while changes
 * are refused.
 *
 * @example app.post('/search', guard(authenticate()), changesNothing(), validJson(schema), handler)
 */
export function changesNothing() {
  const pass = createMiddleware<AppEnv>(async function changesNothing(_c, next) {
    await next();
  });
  return stating(pass, { changesNothing: true });
}

const isSaidToRead = (c: Context) => matchedRoutes(c).some(({ handler }) => factsOf(handler).changesNothing === true);

/**
 * With the setting READ_ONLY, refuses every request that may change something, before anything is read or counted. A refresh
 * is a change too: it writes the session's generation, and a reuse that it finds ends the session.
 */
export function readOnly() {
  // Not async: a promise of its own would cost every request.
  return createMiddleware<AppEnv>(function readOnly(c, next): Promise<void> {
    if (configOf(c.env).readOnly && !SAFE.has(c.req.method) && !isSaidToRead(c)) {
      throw new AppError('READ_ONLY', { headers: { 'Retry-After': String(RETRY_SECONDS) } });
    }
    return next();
  });
}
