import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Debian's `chromium`, or another one named by CHROMIUM_BIN. */
export const CHROMIUM = process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium';

export const hasChromium = existsSync(CHROMIUM);
/** For titles of tests that are skipped. */
export const CHROMIUM_MISSING = `needs chromium (apt-get install chromium, or CHROMIUM_BIN): ${CHROMIUM} is missing`;

/** Opens a page in a browser with a profile of its own, which reports by itself to whom it wants. */
export async function openInChromium(url: string, ...flags: string[]): Promise<AsyncDisposable> {
  const profile = await mkdtemp(join(tmpdir(), 'gatehouse-chromium-'));
  const argv = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    `--user-data-dir=${profile}`,
    ...flags,
    url,
  ];
  const child = spawn(CHROMIUM, argv, { stdio: 'ignore', detached: true });
  return {
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
        const gone = once(child, 'exit');
        // With its helpers: they are one process group.
        process.kill(-child.pid, 'SIGKILL');
        await gone;
      }
      await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}
