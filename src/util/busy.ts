/**
 * How long this isolate was blocked by computing (a password hash takes a quarter of a second), so that this
 * time does not count against Redis: waits count free time only.
 */
let totalMs = 0;

/** Milliseconds of blocking so far; subtract two readings to get the blocking between them. */
export function blockedMs(): number {
  return totalMs;
}

/** Called by the code that blocked the isolate, once the clock has moved on. */
export function noteBlocked(ms: number): void {
  totalMs += Math.max(0, ms);
}

/** A wait takes at most this many times its length, however busy the isolate is. */
const MAX_STRETCH = 5;

/**
 * Calls `fire` after `ms` of free time. A late timer must not beat a response that has already arrived: before
 * it fires, the event loop reads responses that are there.
 *
 * @returns cancels it
 */
export function afterFree(ms: number, fire: () => void, now: () => number = Date.now): () => void {
  const startMs = now();
  const blockedAtStart = totalMs;
  let cancelled = false;
  let timer = setTimeout(check, ms);

  function check(): void {
    void lookAgain(() => cancelled).then(() => {
      if (cancelled) return;
      const elapsedMs = now() - startMs;
      const leftMs = ms - (elapsedMs - (totalMs - blockedAtStart));
      if (leftMs > 0 && elapsedMs < ms * MAX_STRETCH) timer = setTimeout(check, leftMs);
      else fire();
    });
  }

  return () => {
    cancelled = true;
    clearTimeout(timer);
  };
}

/** Head and body of a response need a turn of the event loop each, and so does the code that notes the blocking. */
async function lookAgain(done: () => boolean): Promise<void> {
  for (let turn = 0; turn < 4 && !done(); turn += 1) {
    await new Promise<void>((resolve) => {
      setTimeout(resolve, 0);
    });
  }
}
