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

export interface AccountExport {
  exportedAt: string;
  account: {
    id: string;
    email: string;
    emailVerifiedAt: string | null;
    name: string;
    role: string;
    status: string;
    createdAt: string;
    updatedAt: string;
  };
  sessions: {
    id: string;
    device: string;
    address: string;
    createdAt: string;
    lastSeenAt: string;
    expiresAt: string;
    endedAt: string | null;
    endedReason: string | null;
    /** JSON of the app’s own session data. */
    data: string;
  }[];
  events: {
    /** Such as `login`, `login-failed`, `password-changed`; more may be added. */
    kind: string;
    sessionId: string | null;
    address: string;
    device: string;
    at: string;
  }[];
  mails: {
    purpose: string;
    email: string;
    formerEmail: string | null;
    createdAt: string;
    expiresAt: string;
  }[];
  signInAddresses: {
    lastAt: string;
    wrongPasswords: number;
  }[];
  administration: {
    action: string;
    at: string;
  }[];
  /** Rows of the app’s own tables, by the name of each. */
  app: Record<string, unknown[]>;
}

export interface AuditEntry {
  id: string;
  at: string;
  /** The administrator’s user id, or `command-line`. */
  by: string;
  /** Such as `disabled`, `session-ended`, `limit-reset`; more may be added. */
  action: string;
  /** The account concerned. */
  userId: string | null;
  detail: Record<string, string>;
}

export interface AuditList {
  items: AuditEntry[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface CacheInvalidation {
  namespaces?: string[] | null;
  tags?: string[] | null;
  users?: string[] | null;
}

export interface Counter {
  policy: string;
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

export interface DeletionRequest {
  /** White space around it is trimmed. */
  email: string;
}

export interface EmailChange {
  /** White space around it is trimmed. */
  email: string;
}

export interface EmailChangeConfirmation {
  token: string;
}

export interface EndedSessions {
  /** Users whose sessions this call has ended. */
  users: number;
  /** `after` of the next call; `null`: that was the last. */
  next: string | null;
}

export interface EveryoneSignOut {
  after?: string | null;
}

export interface FieldError {
  /** A JSON pointer (RFC 6901) into the body. */
  pointer?: string;
  /** The name of a query or path parameter. */
  parameter?: string;
  detail: string;
}

/** The refresh token stays as it is. */
export interface FreshToken {
  /** Sent as `Authorization: Bearer`. A JWT (RFC 9068). */
  access_token: string;
  /** `Bearer` */
  token_type: string;
  /** Life of the access token, in seconds, from when it was issued. */
  expires_in: number;
}

export interface Health {
  status: 'ok';
  /** The state that the responding isolate knows: `unknown` (no response yet), `up`, `degraded` (some shards cannot serve) or `down`. */
  redis: string;
  /** Whether the isolate calls Redis: its circuit breaker is closed. */
  redisAvailable: boolean;
  /** Shards of a cluster that the isolate does not call, because they failed. */
  redisShardsOut: number;
}

export interface Index {
  name: string;
  version: string;
  documentation: string;
  contract: string;
}

export interface Invalidation {
  /** Whether Redis does not have the change yet; the cron trigger retries. */
  pending: boolean;
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

export interface KeySet {
  name: string;
  keys: {
    kid: string;
    /** `next`, `active` or `retired` */
    state: string;
    /** When it entered this state; `null` if the set does not contain the time. */
    since: string | null;
  }[];
  next: {
    /** The next step of a rotation: `publish`, `promote` or `drop`. */
    step: string;
    /** The earliest safe time; `null`: at any time, or unknown. */
    safeAt: string | null;
  };
}

export interface KeySetList {
  sets: KeySet[];
}

export interface KnownSession {
  /** For `DELETE /v1/sessions/{id}`. */
  id: string;
  /** The name that the client gave at sign-in. */
  device: string;
  /** The IP address that it signed in from. */
  address: string;
  createdAt: string;
  lastSeenAt: string;
  /** When it ends at the latest. */
  expiresAt: string;
  /** Whether it is the session of this request. */
  current: boolean;
  /** `live`, `ended` or `expired` */
  state: string;
  endedAt: string | null;
  /** `logout`, `logout-all`, `revoked`, `evicted`, `reuse`, `password`, `disabled`, `deleted` or `administrator`; `null` for one that did not end before its time. */
  endedReason: string | null;
}

export interface KnownSessionList {
  items: KnownSession[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface LimitName {
  policy: string;
}

export interface LimitOverride {
  policy: string;
  windows: {
    maxRequests: number;
    windowMs: number;
  }[];
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

export interface Limiter {
  /** The name, as refusals show it; a route, for a limiter without a name. */
  policy: string;
  /** Whose requests it counts: `caller` (user, else address), `address`, `account`, `address-and-account`, `session`, `session-or-address`, or `own` (the app’s). */
  counts: string;
  algorithm: string;
  /** The numbers that count; empty where they depend on the request. */
  windows: {
    maxRequests: number;
    windowMs: number;
  }[];
  /** The app’s own numbers. */
  ownWindows: {
    maxRequests: number;
    windowMs: number;
  }[];
  /** The administrator who has set other numbers. */
  overriddenBy: string | null;
  overriddenAt: string | null;
  /** Where it is mounted. */
  places: string[];
}

export interface LimiterList {
  limits: Limiter[];
}

export interface MetricSeries {
  /** As OpenTelemetry names it; see docs/metrics.md. */
  name: string;
  /** `counter` or `histogram` */
  kind: string;
  /** UCUM, such as `s` or `{request}`. */
  unit: string;
  /** Upper bounds of a histogram’s buckets; one more has no bound. */
  bounds?: number[];
  labels: Record<string, string>;
  /** The counts of each step, oldest first: `[step, count]` or, for a histogram, `[step, sum, …counts by bucket]` without zeros at the end. Steps in which nothing was counted are left out. */
  points: number[][];
}

export interface Metrics {
  range: string;
  /** `redis`: all isolates. `isolate`: Redis is away; what this isolate has counted and not yet reported. */
  source: string;
  stepSeconds: number;
  /** Beginning of step 0. */
  from: string;
  /** End of the last step, which has not ended yet. */
  to: string;
  series: MetricSeries[];
  state: MetricsState;
}

export interface MetricsState {
  /** The one that responds. */
  isolate: string;
  /** `up` or `down` */
  redis: string;
  /** `closed`, `open` or `half-open`, in this isolate */
  breaker: string;
  /** Shards of a cluster that this isolate does without. */
  shardsOut: number;
  /** `up` or `down` */
  database: string;
  /** `null` while the database is away. */
  outbox: {
    /** Messages that Redis has not received; counted up to 10,000. */
    pending: number;
    oldestAgeSeconds: number;
  } | null;
  /** `none`, `cloudflare` or `console` */
  mailer: string;
  /** Isolates that reported within the last minute; `null` while Redis is away. */
  isolates: number | null;
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
  /** Stable. More may be added; known are `MALFORMED_REQUEST`, `MALFORMED_JSON`, `INVALID_ENCODING`, `IDEMPOTENCY_KEY_REQUIRED`, `IDEMPOTENCY_KEY_INVALID`, `ONE_TIME_TOKEN_INVALID`, `VALIDATION_FAILED`, `IDEMPOTENCY_KEY_REUSED`, `UNSUPPORTED_MEDIA_TYPE`, `BODY_TOO_LARGE`, `AUTHENTICATION_REQUIRED`, `INVALID_TOKEN`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`, `TOKEN_SUPERSEDED`, `TOKEN_REUSED`, `REAUTHENTICATION_REQUIRED`, `INVALID_CREDENTIALS`, `ACCOUNT_DISABLED`, `PASSWORD_INCORRECT`, `FORBIDDEN`, `NOT_FOUND`, `METHOD_NOT_ALLOWED`, `EMAIL_TAKEN`, `LAST_ADMINISTRATOR`, `CONFLICT`, `IDEMPOTENCY_KEY_IN_USE`, `IDEMPOTENCY_RESPONSE_LOST`, `RATE_LIMITED`, `SERVICE_UNAVAILABLE`, `READ_ONLY`, `CONFIG_INVALID`, `INTERNAL`. */
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

export interface Reauthentication {
  /** Any characters, counted as code points in NFC. */
  password: string;
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
  /** The name that the client gave at sign-in. */
  device: string;
  /** The IP address that it signed in from. */
  address: string;
  createdAt: string;
  lastSeenAt: string;
  /** When it ends at the latest. */
  expiresAt: string;
  /** Whether it is the session of this request. */
  current: boolean;
}

export interface SessionList {
  items: Session[];
  page: number;
  limit: number;
  /** How many there are on all pages. */
  total: number;
}

export interface Setting {
  name: string;
  /** `null`: not set. A secret’s value is `(secret)`. */
  value: string | null;
  isSecret: boolean;
  isDefault: boolean;
}

export interface SettingList {
  settings: Setting[];
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
  /** `idle` (not run within a day), `running` (there is more to do), `done` or `stopped`. */
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
  | 'IDEMPOTENCY_KEY_REQUIRED'
  | 'IDEMPOTENCY_KEY_INVALID'
  | 'ONE_TIME_TOKEN_INVALID'
  | 'VALIDATION_FAILED'
  | 'IDEMPOTENCY_KEY_REUSED'
  | 'UNSUPPORTED_MEDIA_TYPE'
  | 'BODY_TOO_LARGE'
  | 'AUTHENTICATION_REQUIRED'
  | 'INVALID_TOKEN'
  | 'TOKEN_EXPIRED'
  | 'TOKEN_REVOKED'
  | 'TOKEN_SUPERSEDED'
  | 'TOKEN_REUSED'
  | 'REAUTHENTICATION_REQUIRED'
  | 'INVALID_CREDENTIALS'
  | 'ACCOUNT_DISABLED'
  | 'PASSWORD_INCORRECT'
  | 'FORBIDDEN'
  | 'NOT_FOUND'
  | 'METHOD_NOT_ALLOWED'
  | 'EMAIL_TAKEN'
  | 'LAST_ADMINISTRATOR'
  | 'CONFLICT'
  | 'IDEMPOTENCY_KEY_IN_USE'
  | 'IDEMPOTENCY_RESPONSE_LOST'
  | 'RATE_LIMITED'
  | 'SERVICE_UNAVAILABLE'
  | 'READ_ONLY'
  | 'CONFIG_INVALID'
  | 'INTERNAL';

/** What `call` sends and returns. */
export interface Operations {
  /** Name, version and links. */
  'GET /': { result: Index };
  /** Whether the process runs. */
  'GET /health': { result: Health };
  /** Whether the dependencies are there. */
  'GET /ready': { result: Readiness };
  /** Counters and histograms for Prometheus. */
  'GET /metrics': { result: undefined };
  /** Public keys of the access tokens. */
  'GET /.well-known/jwks.json': { result: Jwks };
  /** Ask for a mail that recovers the password. */
  'POST /v1/auth/recovery': { body: RecoveryRequest; result: Accepted };
  /** Set a new password with the token of a mail. */
  'POST /v1/auth/recovery/confirm': { body: PasswordReset; result: undefined };
  /** Ask for a mail that deletes the account. */
  'POST /v1/auth/deletion': { body: DeletionRequest; result: Accepted };
  /** Delete the account with the token of a mail. */
  'POST /v1/auth/deletion/confirm': { body: EmailChangeConfirmation; result: undefined };
  /** Confirm the new e-mail address with the token of a mail. */
  'POST /v1/auth/email/confirm': { body: EmailChangeConfirmation; result: undefined };
  /** Undo a change of the e-mail address. */
  'POST /v1/auth/email/undo': { body: EmailChangeConfirmation; result: undefined };
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
  /** Everything that is stored of your account. */
  'GET /v1/users/me/export': { result: AccountExport };
  /** Ask for another e-mail address. */
  'POST /v1/users/me/email': { body: EmailChange; result: Accepted };
  /** The last 50 events of your account. */
  'GET /v1/users/me/events': { result: AccountEventList };
  /** All accounts. */
  'GET /v1/users': { query?: { page?: number; limit?: number; q?: string }; result: UserList };
  /** An account. */
  'GET /v1/users/{id}': { params: { id: string }; result: User };
  /** Change an account. */
  'PATCH /v1/users/{id}': { params: { id: string }; body: UserChange; result: User };
  /** Delete an account. */
  'DELETE /v1/admin/users/{id}': { params: { id: string }; result: undefined };
  /** Sessions of an account, and why each ended. */
  'GET /v1/admin/users/{id}/sessions': {
    params: { id: string };
    query?: { page?: number; limit?: number };
    result: KnownSessionList;
  };
  /** End all sessions of an account. */
  'DELETE /v1/admin/users/{id}/sessions': { params: { id: string }; result: undefined };
  /** End one session of an account. */
  'DELETE /v1/admin/users/{id}/sessions/{session}': { params: { id: string; session: string }; result: undefined };
  /** The last 50 events of an account. */
  'GET /v1/admin/users/{id}/events': { params: { id: string }; result: AccountEventList };
  /** Invalidate what is cached of an account. */
  'DELETE /v1/admin/users/{id}/cache': { params: { id: string }; result: Invalidation };
  /** Mail the owner of an account a link to a new password. */
  'POST /v1/admin/users/{id}/recovery': { params: { id: string }; result: Accepted };
  /** End the sessions of everyone but you. */
  'POST /v1/admin/sessions/end': { body: EveryoneSignOut; result: EndedSessions };
  /** Every rate limiter, with the numbers that count. */
  'GET /v1/admin/limits': { result: LimiterList };
  /** The remaining requests of an identity in a rate limit. */
  'POST /v1/admin/limits/peek': { body: Counter; result: LimitStates };
  /** Forget what a rate limit has counted for an identity. */
  'POST /v1/admin/limits/reset': { body: Counter; result: undefined };
  /** Set other numbers for a rate limit, without a deployment. */
  'POST /v1/admin/limits/override': { body: LimitOverride; result: Invalidation };
  /** Let the app’s own numbers of a rate limit count again. */
  'POST /v1/admin/limits/restore': { body: LimitName; result: Invalidation };
  /** Invalidate namespaces, tags or users. */
  'POST /v1/admin/cache/invalidate': { body: CacheInvalidation; result: Invalidation };
  /** Time series of what all isolates measure, and the current state. */
  'GET /v1/admin/metrics': { query?: { range?: '15m' | '1h' | '24h'; since?: number }; result: Metrics };
  /** Settings as they count; secrets are masked. */
  'GET /v1/admin/settings': { result: SettingList };
  /** Ages of the keys, and the next step of each rotation. */
  'GET /v1/admin/keys': { result: KeySetList };
  /** Actions of administrators. */
  'GET /v1/admin/audit': { query?: { page?: number; limit?: number; user?: string }; result: AuditList };
  /** Warming jobs and how far they have come. */
  'GET /v1/admin/warming': { result: WarmingJobs };
  /** Stop the run of a warming job. */
  'DELETE /v1/admin/warming/{job}': { params: { job: string }; result: WarmingJob };
  /** Run one slice of a warming job. */
  'POST /v1/admin/warming/{job}': {
    params: { job: string };
    query?: { concurrency?: number; restart?: boolean };
    result: WarmingJob;
  };
}

/** Operations that take an `Idempotency-Key`: repeated with the same key they run once. */
export const IDEMPOTENT_WITH_KEY: readonly string[] = [
  'POST /v1/auth/register',
  'POST /v1/auth/login',
  'POST /v1/auth/logout',
  'POST /v1/auth/logout-all',
  'POST /v1/auth/password',
  'POST /v1/auth/recovery',
  'POST /v1/auth/recovery/confirm',
  'POST /v1/auth/deletion',
  'POST /v1/auth/deletion/confirm',
  'POST /v1/auth/email/confirm',
  'POST /v1/auth/email/undo',
  'POST /v1/auth/verification',
  'POST /v1/auth/verification/confirm',
  'DELETE /v1/sessions/{id}',
  'PATCH /v1/users/me',
  'DELETE /v1/users/me',
  'POST /v1/users/me/email',
  'PATCH /v1/users/{id}',
  'DELETE /v1/admin/users/{id}',
  'DELETE /v1/admin/users/{id}/sessions',
  'DELETE /v1/admin/users/{id}/sessions/{session}',
  'POST /v1/admin/users/{id}/recovery',
  'POST /v1/admin/sessions/end',
  'POST /v1/admin/limits/reset',
  'POST /v1/admin/limits/override',
  'POST /v1/admin/limits/restore',
];

/** POSTs and PATCHes that may be repeated without a key. */
export const IDEMPOTENT: readonly string[] = [
  'POST /v1/auth/refresh',
  'POST /v1/auth/revoke',
  'POST /v1/auth/reauthenticate',
  'POST /v1/admin/limits/peek',
  'POST /v1/admin/cache/invalidate',
  'POST /v1/admin/warming/{job}',
];
