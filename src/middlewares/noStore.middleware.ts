import { createMiddleware } from 'hono/factory';

/** Responses must not be stored by caches, unless the route says otherwise. */
export function noStore() {
  return createMiddleware(async function noStore(c, next) {
    await next();
    if (!c.res.headers.has('Cache-Control')) c.res.headers.set('Cache-Control', 'no-store');
  });
}
