import { createMiddleware } from 'hono/factory';

import { configOf } from '../config/env';
import type { AppEnv } from './services.middleware';

/** Lets routes that write sessions wait for Redis longer than a guard. */
export function authDeadline() {
  return createMiddleware<AppEnv>(async function authDeadline(c, next) {
    c.get('request').batch.setDeadline(configOf(c.env).redis.authDeadlineMs);
    await next();
  });
}
