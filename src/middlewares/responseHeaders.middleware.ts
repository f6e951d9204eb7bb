import { createMiddleware } from 'hono/factory';

/** Client-given ids that may appear in logs and headers as they are. */
const ACCEPTABLE = /^[\w.-]{8,64}$/;

/**
 * Headers that OWASP's REST Security Cheat Sheet requires of an API. A native app's requests have no origin, and a browser app's is
 * listed in CORS_ORIGINS, so there is no Cross-Origin-Resource-Policy.
 */
const SECURITY_HEADERS = Object.entries({
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'Strict-Transport-Security': 'max-age=15552000; includeSubDomains',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
});

/**
 * The headers of every response, in one middleware, because each further middleware costs every request promises: security headers,
 * `Cache-Control: no-store` unless the route says otherwise, and `X-Request-Id`. That is the client's id if it
 * has a safe form, else a new one; logs and problem documents carry it.
 */
export function responseHeaders() {
  return createMiddleware<{ Variables: { requestId: string } }>(async function responseHeaders(c, next) {
    const given = c.req.header('X-Request-Id');
    const id = given !== undefined && ACCEPTABLE.test(given) ? given : crypto.randomUUID();
    c.set('requestId', id);
    await next();
    const { headers } = c.res;
    headers.set('X-Request-Id', id);
    if (!headers.has('Cache-Control')) headers.set('Cache-Control', 'no-store');
    for (const [name, value] of SECURITY_HEADERS) headers.set(name, value);
  });
}
