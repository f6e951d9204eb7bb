import type { Operation } from './collect';
import type { Json } from './shapes';

const header = (description: string, example: string, schema: Json = { type: 'string' }): Json => ({
  description,
  schema,
  example,
});

export const HEADERS: Readonly<Record<string, Json>> = {
  'X-Request-Id': header('The request’s own, when it had an acceptable one.', '0d3a6f4e-5b1c-4a51-9d0c-1f2e3d4c5b6a'),
  'Cache-Control': header('`no-store`, unless the route says otherwise.', 'no-store'),
  RateLimit: header(
    'The remaining quota (draft-ietf-httpapi-ratelimit-headers): `r` requests, all again in `t` seconds.',
    '"api";r=99;t=900',
  ),
  'RateLimit-Policy': header('The limits that apply: `q` requests in `w` seconds.', '"api";q=100;w=900'),
  'Retry-After': { description: 'Seconds to wait.', schema: { type: 'integer', minimum: 0 }, example: 5 },
  'WWW-Authenticate': header('RFC 6750, section 3.', 'Bearer error="invalid_token"'),
  ETag: header('For `If-None-Match`.', '"kD0wQb2m3n4o5p6q7r8s9tAbCdE"'),
  Age: { description: 'Seconds since the response was made.', schema: { type: 'integer', minimum: 0 }, example: 3 },
  'Cache-Status': header(
    'RFC 9211. `detail=memory`: decided without asking Redis, from its earlier replies.',
    'Gatehouse; hit; detail=memory',
  ),
  'Idempotency-Replayed': header('The request was executed before, and this is its response again.', 'true'),
  Vary: header('Request headers that the response depends on.', 'Authorization'),
  'Gatehouse-Degraded': header('Which checks went by a failure policy.', 'limiter=local, revocation=d1'),
};

/** Names of the headers that a response of an operation may have. */
export function headersOf({ checks, remembers }: Operation, status: string): string[] {
  const names = ['X-Request-Id', 'Cache-Control', 'Gatehouse-Degraded'];
  if (checks.has('rateLimiter()')) names.push('RateLimit', 'RateLimit-Policy');
  if (status === '429' || status === '503' || status === '409') names.push('Retry-After');
  if (checks.has('idempotent()') && Number(status) < 500) names.push('Idempotency-Replayed');
  if (status === '401') names.push('WWW-Authenticate');
  const isCached = checks.has('cached()');
  if (isCached && (status === '200' || status === '304')) names.push('ETag', 'Age', 'Vary');
  // Also on a failure: the cache was read before the handler failed.
  if (isCached || remembers) names.push('Cache-Status');
  return names;
}
