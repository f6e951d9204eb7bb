export interface RetryOptions {
  /** Pauses between attempts: the number of attempts is one more. */
  waitsMs: readonly number[];
  wait?: (ms: number) => Promise<void>;
  /** Errors that a retry cannot cure. */
  isFinal?: (error: unknown) => boolean;
}

/** Retries until an attempt succeeds. @throws the last attempt's error */
export async function retry<T>(
  work: () => Promise<T>,
  { waitsMs, wait = sleep, isFinal = () => false }: RetryOptions,
): Promise<T> {
  for (const waitMs of waitsMs) {
    try {
      return await work();
    } catch (error) {
      if (isFinal(error)) throw error;
      await wait(waitMs);
    }
  }
  return work();
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
