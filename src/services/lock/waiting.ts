/** Between two looks at a lock that another holds: from the first to the last of these, jittered by half. */
const FIRST_PAUSE_MS = 25;
const LAST_PAUSE_MS = 300;

/** Longer each time; jittered, so that waiters do not look in step; and no later than the other's lease ends. */
export function pauseMs(round: number, remainingMs: number, random: () => number): number {
  const pause = Math.min(LAST_PAUSE_MS, FIRST_PAUSE_MS * 1.5 ** round) * (0.5 + random());
  return remainingMs > 0 ? Math.min(pause, remainingMs + FIRST_PAUSE_MS * random()) : pause;
}
