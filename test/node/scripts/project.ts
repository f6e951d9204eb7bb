import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { fingerprint, makeDatabase } from '../../../src/scripts/migrations.ts';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

export interface Project extends Disposable {
  readonly root: string;
}

/** A copy of the product in a temporary directory, without .dev.vars or any state: scripts find their files from it. */
export function copyProject(): Project {
  const root = mkdtempSync(join(tmpdir(), 'gatehouse-scripts-'));
  for (const name of ['src', 'docs', 'wrangler.toml', 'package.json', 'tsconfig.json']) {
    cpSync(join(ROOT, name), join(root, name), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'));
  return { root, [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true, maxRetries: 5 }) };
}

/** Makes the local D1 database in a wrangler state folder, with every table. */
export async function migrateAtOnce(state: string): Promise<void> {
  if (!(await makeDatabase({ state }))) throw new Error('the migrations were not applied');
}

/** As after a first `npm run dev`: a second one has no migrations to apply. */
export async function migrated(project: Project): Promise<Project> {
  await migrateAtOnce(join(project.root, '.wrangler/state'));
  writeFileSync(join(project.root, '.wrangler/state/v3/d1/migrations.sha256'), fingerprint(project.root));
  return project;
}

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Readonly<Record<string, string>>;
  input?: string;
  /** When it is killed. @default 600_000 */
  timeoutMs?: number;
}

/** A script that has been started, and what it has printed up to now. */
export interface Running {
  child: ChildProcess;
  output: { stdout: string; stderr: string };
  ended: Promise<Outcome>;
}

/** Starts `node src/scripts/NAME.ts` in a project. It is killed when it is still there after ten minutes, or `timeoutMs`. */
export function startScript(
  root: string,
  name: string,
  args: readonly string[],
  { env, input, timeoutMs = 600_000 }: RunOptions = {},
): Running {
  const inherited = Object.entries(process.env).filter(
    ([key]) => !/^(npm_|PORT$|HOST$|GATEWAY_|REDIS_|DATABASE_URL$)/.test(key),
  );
  const child = spawn(process.execPath, [join(root, 'src/scripts', `${name}.ts`), ...args], {
    cwd: root,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: 'pipe',
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  child.stdin.end(input ?? '');
  const output = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => (output[stream] += text));
  }
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve({ code, ...output }));
  });
  return { child, output, ended };
}

export async function runScript(
  root: string,
  name: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<Outcome> {
  return await startScript(root, name, args, options).ended;
}

/** Listens on a port that was free. */
export async function occupyPort(): Promise<{ server: Server; port: number } & AsyncDisposable> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const close = () => new Promise<void>((resolve) => void server.close(() => resolve()));
  return { server, port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: close };
}

export async function freePort(): Promise<number> {
  await using occupied = await occupyPort();
  return occupied.port;
}
