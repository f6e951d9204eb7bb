import type { ErrorCode, Problem } from './contract.ts';

/** An error response of the API (RFC 9457). */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  /** Stable; compare this one. Later versions of the API may add codes. */
  readonly code: ErrorCode | (string & {});
  readonly problem: Problem;
  /** How long the server asked to wait, where it did. */
  readonly retryAfterSeconds: number | undefined;

  constructor(problem: Problem, retryAfterSeconds?: number) {
    super(problem.detail ?? problem.title);
    this.status = problem.status;
    this.code = problem.code;
    this.problem = problem;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * No usable response: offline, a timeout, a proxy's error page, a captive portal. Says nothing about the session, and a
 * write may have been executed.
 */
export class NetworkError extends Error {
  override readonly name = 'NetworkError';
}

/**
 * The session that a call began in has ended, or another user has signed in since. The call was not repeated in the new
 * session, and its response is withheld.
 */
export class SessionChangedError extends Error {
  override readonly name = 'SessionChangedError';

  constructor() {
    super('The session that this call began in has ended.');
  }
}
