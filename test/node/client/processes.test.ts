import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { liveSessions, startClientScene } from './scene.ts';
import type { ClientScene } from './scene.ts';

const PROGRAM = fileURLToPath(new URL('../../support/clientProcess.ts', import.meta.url));

let scene: ClientScene;
let folder: string;

beforeAll(async () => {
  scene = await startClientScene({ REFRESH_GRACE_SECONDS: '30' });
  folder = await mkdtemp(join(tmpdir(), 'gatehouse-client-'));
});
afterAll(async () => {
  await scene[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

interface AppProcess extends AsyncDisposable {
  /** Sends a command, and returns what it printed. */
  ask(command: string): Promise<unknown>;
  /** The next line that it prints by itself. */
  next(): Promise<unknown>;
  kill(): Promise<void>;
}

let processes = 0;

async function startProcess(file: string, ...args: string[]): Promise<AppProcess> {
  processes += 1;
  const argv = ['--no-warnings', PROGRAM, scene.server.app.url, join(folder, file), `192.0.2.${processes}`, ...args];
  const child = spawn(process.execPath, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = (await lines.next()) as { value?: string; done?: boolean };
    if (done === true || value === undefined) throw new Error('the process has ended');
    return JSON.parse(value) as unknown;
  };
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };
  expect(await next()).toEqual({ at: 'ready' });
  return {
    async ask(command) {
      child.stdin.write(`${command}\n`);
      return next();
    },
    next,
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

const ROUNDS = 15;

describe('processes that share a storage', () => {
  it('refresh at the same time, again and again: the session goes on', async () => {
    const { id, credentials } = await scene.device().register();
    await using app = await startProcess('shared.db');
    await using widget = await startProcess('shared.db');
    expect(await app.ask(`login ${JSON.stringify(credentials)}`)).toEqual({ id });
    const outcomes = await Promise.all([app.ask(`refresh ${ROUNDS}`), widget.ask(`refresh ${ROUNDS}`)]);
    for (const outcome of outcomes) expect(outcome).toMatchObject({ ids: [id], events: [] });
    const refreshes = outcomes.map((outcome) => (outcome as { refreshes: number }).refreshes);
    // Each has refreshed by itself, so they did meet.
    for (const count of refreshes) expect(count).toBeGreaterThan(0);
    expect(await liveSessions(scene, id)).toBe(2);
  });

  it('one signs out while the other refreshes: nothing is left', async () => {
    const { id, credentials } = await scene.device().register();
    await using app = await startProcess('signOut.db');
    await using widget = await startProcess('signOut.db');
    await app.ask(`login ${JSON.stringify(credentials)}`);
    const refreshing = widget.ask('refresh 1000');
    expect(await app.ask('signOut')).toEqual({ confirmed: true });
    expect(await refreshing).toMatchObject({ error: expect.stringMatching(/^(ApiError|SessionChangedError)$/) });
    expect(await app.ask('refresh 1')).toMatchObject({ error: 'ApiError', message: 'Authentication is required' });
    // The registration's session is another device's.
    await expect.poll(() => liveSessions(scene, id)).toBe(1);
  });
});

it('killed after the server has rotated the token, before the new one is stored: the next start goes on', async () => {
  const { id, credentials } = await scene.device().register();
  {
    await using first = await startProcess('killed.db');
    await first.ask(`login ${JSON.stringify(credentials)}`);
  }
  for (let death = 0; death < 3; death += 1) {
    await using dying = await startProcess('killed.db', 'before-store');
    // A token of the time before has no known expiry here: the first response brings the server's time, the second call refreshes.
    expect(await dying.ask('refresh 2')).toEqual({ at: 'before-store' });
    await dying.kill();
  }
  await using next = await startProcess('killed.db');
  expect(await next.ask('refresh 3')).toMatchObject({ ids: [id], events: [] });
  expect(await liveSessions(scene, id)).toBe(2);
});
