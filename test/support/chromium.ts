import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Debian's `chromium`, or another one named by CHROMIUM_BIN. */
export const CHROMIUM = process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium';

export const hasChromium = existsSync(CHROMIUM);
/** For titles of tests that are skipped. */
export const CHROMIUM_MISSING = `needs chromium (apt-get install chromium, or CHROMIUM_BIN): ${CHROMIUM} is missing`;

/** A page that a test looks into. */
export interface Page extends AsyncDisposable {
  /** Runs an expression in the page and waits for its promise. @returns its value as JSON */
  evaluate(expression: string): Promise<unknown>;
}

/** {@link openInChromium}, with a connection of the DevTools protocol. */
export async function visitInChromium(url: string, ...flags: string[]): Promise<Page> {
  const browser = await openInChromium(url, '--remote-debugging-port=0', ...flags);
  const socket = new WebSocket(await targetOf(browser.profile, url));
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('error', () => reject(new Error('the browser refuses the connection')));
  });
  let calls = 0;
  const page: Page = {
    async evaluate(expression) {
      const id = (calls += 1);
      const { promise, resolve, reject } = Promise.withResolvers<Evaluated>();
      const receive = ({ data }: MessageEvent) => {
        const message = JSON.parse(String(data)) as { id?: number; result: Evaluated; error?: { message: string } };
        if (message.id !== id) return;
        if (message.error === undefined) resolve(message.result);
        else reject(new Error(`the browser says: ${message.error.message}`));
      };
      socket.addEventListener('message', receive);
      const params = { expression, awaitPromise: true, returnByValue: true };
      socket.send(JSON.stringify({ id, method: 'Runtime.evaluate', params }));
      const { result, exceptionDetails } = await promise;
      socket.removeEventListener('message', receive);
      if (exceptionDetails !== undefined) throw new Error(`in the page: ${exceptionDetails.exception?.description}`);
      return result?.value;
    },
    async [Symbol.asyncDispose]() {
      socket.close();
      await browser[Symbol.asyncDispose]();
    },
  };
  // Until it is loaded, what runs in it may be lost with the empty page before it.
  const state = () => page.evaluate('location.protocol + document.readyState').catch((error: Error) => error.message);
  for (const untilMs = performance.now() + 60_000; (await state()) !== 'http:complete'; await sleep(20)) {
    if (performance.now() > untilMs) throw new Error(`the page is not loaded: ${String(await state())}`);
  }
  return page;
}

interface Evaluated {
  result?: { value?: unknown };
  exceptionDetails?: { exception?: { description?: string } };
}

/** The page's address in the protocol, once the browser has it. */
async function targetOf(profile: string, url: string): Promise<string> {
  for (const untilMs = performance.now() + 60_000; performance.now() < untilMs; await sleep(50)) {
    // The file is there when the port is open.
    const port = await readFile(join(profile, 'DevToolsActivePort'), 'utf8').catch(() => undefined);
    if (port === undefined) continue;
    const response = await fetch(`http://127.0.0.1:${port.split('\n')[0]}/json/list`);
    const targets = (await response.json()) as { type: string; url: string; webSocketDebuggerUrl: string }[];
    const page = targets.find((target) => target.type === 'page' && target.url.startsWith(url));
    if (page !== undefined) return page.webSocketDebuggerUrl;
  }
  throw new Error('the browser has no such page');
}

/** Opens a page in a browser with a profile of its own, which reports by itself to whom it wants. */
export async function openInChromium(url: string, ...flags: string[]): Promise<AsyncDisposable & { profile: string }> {
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
    profile,
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
