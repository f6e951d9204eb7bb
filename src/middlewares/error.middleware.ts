import type { Context, ErrorHandler } from 'hono';
import { HTTPException } from 'hono/http-exception';

import { describeError, log } from '../config/log';
import { AppError, ERRORS, unavailable } from '../errors';
import type { ErrorCode } from '../errors';
import { noteProblem } from './refusalLog';
import { ConstraintViolation, DatabaseUnavailable, RedisError, StatementMistake } from '../services/errors';

/** Types that a standard names (draft-ietf-httpapi-ratelimit-headers); the others are ours. */
const REGISTERED_TYPES: Partial<Record<ErrorCode, string>> = {
  RATE_LIMITED: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
};

/** Identifies a code as a URI. */
export function typeOf(code: ErrorCode): string {
  return REGISTERED_TYPES[code] ?? `urn:gatehouse:problem:${code.toLowerCase().replaceAll('_', '-')}`;
}

/** A problem document (RFC 9457). `type` identifies the code; `code` repeats it for clients that switch on it. */
export function problem(c: Context, error: AppError): Response {
  const { status, title } = ERRORS[error.code];
  const { detail, errors, headers = {}, extensions = {} } = error.options;
  const violated = extensions['violated-policies'];
  noteProblem(c, { code: error.code, policy: Array.isArray(violated) ? violated.join(' ') : undefined });
  const body = {
    type: typeOf(error.code),
    title,
    status,
    code: error.code,
    ...(detail !== undefined && { detail }),
    ...(errors !== undefined && { errors }),
    ...extensions,
    requestId: (c.get as (name: string) => unknown)('requestId'),
  };
  return c.body(JSON.stringify(body), status, {
    'Content-Type': 'application/problem+json',
    'Cache-Control': 'no-store',
    ...(status === 401 && { 'WWW-Authenticate': challenge(error.code) }),
    ...headers,
  });
}

/** RFC 6750, section 3. */
function challenge(code: ErrorCode): string {
  return code === 'AUTHENTICATION_REQUIRED' || code === 'INVALID_CREDENTIALS'
    ? 'Bearer'
    : 'Bearer error="invalid_token"';
}

/** Turns a thrown error into a problem document. Details that are not for the client go to the log alone. */
export const onError: ErrorHandler = (error, c) => {
  if (error instanceof AppError) {
    if (error.code === 'CONFIG_INVALID') log('error', 'config.invalid', { detail: error.message });
    return problem(c, error);
  }
  if (error instanceof DatabaseUnavailable) {
    log('error', 'database.unavailable', { reason: error.message, ...error.logFields });
    // An overloaded database needs longer pauses.
    return problem(c, unavailable('The database', error.overloaded ? 10 : 5));
  }
  if (error instanceof ConstraintViolation && CLIENT_CONSTRAINTS.has(error.constraint)) {
    log('warn', 'database.constraint', { path: c.req.path, ...error.logFields });
    return problem(c, new AppError('CONFLICT'));
  }
  if (error instanceof StatementMistake || error instanceof ConstraintViolation) {
    // The request is not to blame and a retry does not help: a 500, with all that a developer needs to find the statement.
    log('error', 'database.mistake', { path: c.req.path, ...describeError(error), at: placesOf(error.cause ?? error) });
    return problem(c, new AppError('INTERNAL'));
  }
  if (error instanceof RedisError) {
    log('error', 'redis.failed', { reason: error.message });
    return problem(c, unavailable('A part of the service', 5));
  }
  // A response that a middleware has made already.
  if (error instanceof HTTPException && error.res !== undefined) return error.getResponse();
  // Hono throws these, for example for a body that is not JSON.
  if (error instanceof HTTPException && error.status < 500) {
    return problem(c, new AppError(error.status === 413 ? 'BODY_TOO_LARGE' : 'MALFORMED_REQUEST'));
  }
  log('error', 'request.failed', {
    ...describeError(error),
    path: c.req.path,
    at: placesOf(error),
  });
  return problem(c, new AppError('INTERNAL'));
};

/** Constraints that a correct request can violate: two requests insert the same value, or a row that it refers to was deleted. */
const CLIENT_CONSTRAINTS: ReadonlySet<ConstraintViolation['constraint']> = new Set(['unique', 'foreign-key']);

/** Where an error was thrown, without its message, which may quote values. */
function placesOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return error.stack
    ?.split('\n')
    .filter((row) => /^\s+at /.test(row))
    .slice(0, 3)
    .join(' |');
}
