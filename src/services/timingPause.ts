import { sleep } from '../util/retry';

/** The pause is between this and twice this long. */
const PAUSE_MS = 100;

/**
 * A random pause, for `waitUntil`, before work that is done only if an account exists. If that work began at once, it would
 * delay the response by some milliseconds (7 of 20 on one machine). If it began at a fixed time, it would delay another
 * request that an attacker sends at that time. Either delay would reveal that the address has an account.
 */
export function timingPause(): Promise<void> {
  return sleep(PAUSE_MS * (1 + Math.random()));
}
