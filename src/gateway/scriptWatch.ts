import { place } from './address.ts';
import type { BackendEvent } from './backend.ts';
import { killOn } from './backends/kill.ts';
import { describe, type Endpoint } from './client.ts';

/** Redis's own `busy-reply-threshold`, before which it reads no SCRIPT KILL. */
export const DEFAULT_SCRIPT_TIMEOUT_MS = 5000;
/** The wait between two attempts to kill a script that could not be killed, in milliseconds. */
const AGAIN_MS = 1000;
/** An attempt is only useful while the script can still be running; after so many the operator has to act. */
const MAX_ATTEMPTS = 30;

/**
 * Ends scripts that hold a server up. While a script runs, Redis serves no other client, and one without an end is ended by
 * SCRIPT KILL alone: Redis itself only begins to reply BUSY.
 *
 * Redis does not read SCRIPT KILL either before its `busy-reply-threshold` (5 seconds by default): lower that setting of
 * Redis as well to have scripts killed sooner.
 */
export class ScriptWatch {
  readonly #timeoutMs: number;
  readonly #onEvent: (event: BackendEvent) => void;
  #attempt: Promise<void> | undefined;

  constructor(timeoutMs: number, onEvent: (event: BackendEvent) => void) {
    this.#timeoutMs = timeoutMs;
    this.#onEvent = onEvent;
  }

  /** Whether an attempt to kill is on its way: the connection is worth keeping a little longer then. */
  get busy(): boolean {
    return this.#attempt !== undefined;
  }

  /** Called now and then while a script that this connection has sent is without a reply for `stalledMs`. */
  check(endpoint: Endpoint, stalledMs: number): void {
    if (this.#timeoutMs === 0 || stalledMs < this.#timeoutMs || this.#attempt) return;
    this.#attempt = this.#kill(endpoint, stalledMs).finally(() => (this.#attempt = undefined));
  }

  /** The connection was given up while a script that it had sent still ran: it may run on without it. */
  abandoned(endpoint: Endpoint, stalledMs: number): void {
    if (this.#timeoutMs === 0 || this.#attempt) return;
    const waitMs = Math.max(0, this.#timeoutMs - stalledMs);
    this.#attempt = new Promise<void>((resolve) => setTimeout(resolve, waitMs).unref())
      .then(() => this.#kill(endpoint, stalledMs + waitMs))
      .finally(() => (this.#attempt = undefined));
  }

  async #kill(endpoint: Endpoint, stalledMs: number): Promise<void> {
    const redis = place(endpoint);
    const startedAt = performance.now();
    for (let attempt = 1; ; attempt++) {
      const reasons: string[] = [];
      for (const kind of ['SCRIPT', 'FUNCTION'] as const) {
        const { killed, error } = await killOn(endpoint, kind);
        const afterMs = Math.round(stalledMs + performance.now() - startedAt);
        if (killed > 0) return this.#onEvent({ event: 'script_killed', redis, kind, afterMs });
        reasons.push(describe(error));
      }
      // Nothing runs any more: it ended by itself, or what is slow is no script.
      if (reasons.every((reason) => reason.startsWith('NOTBUSY'))) return;
      if (attempt === 1 || attempt === MAX_ATTEMPTS) {
        const reason = reasons.find((text) => !text.startsWith('NOTBUSY'))!;
        const afterMs = Math.round(stalledMs + performance.now() - startedAt);
        this.#onEvent({ event: 'script_not_killed', redis, reason, afterMs });
      }
      if (attempt === MAX_ATTEMPTS) return;
      await new Promise<void>((resolve) => setTimeout(resolve, AGAIN_MS).unref());
    }
  }
}
