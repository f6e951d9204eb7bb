// Written by `npm run openapi` from the contract. Not to be edited.

import type { Hono } from 'hono';

import type {
  Accepted,
  AccountEventList,
  AccountExport,
  AuditList,
  CacheInvalidation,
  Counter,
  Credentials,
  DeletionRequest,
  EmailChange,
  EmailChangeConfirmation,
  EndedSessions,
  EveryoneSignOut,
  FreshToken,
  Health,
  Index,
  Invalidation,
  Jwks,
  KeySetList,
  KnownSessionList,
  LimitName,
  LimitOverride,
  LimitStates,
  LimiterList,
  Metrics,
  Nothing,
  PasswordChange,
  PasswordReset,
  Problem,
  ProfileChange,
  Readiness,
  Reauthentication,
  RecoveryRequest,
  RefreshRequest,
  Registration,
  RevocationRequest,
  SessionList,
  SettingList,
  SignedIn,
  TokenPair,
  User,
  UserChange,
  UserList,
  VerificationConfirmation,
  WarmingJob,
  WarmingJobs,
} from './contract.ts';

/** The routes, in the form that Hono's client reads. */
export interface Routes {
  '/': {
    /** Name, version and links. */
    $get:
      | { input: object; output: Index; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/health': {
    /** Whether the process runs. */
    $get:
      | { input: object; output: Health; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/ready': {
    /** Whether the dependencies are there. */
    $get:
      | { input: object; output: Readiness; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Readiness; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/metrics': {
    /** Counters and histograms for Prometheus. */
    $get:
      | { input: object; output: string; outputFormat: 'body'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/.well-known/jwks.json': {
    /** Public keys of the access tokens. */
    $get:
      | { input: object; output: Jwks; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/register': {
    /** Create an account. */
    $post:
      | { input: { json: Registration }; output: SignedIn; outputFormat: 'json'; status: 201 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: Registration }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/login': {
    /** Sign in. */
    $post:
      | { input: { json: Credentials }; output: SignedIn; outputFormat: 'json'; status: 200 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: Credentials }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/refresh': {
    /** Exchange a refresh token for new tokens. */
    $post:
      | { input: { json: RefreshRequest }; output: TokenPair; outputFormat: 'json'; status: 200 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: RefreshRequest }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/revoke': {
    /** Revoke a token (RFC 7009). */
    $post:
      | { input: { json: RevocationRequest }; output: Nothing; outputFormat: 'json'; status: 200 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: RevocationRequest }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/logout': {
    /** End this session. */
    $post:
      | { input: object; output: null; outputFormat: 'body'; status: 204 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/logout-all': {
    /** End all sessions of the user. */
    $post:
      | { input: object; output: null; outputFormat: 'body'; status: 204 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/reauthenticate': {
    /** Prove the password again in this session. */
    $post:
      | { input: { json: Reauthentication }; output: FreshToken; outputFormat: 'json'; status: 200 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: Reauthentication }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/password': {
    /** Change the password. */
    $post:
      | { input: { json: PasswordChange }; output: TokenPair; outputFormat: 'json'; status: 200 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: PasswordChange }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/recovery': {
    /** Ask for a mail that recovers the password. */
    $post:
      | { input: { json: RecoveryRequest }; output: Accepted; outputFormat: 'json'; status: 202 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: RecoveryRequest }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/recovery/confirm': {
    /** Set a new password with the token of a mail. */
    $post:
      | { input: { json: PasswordReset }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: PasswordReset }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/deletion': {
    /** Ask for a mail that deletes the account. */
    $post:
      | { input: { json: DeletionRequest }; output: Accepted; outputFormat: 'json'; status: 202 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: DeletionRequest }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/deletion/confirm': {
    /** Delete the account with the token of a mail. */
    $post:
      | { input: { json: EmailChangeConfirmation }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/email/confirm': {
    /** Confirm the new e-mail address with the token of a mail. */
    $post:
      | { input: { json: EmailChangeConfirmation }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/email/undo': {
    /** Undo a change of the e-mail address. */
    $post:
      | { input: { json: EmailChangeConfirmation }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: EmailChangeConfirmation }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/verification': {
    /** Ask for a mail that verifies the address. */
    $post:
      | { input: object; output: Accepted; outputFormat: 'json'; status: 202 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/auth/verification/confirm': {
    /** Verify the address with the token of a mail. */
    $post:
      | { input: { json: VerificationConfirmation }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: VerificationConfirmation }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/sessions': {
    /** Your sessions. */
    $get:
      | { input: object; output: SessionList; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/sessions/:id': {
    /** End one of your sessions. */
    $delete:
      | { input: { param: { id: string } }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/users/me': {
    /** Your account. */
    $get:
      | { input: object; output: User; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
    /** Change your account. */
    $patch:
      | { input: { json: ProfileChange }; output: User; outputFormat: 'json'; status: 200 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: ProfileChange }; output: Problem; outputFormat: 'json'; status: 500 };
    /** Delete your account. */
    $delete:
      | { input: object; output: null; outputFormat: 'body'; status: 204 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/users/me/export': {
    /** Everything that is stored of your account. */
    $get:
      | { input: object; output: AccountExport; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/users/me/email': {
    /** Ask for another e-mail address. */
    $post:
      | { input: { json: EmailChange }; output: Accepted; outputFormat: 'json'; status: 202 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: EmailChange }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/users/me/events': {
    /** The last 50 events of your account. */
    $get:
      | { input: object; output: AccountEventList; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/users': {
    /** All accounts. */
    $get:
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: UserList;
          outputFormat: 'json';
          status: 200;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 400;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 401;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 403;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 413;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 415;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 422;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 429;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 503;
        }
      | {
          input: { query: { page?: string; limit?: string; q?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 500;
        };
  };
  '/v1/users/:id': {
    /** An account. */
    $get:
      | { input: { param: { id: string } }; output: User; outputFormat: 'json'; status: 200 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
    /** Change an account. */
    $patch:
      | { input: { param: { id: string }; json: UserChange }; output: User; outputFormat: 'json'; status: 200 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string }; json: UserChange }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id': {
    /** Delete an account. */
    $delete:
      | { input: { param: { id: string } }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id/sessions': {
    /** Sessions of an account, and why each ended. */
    $get:
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: KnownSessionList;
          outputFormat: 'json';
          status: 200;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 400;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 401;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 403;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 404;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 413;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 415;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 422;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 429;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 503;
        }
      | {
          input: { param: { id: string }; query: { page?: string; limit?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 500;
        };
    /** End all sessions of an account. */
    $delete:
      | { input: { param: { id: string } }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id/sessions/:session': {
    /** End one session of an account. */
    $delete:
      | { input: { param: { id: string; session: string } }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string; session: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id/events': {
    /** The last 50 events of an account. */
    $get:
      | { input: { param: { id: string } }; output: AccountEventList; outputFormat: 'json'; status: 200 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id/cache': {
    /** Invalidate what is cached of an account. */
    $delete:
      | { input: { param: { id: string } }; output: Invalidation; outputFormat: 'json'; status: 200 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/users/:id/recovery': {
    /** Mail the owner of an account a link to a new password. */
    $post:
      | { input: { param: { id: string } }; output: Accepted; outputFormat: 'json'; status: 202 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { id: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/sessions/end': {
    /** End the sessions of everyone but you. */
    $post:
      | { input: { json: EveryoneSignOut }; output: EndedSessions; outputFormat: 'json'; status: 200 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: EveryoneSignOut }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/limits': {
    /** Every rate limiter, with the numbers that count. */
    $get:
      | { input: object; output: LimiterList; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/limits/peek': {
    /** The remaining requests of an identity in a rate limit. */
    $post:
      | { input: { json: Counter }; output: LimitStates; outputFormat: 'json'; status: 200 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/limits/reset': {
    /** Forget what a rate limit has counted for an identity. */
    $post:
      | { input: { json: Counter }; output: null; outputFormat: 'body'; status: 204 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: Counter }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/limits/override': {
    /** Set other numbers for a rate limit, without a deployment. */
    $post:
      | { input: { json: LimitOverride }; output: Invalidation; outputFormat: 'json'; status: 200 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: LimitOverride }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/limits/restore': {
    /** Let the app’s own numbers of a rate limit count again. */
    $post:
      | { input: { json: LimitName }; output: Invalidation; outputFormat: 'json'; status: 200 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 409 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: LimitName }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/cache/invalidate': {
    /** Invalidate namespaces, tags or users. */
    $post:
      | { input: { json: CacheInvalidation }; output: Invalidation; outputFormat: 'json'; status: 200 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { json: CacheInvalidation }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/metrics': {
    /** Time series of what all isolates measure, and the current state. */
    $get:
      | { input: { query: { range?: string; since?: string } }; output: Metrics; outputFormat: 'json'; status: 200 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { query: { range?: string; since?: string } }; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/settings': {
    /** Settings as they count; secrets are masked. */
    $get:
      | { input: object; output: SettingList; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/keys': {
    /** Ages of the keys, and the next step of each rotation. */
    $get:
      | { input: object; output: KeySetList; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/audit': {
    /** Actions of administrators. */
    $get:
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: AuditList;
          outputFormat: 'json';
          status: 200;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 400;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 401;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 403;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 413;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 415;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 422;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 429;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 503;
        }
      | {
          input: { query: { page?: string; limit?: string; user?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 500;
        };
  };
  '/v1/admin/warming': {
    /** Warming jobs and how far they have come. */
    $get:
      | { input: object; output: WarmingJobs; outputFormat: 'json'; status: 200 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: object; output: Problem; outputFormat: 'json'; status: 500 };
  };
  '/v1/admin/warming/:job': {
    /** Stop the run of a warming job. */
    $delete:
      | { input: { param: { job: string } }; output: WarmingJob; outputFormat: 'json'; status: 200 }
      | { input: { param: { job: string } }; output: WarmingJob; outputFormat: 'json'; status: 202 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 400 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 401 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 403 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 404 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 413 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 415 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 422 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 429 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 503 }
      | { input: { param: { job: string } }; output: Problem; outputFormat: 'json'; status: 500 };
    /** Run one slice of a warming job. */
    $post:
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: WarmingJob;
          outputFormat: 'json';
          status: 200;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: WarmingJob;
          outputFormat: 'json';
          status: 202;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 400;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 401;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 403;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 404;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 409;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 413;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 415;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 422;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 429;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 503;
        }
      | {
          input: { param: { job: string }; query: { concurrency?: string; restart?: string } };
          output: Problem;
          outputFormat: 'json';
          status: 500;
        };
  };
}

/** For `hc<AppType>('https://…')`. */
// oxlint-disable-next-line typescript/no-empty-object-type -- Hono's own default
export type AppType = Hono<{}, { [Path in keyof Routes]: Routes[Path] }>;
