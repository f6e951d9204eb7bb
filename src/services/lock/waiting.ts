/** The pauses between attempts while another holder has the lock: from the first to the last of these, jittered by half. */
const FIRST_PAUSE_MS = 25;
const LAST_PAUSE_MS = 300;

/**
 * The pauses grow, are jittered so that waiters do not try at the same time, and end when the other holder's lease ends.
 */
export function pauseMs(round: number, remainingMs: number, random: () => number): number {
  const pause = Math.min(LAST_PAUSE_MS, FIRST_PAUSE_MS * 1.5 ** round) * (0.5 + random());
  return remainingMs > 0 ? Math.min(pause, remainingMs + FIRST_PAUSE_MS * random()) : pause;
}
