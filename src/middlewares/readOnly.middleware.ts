import { createMiddleware } from 'hono/factory';

import { configOf } from '../config/env';
import { AppError } from '../errors';
import type { AppEnv } from './services.middleware';

/** Methods that change nothing (RFC 9110, section 9.2.1). */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);
const RETRY_SECONDS = 30;

/**
 * With the setting READ_ONLY, refuses every request that may change something, before anything is read or counted. A refresh
 * is a change too: it writes the session's generation, and a reuse that it finds ends the session.
 */
export function readOnly() {
  return createMiddleware<AppEnv>(async function readOnly(c, next) {
    if (configOf(c.env).readOnly && !SAFE.has(c.req.method)) {
      throw new AppError('READ_ONLY', { headers: { 'Retry-After': String(RETRY_SECONDS) } });
    }
    await next();
  });
}
