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
