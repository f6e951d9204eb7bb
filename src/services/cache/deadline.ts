import { StatementMistake } from '../../db/client';
import { unavailable } from '../../errors';

/** @throws {AppError} `SERVICE_UNAVAILABLE` at the deadline, whether the work heeds its signal or not */
export async function withDeadline<T>(work: (signal: AbortSignal) => Promise<T>, deadlineMs: number): Promise<T> {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(unavailable('The data'));
      controller.abort(new DOMException('the loader took too long', 'TimeoutError'));
    }, deadlineMs);
  });
  try {
    return await Promise.race([work(controller.signal), late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Whether an error is an answer (there is no such thing, this is not allowed), as opposed to trouble with what the answer
 * comes from: a status below 500.
 */
export function isAnswer(error: unknown): boolean {
  return error instanceof Error && 'status' in error && typeof error.status === 'number' && error.status < 500;
}

/**
 * Whether an error is an outage of what the loader reads, during which a former value is better than none. An answer is
 * not, and neither is a developer's mistake: a value that hides it hides it until it is too old.
 */
export function isOutage(error: unknown): boolean {
  return !isAnswer(error) && !(error instanceof StatementMistake);
}
