import type { Clock } from './clock.ts';
import { NetworkError } from './errors.ts';

/** A request, as often as it is sent. */
export interface Outgoing {
  method: string;
  url: string;
  headers: Headers;
  body?: NonNullable<RequestInit['body']>;
  redirect?: NonNullable<RequestInit['redirect']>;
  signal?: AbortSignal;
  /** Whether it may be sent again when an earlier attempt may have been executed. */
  repeatable: boolean;
  /** It cannot be sent again, whatever became of it. */
  once?: boolean;
}

export interface TransportOptions {
  fetch: typeof fetch;
  clock: Clock;
  /** Rejects with the signal's reason when that fires first. */
  wait: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** One attempt's time. */
  timeoutMs: number;
  /** How long a call may go on waiting and trying again. */
  retryBudgetMs: number;
  random: () => number;
}

const MAX_ATTEMPTS = 5;
const BACKOFF_MS = 200;
const BACKOFF_MAX_MS = 4_000;

/** Sends requests, again where that is safe, and never longer than a budget. */
export type Send = <T>(request: Outgoing, read: (response: Response) => Promise<T>) => Promise<T>;

export function createTransport(options: TransportOptions): Send {
  const { fetch, clock, wait, timeoutMs, retryBudgetMs, random } = options;

  /** How long to wait before the next attempt; `undefined` when this response is the one to return. */
  function waitAfter(
    { status, headers }: Response,
    { repeatable, once }: Outgoing,
    attempt: number,
  ): number | undefined {
    if (once === true) return undefined;
    const askedMs = retryAfterMs(headers);
    // Refused before anything was executed, so any request may be repeated. Without Retry-After it will never pass.
    if (status === 429) return askedMs && askedMs + jitter(askedMs);
    if (!repeatable) return undefined;
    // 409: an earlier attempt with the same Idempotency-Key is still being executed.
    if (status === 409) return askedMs && askedMs + jitter(askedMs);
    if (status < 500) return undefined;
    return askedMs === undefined ? backoff(attempt) : askedMs + jitter(askedMs);
  }

  /** Retry-After is the earliest time, so jitter only adds to it. */
  const jitter = (ms: number) => random() * Math.min(1_000, 100 + ms / 10);
  const backoff = (attempt: number) => random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** attempt);

  async function attemptOnce<T>(request: Outgoing, use: (response: Response) => Promise<T>): Promise<T> {
    const { method, url, headers, body, redirect = 'manual', signal } = request;
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    if (signal?.aborted === true) abort();
    signal?.addEventListener('abort', abort);
    const timer = setTimeout(() => controller.abort(new NetworkError(`No response within ${timeoutMs} ms`)), timeoutMs);
    try {
      const init: RequestInit = { method, headers, redirect, signal: controller.signal };
      // A platform that ignores the signal must not hold up the call.
      return await abortable(
        fetch(url, body === undefined ? init : { ...init, body }).then((response) => {
          clock.observe(response.headers);
          return use(response);
        }),
        controller.signal,
      );
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  return async function send(request, read) {
    const deadline = clock.now() + retryBudgetMs;
    for (let attempt = 1; ; attempt += 1) {
      const fits = (ms: number | undefined): ms is number =>
        ms !== undefined && attempt < MAX_ATTEMPTS && clock.now() + ms <= deadline;
      let waitMs: number;
      try {
        const outcome = await attemptOnce(request, async (response) => {
          const ms = waitAfter(response, request, attempt);
          if (!fits(ms)) return { value: await read(response) };
          void response.body?.cancel().catch(() => undefined);
          return { waitMs: ms };
        });
        if ('value' in outcome) return outcome.value;
        ({ waitMs } = outcome);
      } catch (error) {
        if (request.signal?.aborted === true) throw request.signal.reason;
        waitMs = backoff(attempt);
        if (!request.repeatable || request.once === true || !fits(waitMs)) throw asNetworkError(error);
      }
      await wait(waitMs, request.signal);
    }
  };
}

function asNetworkError(error: unknown): NetworkError {
  return error instanceof NetworkError ? error : new NetworkError('The server could not be reached', { cause: error });
}

/** Seconds, or a date, which counts from the response's own `Date`. */
export function retryAfterMs(headers: Headers): number | undefined {
  const value = headers.get('Retry-After');
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.parse(headers.get('Date') ?? '');
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** The promise's outcome, unless the signal fires first. The work behind the promise continues. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout>;
  const elapsed = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  return abortable(elapsed, signal).finally(() => clearTimeout(timer));
}
