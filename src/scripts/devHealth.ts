import { setTimeout as delay } from 'node:timers/promises';

import { UserError } from './cli.ts';

export interface WaitOptions {
  /** Given a line that explains why this takes long. */
  notice: (line: string) => void;
  signal: AbortSignal;
  everyMs?: number;
  /** When to say that this takes long. */
  slowMs?: number;
}

/**
 * Resolves once `/health` responds with 200. It may take for ever: a Worker that does not build, or that fails, is
 * repaired by its developer while wrangler watches the files.
 *
 * @throws {UserError} when the Worker says that its settings are wrong
 */
export async function untilHealthy(url: string, { notice, signal, everyMs = 50, slowMs = 20_000 }: WaitOptions) {
  const slow = setTimeout(() => notice('The Worker does not respond yet. Any error is above; still waiting …'), slowMs);
  let failed = false;
  try {
    for (;;) {
      signal.throwIfAborted();
      const response = await ask(url, signal);
      if (response?.ok) return;
      if (response !== undefined) {
        const problem = await problemOf(response);
        if (problem.code === 'CONFIG_INVALID')
          throw new UserError(`The Worker's settings are wrong: ${String(problem.detail)}`);
        if (!failed)
          notice(`/health responds with ${response.status}. The Worker's log is above; waiting for a change …`);
        failed = true;
      }
      // A failing Worker logs each attempt.
      await delay(failed ? everyMs * 40 : everyMs, undefined, { signal });
    }
  } finally {
    clearTimeout(slow);
  }
}

/** `undefined` while nothing listens on the port, or while wrangler holds the request because the Worker does not build. */
async function ask(url: string, signal: AbortSignal): Promise<Response | undefined> {
  try {
    return await fetch(`${url}/health`, { signal: AbortSignal.any([signal, AbortSignal.timeout(5_000)]) });
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

async function problemOf(response: Response): Promise<{ code?: unknown; detail?: unknown }> {
  try {
    return ((await response.json()) as object | null) ?? {};
  } catch {
    return {};
  }
}
