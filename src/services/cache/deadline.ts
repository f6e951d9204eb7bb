import { StatementMistake } from '../../db/client';
import { unavailable } from '../../errors';
import { within } from '../../util/within';

/** @throws {AppError} `SERVICE_UNAVAILABLE` at the deadline, whether the work heeds its signal or not */
export async function withDeadline<T>(work: (signal: AbortSignal) => Promise<T>, deadlineMs: number): Promise<T> {
  const controller = new AbortController();
  return within(work(controller.signal), deadlineMs, (): never => {
    // A moment later: the caller gets the error below, not the one that the loader makes of the abort.
    queueMicrotask(() => controller.abort(new DOMException('the loader took too long', 'TimeoutError')));
    throw unavailable('The data');
  });
}

/**
 * Whether a loader's error is its result (not found, forbidden: a status below 500), as opposed to a failure of its source.
 */
export function isAnswer(error: unknown): boolean {
  return error instanceof Error && 'status' in error && typeof error.status === 'number' && error.status < 500;
}

/**
 * Whether an error is an outage of the loader's source, during which an older value is better than none. An error that is the
 * result is no outage. Neither is a developer's mistake, which an older value would hide until it expires.
 */
export function isOutage(error: unknown): boolean {
  return !isAnswer(error) && !(error instanceof StatementMistake);
}
