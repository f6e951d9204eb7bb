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
 * Resolves once the Worker answers `/health`. It may take for ever: a Worker that does not build, or that fails, is
 * mended by its developer while wrangler watches the files.
 *
 * @throws {UserError} when the Worker says that its settings are wrong
 */
export async function untilHealthy(url: string, { notice, signal, everyMs = 50, slowMs = 20_000 }: WaitOptions) {
  const slow = setTimeout(() => notice('The Worker does not answer yet. Any error is above; still waiting …'), slowMs);
  let failed = false;
  try {
    for (;;) {
      signal.throwIfAborted();
      const answer = await ask(url, signal);
      if (answer?.ok) return;
      if (answer !== undefined) {
        const problem = await problemOf(answer);
        if (problem.code === 'CONFIG_INVALID')
          throw new UserError(`The Worker's settings are wrong: ${String(problem.detail)}`);
        if (!failed) notice(`The Worker answers ${answer.status} to /health. Its log is above; waiting for a change …`);
        failed = true;
      }
      // A failing Worker logs each attempt.
      await delay(failed ? everyMs * 40 : everyMs, undefined, { signal });
    }
  } finally {
    clearTimeout(slow);
  }
}

/** `undefined` while nobody listens, or while wrangler holds the request because the Worker does not build. */
async function ask(url: string, signal: AbortSignal): Promise<Response | undefined> {
  try {
    return await fetch(`${url}/health`, { signal: AbortSignal.any([signal, AbortSignal.timeout(5_000)]) });
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

async function problemOf(answer: Response): Promise<{ code?: unknown; detail?: unknown }> {
  try {
    return ((await answer.json()) as object | null) ?? {};
  } catch {
    return {};
  }
}
