import { StatementMistake } from '../../db/client';
import { unavailable } from '../../errors';
import { within } from '../../util/within';

/** @throws {AppError} `SERVICE_UNAVAILABLE` at the deadline, even if the work ignores its signal */
export async function withDeadline<T>(work: (signal: AbortSignal) => Promise<T>, deadlineMs: number): Promise<T> {
  const controller = new AbortController();
  return within(work(controller.signal), deadlineMs, (): never => {
    // Abort a moment later: the caller then gets the error below, not the loader's error about the abort.
    queueMicrotask(() => controller.abort(new DOMException('the loader took too long', 'TimeoutError')));
    throw unavailable('The data');
  });
}

/** Whether a loader's error is its result (not found, forbidden: a status below 500), and not a failure of its source. */
export function isResult(error: unknown): boolean {
  return error instanceof Error && 'status' in error && typeof error.status === 'number' && error.status < 500;
}

/**
 * Whether an error is an outage of the loader's source, so that an older value may be served. An error that is the loader's
 * result is not an outage. A developer's mistake is not one either: an older value would hide it until the value expires.
 */
export function isOutage(error: unknown): boolean {
  return !isResult(error) && !(error instanceof StatementMistake);
}
