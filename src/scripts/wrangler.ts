import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';

import { ROOT } from './cli.ts';
import { HIDDEN_ARGUMENTS } from './hiddenArguments.ts';

/**
 * The program itself, without the wrapper that `wrangler` is: that one reports an exit code of 0 when the program is
 * killed, and would stand between us and the program.
 */
export const PROGRAM = createRequire(import.meta.url).resolve('wrangler');
/** Code that runs in wrangler's process before wrangler. */
const PRELOADED = ['exitWithParent.ts', 'hiddenArguments.ts'].map((name) => new URL(name, import.meta.url).href);

/** How long wrangler may take to end by itself, in milliseconds. It takes about 200. */
const GRACE_MS = 4_000;

/**
 * Starts wrangler with its output on pipes, in a process group of its own: Ctrl-C in a terminal then reaches only us,
 * who stop it in order, and {@link stopWrangler} finds workerd and esbuild too.
 *
 * @param options `hidden`: further arguments, which no list of processes shows
 */
export function startWrangler(
  args: readonly string[],
  { env = {}, hidden = [] }: { env?: Readonly<Record<string, string>>; hidden?: readonly string[] } = {},
): ChildProcess {
  const preload = PRELOADED.flatMap((module) => ['--import', module]);
  const child = spawn(process.execPath, ['--no-warnings', ...preload, PROGRAM, ...args], {
    cwd: ROOT,
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      EXIT_WITH_PARENT: String(process.pid),
      WRANGLER_SEND_METRICS: 'false',
      WRANGLER_HIDE_BANNER: 'true',
      // Its 16 MB of JavaScript are compiled once, not at each start: a fifth of the CPU of a short command.
      NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] ?? join(ROOT, 'node_modules/.cache/wrangler'),
      // It only fills Request.cf, and asks the internet for it at every start.
      CLOUDFLARE_CF_FETCH_ENABLED: process.env['CLOUDFLARE_CF_FETCH_ENABLED'] ?? 'false',
      // wrangler's own pages run any SQL over the database, and keep traces of requests, for anyone who reaches the port: a
      // Host header of localhost is all they ask for.
      X_LOCAL_EXPLORER: 'false',
      X_LOCAL_OBSERVABILITY: 'false',
      ...(hidden.length > 0 && { [HIDDEN_ARGUMENTS]: JSON.stringify(hidden) }),
      ...env,
    },
  });
  // When wrangler is killed during a build, its esbuild waits for it for ever, and holds the pipe of its standard error: 'close'
  // would never come.
  child.once('exit', () => killGroup(child));
  return child;
}

/** Ends wrangler and all that it started. */
export async function stopWrangler(child: ChildProcess, graceMs = GRACE_MS): Promise<void> {
  if (isRunning(child)) {
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGTERM');
    await Promise.race([exited, delay(graceMs, undefined, { ref: false })]);
  }
  killGroup(child);
}

/** Ends at once whatever is left of the process group. */
export function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL');
  } catch (error) {
    // No process is left, as it should be. macOS says EPERM when only zombies are.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}

export function isRunning(child: ChildProcess): boolean {
  return child.pid !== undefined && child.exitCode === null && child.signalCode === null;
}

export interface WranglerResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/**
 * Runs a wrangler command to its end. It cannot ask anything: its standard input is closed.
 *
 * @param options `hidden` as for {@link startWrangler}
 */
export async function runWrangler(
  args: readonly string[],
  { signal, hidden = [] }: { signal?: AbortSignal; hidden?: readonly string[] } = {},
): Promise<WranglerResult> {
  signal?.throwIfAborted();
  const child = startWrangler(args, { hidden, env: { NO_COLOR: '1', FORCE_COLOR: '0' } });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  }
  const closed = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  const abort = () => child.kill('SIGTERM');
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const code = await closed;
    signal?.throwIfAborted();
    return { code, ...output };
  } finally {
    signal?.removeEventListener('abort', abort);
    killGroup(child);
  }
}

/** What wrangler said went wrong, on one line: in `--json` mode it says so on stdout. */
export function wranglerError({ code, stdout, stderr }: WranglerResult): string {
  try {
    const { error } = JSON.parse(stdout) as { error?: { text?: string } };
    if (error?.text) return oneLine(error.text);
  } catch {
    // Not JSON: the text below says it.
  }
  const lines = stripVTControlCharacters(`${stderr}\n${stdout}`)
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.includes('🪵'));
  const start = lines.findIndex((line) => line.includes('[ERROR]'));
  return oneLine(lines.slice(Math.max(start, 0), Math.max(start, 0) + 4).join(' ')) || `wrangler ended with ${code}`;
}

function oneLine(text: string): string {
  return text.replace('✘ [ERROR]', '').replace(/\s+/g, ' ').trim();
}
