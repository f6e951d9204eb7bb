import { sleep } from './retry';

/** This long, up to twice as long. */
const PAUSE_MS = 100;

/**
 * Waits, in `waitUntil`, until the answer has left. For work that is done only where an account exists: begun at once it
 * holds up the answer by some milliseconds (7 of 20 on one machine), and begun at a fixed time it would hold up another
 * request that is sent for that; either way the time of an answer would tell who has an account.
 */
export function wellAfterAnswer(): Promise<void> {
  return sleep(PAUSE_MS * (1 + Math.random()));
}
