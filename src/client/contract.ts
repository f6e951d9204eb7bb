// Written by `npm run openapi` from the contract. Not to be edited.

export interface Accepted {
  status: 'accepted';
}

export interface AccountEvent {
  id: string;
  /** Such as `login`, `login-failed`, `password-changed`; more may be added. */
  kind: string;
  sessionId: string | null;
  address: string;
  device: string;
  at: string;
}

export interface AccountEventList {
  items: AccountEvent[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface Counter {
  policy:
    | 'api'
    | 'register'
    | 'register-account'
    | 'login'
    | 'login-address'
    | 'password'
    | 'recovery'
    | 'recovery-account'
    | 'verification'
    | 'one-time-token'
    | 'refresh'
    | 'revoke';
  /** Without control characters; more than white space, which is trimmed. */
  identity: string;
}

export interface Credentials {
  /** White space around it is trimmed. */
  email: string;
  /** Any characters, counted as code points in NFC. */
  password: string;
  /** Without control characters; more than white space, which is trimmed. */
  device?: string | null;
}

export interface FieldError {
  /** A JSON pointer (RFC 6901) into the body. */
  pointer?: string;
  /** The name of a query or path parameter. */
  parameter?: string;
  detail: string;
}

export interface Health {
  status: 'ok';
  /** `unknown` (no response yet), `up` or `down` */
  redis: string;
  redisAvailable: boolean;
}

export interface Index {
  name: string;
  version: string;
  documentation: string;
  contract: string;
}

export interface Jwk {
  kty: string;
  kid: string;
  alg: string;
  use: string;
  crv: string;
  x: string;
  y?: string;
}

/** RFC 7517. */
export interface Jwks {
  keys: Jwk[];
}

export interface LimitState {
  name: string;
  maxRequests: number;
  windowMs: number;
  remaining: number;
  resetMs: number;
}

export interface LimitStates {
  limits: LimitState[];
}

export type Nothing = object;

export interface PasswordChange {
  /** Any characters, counted as code points in NFC. */
  currentPassword: string;
  /** Any characters, counted as code points in NFC. Common ones are refused. */
  newPassword: string;
}

export interface PasswordReset {
  token: string;
  /** Any characters, counted as code points in NFC. Common ones are refused. */
  newPassword: string;
}

/** An error (RFC 9457). Compare `code`; the texts are for people. */
export interface Problem {
  /** A URI that identifies the code. */
  type: string;
  title: string;
  /** The response’s status. */
  status: number;
  /** Stable. More may be added; known are `MALFORMED_REQUEST`, `MALFORMED_JSON`, `INVALID_ENCODING`, `ONE_TIME_TOKEN_INVALID`, `VALIDATION_FAILED`, `UNSUPPORTED_MEDIA_TYPE`, `BODY_TOO_LARGE`, `AUTHENTICATION_REQUIRED`, `INVALID_TOKEN`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`, `TOKEN_SUPERSEDED`, `TOKEN_REUSED`, `INVALID_CREDENTIALS`, `ACCOUNT_DISABLED`, `PASSWORD_INCORRECT`, `FORBIDDEN`, `NOT_FOUND`, `METHOD_NOT_ALLOWED`, `EMAIL_TAKEN`, `CONFLICT`, `RATE_LIMITED`, `SERVICE_UNAVAILABLE`, `CONFIG_INVALID`, `INTERNAL`. */
  code: string;
  /** About this occurrence. */
  detail?: string;
  /** The values at fault. */
  errors?: FieldError[];
  /** The limits that refused the request (draft-ietf-httpapi-ratelimit-headers). */
  'violated-policies'?: string[];
  /** As in `X-Request-Id` and in the server’s log. */
  requestId: string;
}

export interface ProfileChange {
  /** Without control characters; more than white space, which is trimmed. */
  name?: string | null;
}

export interface Readiness {
  /** `ready`, `degraded` (it serves all the same) or `unready` */
  status: string;
  dependencies: {
    redis: {
      /** `up`, `down` or `degraded` */
      status: string;
      detail?: string;
      /** `closed`, `open` or `half-open` */
      breaker: string;
    };
    database: {
      /** `up`, `down` or `degraded` */
      status: string;
      detail?: string;
    };
  };
  degradedRequests: Record<string, number>;
}

export interface RecoveryRequest {
  /** White space around it is trimmed. */
  email: string;
}

export interface RefreshRequest {
  refresh_token: string;
}

export interface Registration {
  /** White space around it is trimmed. */
  email: string;
  /** Any characters, counted as code points in NFC. Common ones are refused. */
  password: string;
  /** Without control characters; more than white space, which is trimmed. */
  name: string;
  /** Without control characters; more than white space, which is trimmed. */
  device?: string | null;
}

export interface RevocationRequest {
  token: string;
  token_type_hint?: string | null;
}

export interface Session {
  /** For `DELETE /v1/sessions/{id}`. */
  id: string;
  /** What the client called itself at sign-in. */
  device: string;
  /** The IP address that it signed in from. */
  address: string;
  createdAt: string;
  lastSeenAt: string;
  /** When it ends at the latest. */
  expiresAt: string;
  /** Whether it is the one that asks. */
  current: boolean;
}

export interface SessionList {
  items: Session[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface SignedIn {
  user: User;
  /** Sent as `Authorization: Bearer`. A JWT (RFC 9068). */
  access_token: string;
  /** Exchanged for the next pair. Store both tokens of a response together. */
  refresh_token: string;
  /** `Bearer` */
  token_type: string;
  /** Life of the access token, in seconds, from when it was issued. */
  expires_in: number;
}

/** RFC 6749, section 5.1. */
export interface TokenPair {
  /** Sent as `Authorization: Bearer`. A JWT (RFC 9068). */
  access_token: string;
  /** Exchanged for the next pair. Store both tokens of a response together. */
  refresh_token: string;
  /** `Bearer` */
  token_type: string;
  /** Life of the access token, in seconds, from when it was issued. */
  expires_in: number;
}

export interface User {
  id: string;
  email: string;
  emailVerified: boolean;
  name: string;
  role: 'user' | 'admin';
  status: 'active' | 'disabled';
  createdAt: string;
  updatedAt: string;
}

export interface UserChange {
  /** Without control characters; more than white space, which is trimmed. */
  name?: string | null;
  role?: 'user' | 'admin';
  status?: 'active' | 'disabled';
}

export interface UserList {
  items: User[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface VerificationConfirmation {
  token: string;
}

export interface WarmingJob {
  name: string;
  /** How often the cron trigger runs it; `null`: on request only. */
  everySeconds: number | null;
  /** `idle` (not run within a day), `running` (there is more to do) or `done`. */
  state: string;
  /** Items warmed. */
  done?: number;
  failed?: number;
  total?: number | null;
  startedAt?: string;
  updatedAt?: string;
}

export interface WarmingJobs {
  jobs: WarmingJob[];
}

/** Codes of {@link Problem} that are known; later versions of the API may add more. */
export type ErrorCode =
  | 'MALFORMED_REQUEST'
  | 'MALFORMED_JSON'
  | 'INVALID_ENCODING'
  | 'ONE_TIME_TOKEN_INVALID'
  | 'VALIDATION_FAILED'
  | 'UNSUPPORTED_MEDIA_TYPE'
  | 'BODY_TOO_LARGE'
  | 'AUTHENTICATION_REQUIRED'
  | 'INVALID_TOKEN'
  | 'TOKEN_EXPIRED'
  | 'TOKEN_REVOKED'
  | 'TOKEN_SUPERSEDED'
  | 'TOKEN_REUSED'
  | 'INVALID_CREDENTIALS'
  | 'ACCOUNT_DISABLED'
  | 'PASSWORD_INCORRECT'
  | 'FORBIDDEN'
  | 'NOT_FOUND'
  | 'METHOD_NOT_ALLOWED'
  | 'EMAIL_TAKEN'
  | 'CONFLICT'
  | 'RATE_LIMITED'
  | 'SERVICE_UNAVAILABLE'
  | 'CONFIG_INVALID'
  | 'INTERNAL';

/** What `call` sends and returns. */
export interface Operations {
  /** What this is. */
  'GET /': { result: Index };
  /** Whether the process runs. */
  'GET /health': { result: Health };
  /** Whether the dependencies are there. */
  'GET /ready': { result: Readiness };
  /** Public keys of the access tokens. */
  'GET /.well-known/jwks.json': { result: Jwks };
  /** Ask for a mail that recovers the password. */
  'POST /v1/auth/recovery': { body: RecoveryRequest; result: Accepted };
  /** Set a new password with the token of a mail. */
  'POST /v1/auth/recovery/confirm': { body: PasswordReset; result: undefined };
  /** Ask for a mail that verifies the address. */
  'POST /v1/auth/verification': { result: Accepted };
  /** Verify the address with the token of a mail. */
  'POST /v1/auth/verification/confirm': { body: VerificationConfirmation; result: undefined };
  /** Your sessions. */
  'GET /v1/sessions': { result: SessionList };
  /** End one of your sessions. */
  'DELETE /v1/sessions/{id}': { params: { id: string }; result: undefined };
  /** Your account. */
  'GET /v1/users/me': { result: User };
  /** Change your account. */
  'PATCH /v1/users/me': { body: ProfileChange; result: User };
  /** What happened to your account, the last 50 events. */
  'GET /v1/users/me/events': { result: AccountEventList };
  /** All accounts. */
  'GET /v1/users': { query?: { page?: number; limit?: number; q?: string }; result: UserList };
  /** An account. */
  'GET /v1/users/{id}': { params: { id: string }; result: User };
  /** Change an account. */
  'PATCH /v1/users/{id}': { params: { id: string }; body: UserChange; result: User };
  /** What a rate limit has left for an identity. */
  'POST /v1/admin/limits/peek': { body: Counter; result: LimitStates };
  /** Forget what a rate limit has counted for an identity. */
  'POST /v1/admin/limits/reset': { body: Counter; result: undefined };
  /** Warming jobs and how far they have come. */
  'GET /v1/admin/warming': { result: WarmingJobs };
  /** Run one slice of a warming job. */
  'POST /v1/admin/warming/{job}': {
    params: { job: string };
    query?: { concurrency?: number; restart?: boolean };
    result: WarmingJob;
  };
}

/** Operations that take an `Idempotency-Key`: repeated with the same key they run once. */
export const IDEMPOTENT_WITH_KEY: readonly string[] = [];
