import { createMiddleware } from 'hono/factory';

/** Client-given ids that may appear in logs and headers as they are. */
const ACCEPTABLE = /^[\w.-]{8,64}$/;

/** `X-Request-Id`: the client's when it is harmless, else a new one. It appears in logs and in every problem document. */
export function requestId() {
  return createMiddleware<{ Variables: { requestId: string } }>(async function requestId(c, next) {
    const given = c.req.header('X-Request-Id');
    const id = given !== undefined && ACCEPTABLE.test(given) ? given : crypto.randomUUID();
    c.set('requestId', id);
    await next();
    c.res.headers.set('X-Request-Id', id);
  });
}
