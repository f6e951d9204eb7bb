import type { ContentfulStatusCode } from 'hono/utils/http-status';

/**
 * Every error that a client can get: stable code -> HTTP status and title (RFC 9457, section 3.1).
 * Codes are part of the API: add to them, never rename one.
 */
export const ERRORS = {
  MALFORMED_REQUEST: { status: 400, title: 'The request is malformed' },
  MALFORMED_JSON: { status: 400, title: 'The body is not valid JSON' },
  INVALID_ENCODING: { status: 400, title: 'The body is not valid UTF-8' },
  IDEMPOTENCY_KEY_REQUIRED: { status: 400, title: 'The request needs an Idempotency-Key' },
  IDEMPOTENCY_KEY_INVALID: { status: 400, title: 'The Idempotency-Key is not a quoted string of 1 to 255 characters' },
  ONE_TIME_TOKEN_INVALID: { status: 400, title: 'The token is wrong, was used or has expired; ask for another' },
  VALIDATION_FAILED: { status: 422, title: 'Some values are not acceptable' },
  IDEMPOTENCY_KEY_REUSED: { status: 422, title: 'The Idempotency-Key was used for another request' },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, title: 'The body must be application/json' },
  BODY_TOO_LARGE: { status: 413, title: 'The body is too large' },
  AUTHENTICATION_REQUIRED: { status: 401, title: 'Authentication is required' },
  INVALID_TOKEN: { status: 401, title: 'The token is not valid' },
  TOKEN_EXPIRED: { status: 401, title: 'The token has expired' },
  TOKEN_REVOKED: { status: 401, title: 'The token has been revoked' },
  TOKEN_SUPERSEDED: { status: 401, title: 'The access token is out of date; refresh it' },
  TOKEN_REUSED: { status: 401, title: 'The refresh token was used already; the session has ended' },
  REAUTHENTICATION_REQUIRED: { status: 401, title: 'The password was given too long ago; ask for it again' },
  INVALID_CREDENTIALS: { status: 401, title: 'The e-mail address or the password is wrong' },
  ACCOUNT_DISABLED: { status: 403, title: 'The account is disabled' },
  PASSWORD_INCORRECT: { status: 403, title: 'The current password is wrong' },
  FORBIDDEN: { status: 403, title: 'This is not allowed' },
  NOT_FOUND: { status: 404, title: 'There is nothing here' },
  METHOD_NOT_ALLOWED: { status: 405, title: 'The method is not supported here' },
  EMAIL_TAKEN: { status: 409, title: 'The e-mail address is already registered' },
  LAST_ADMINISTRATOR: { status: 409, title: 'This would leave no administrator' },
  CONFLICT: { status: 409, title: 'The state does not allow this' },
  IDEMPOTENCY_KEY_IN_USE: { status: 409, title: 'A request with this Idempotency-Key is being executed' },
  IDEMPOTENCY_RESPONSE_LOST: { status: 409, title: 'The request was executed before; its response was not kept' },
  RATE_LIMITED: { status: 429, title: 'Too many requests' },
  SERVICE_UNAVAILABLE: { status: 503, title: 'Temporarily unavailable' },
  READ_ONLY: { status: 503, title: 'Changes are not accepted for the moment' },
  CONFIG_INVALID: { status: 503, title: 'The service is not configured correctly' },
  INTERNAL: { status: 500, title: 'Something went wrong' },
} as const satisfies Record<string, { status: ContentfulStatusCode; title: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** One value at fault. `pointer` is a JSON pointer (RFC 6901) into the body, or the name of a query or path parameter. */
export interface FieldError {
  pointer?: string;
  parameter?: string;
  detail: string;
}

export interface AppErrorOptions extends ErrorOptions {
  /** Text for the client: never a secret, a token or an address. */
  detail?: string;
  errors?: readonly FieldError[];
  headers?: Readonly<Record<string, string>>;
  /** Further members of the problem document. */
  extensions?: Readonly<Record<string, unknown>>;
}

/**
 * An error whose code and detail are sent to the client.
 *
 * @example
 * throw new AppError('EMAIL_TAKEN', { errors: [{ pointer: '/email', detail: 'already registered' }] });
 */
export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: ErrorCode;
  readonly options: AppErrorOptions;

  constructor(code: ErrorCode, options: AppErrorOptions = {}) {
    super(options.detail ?? ERRORS[code].title, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.options = options;
  }

  get status(): ContentfulStatusCode {
    return ERRORS[this.code].status;
  }
}

/** A dependency is unavailable; the client may retry after `retryAfterSeconds`. */
export function unavailable(what: string, retryAfterSeconds = 5, cause?: unknown): AppError {
  return new AppError('SERVICE_UNAVAILABLE', {
    detail: `${what} is temporarily unavailable.`,
    headers: { 'Retry-After': String(retryAfterSeconds) },
    cause,
  });
}
