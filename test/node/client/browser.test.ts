import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { PATIENT } from '../../support/app.ts';
import { CHROMIUM_MISSING, hasChromium, openInChromium } from '../../support/chromium.ts';
import { startScene } from '../faults/scene.ts';
import type { Scene } from '../faults/scene.ts';

/** A tab: refreshes and calls again and again, and says what came of it. */
const TAB = `
import { createClient, webStorage } from '/client.js';
const [role, rounds] = location.hash.slice(1).split(',');
const baseUrl = new URLSearchParams(location.search).get('api');
let nowMs = 0;
const client = createClient({ baseUrl, storage: webStorage(), monotonicNow: () => nowMs });
const events = [];
let refreshes = 0;
const report = (body) => fetch('/report', { method: 'POST', body: JSON.stringify({ role, ...body }) });
client.on('tokenRefreshed', () => (refreshes += 1));
client.on('signedOut', ({ reason }) => { events.push(reason); report({ signedOut: reason, events }); });

async function work() {
  const ids = new Set();
  for (let round = 0; round < Number(rounds); round += 1) {
    nowMs += 20 * 60_000;
    // What this tab has received is about to expire; what another has stored is not known to.
    ids.add((await client.call('GET /v1/users/me')).id);
  }
  await report({ ids: [...ids], refreshes, events, locks: 'locks' in navigator });
}

async function lead() {
  const { user } = await client.register({ email: 'tab@example.com', password: 'correct horse battery', name: 'Tab' });
  await report({ registered: user.id });
  const frames = ['left', 'right'].map((name) => {
    const frame = document.createElement('iframe');
    frame.src = location.pathname + location.search + '#' + name + ',12';
    document.body.append(frame);
  });
  await fetch('/both-done');
  await report({ signOut: await client.signOut() });
}

(role === 'lead' ? lead() : work()).catch((error) => report({ error: error.name + ': ' + error.message }));
`;

describe.skipIf(!hasChromium)(`in Chromium${hasChromium ? '' : `: ${CHROMIUM_MISSING}`}`, () => {
  let server: Server;
  let scene: Scene;
  let origin: string;
  const reports: Record<string, unknown>[] = [];
  let waiting: (() => void)[] = [];

  async function reported(what: (report: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
    for (;;) {
      const found = reports.find(what);
      if (found !== undefined) return found;
      const failed = reports.find((report) => 'error' in report);
      if (failed !== undefined) throw new Error(JSON.stringify(failed));
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  }

  const workOf = (role: string) => reported((report) => report['role'] === role && 'ids' in report);

  beforeAll(async () => {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL('../../../src/client/index.ts', import.meta.url))],
      bundle: true,
      format: 'esm',
      write: false,
      logLevel: 'error',
    });
    const files: Record<string, [type: string, content: string]> = {
      '/client.js': ['text/javascript', outputFiles[0]!.text],
      '/tab.js': ['text/javascript', TAB],
      '/': ['text/html', '<!doctype html><body><script type="module" src="/tab.js"></script></body>'],
    };
    server = createServer((request, response) => {
      const path = new URL(request.url ?? '/', 'http://page').pathname;
      if (path === '/report') {
        void text(request).then((body) => {
          reports.push(JSON.parse(body) as Record<string, unknown>);
          const woken = waiting;
          waiting = [];
          for (const wake of woken) wake();
          response.end();
        });
        return;
      }
      if (path === '/both-done') {
        void Promise.all(['left', 'right'].map((role) => workOf(role))).then(() => response.end());
        return;
      }
      const [type, content] = files[path] ?? ['text/plain', ''];
      response.writeHead(files[path] === undefined ? 404 : 200, { 'Content-Type': type }).end(content);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    // Another origin than the page's, as an app's API mostly is.
    scene = await startScene({ ...PATIENT, CORS_ORIGINS: origin });
  });
  afterAll(async () => {
    await scene[Symbol.asyncDispose]();
    server.closeAllConnections();
    server.close();
  });

  it('two tabs refresh at once and stay signed in; a sign-out in another one reaches both', async () => {
    const page = `${origin}/?api=${encodeURIComponent(scene.app.url)}#lead`;
    await using _browser = await openInChromium(page);
    const { registered: id } = await reported((report) => 'registered' in report);
    for (const role of ['left', 'right']) {
      expect(await workOf(role)).toMatchObject({ ids: [id], events: [], locks: true });
    }
    expect(await reported((report) => 'signOut' in report)).toMatchObject({ signOut: { confirmed: true } });
    for (const role of ['left', 'right']) {
      expect(await reported((report) => report['role'] === role && 'signedOut' in report)).toMatchObject({
        signedOut: 'elsewhere',
        events: ['elsewhere'],
      });
    }
    const live = await scene.app.sql('SELECT id FROM sessions WHERE ended_at_ms IS NULL');
    expect(live).toEqual([]);
  });
});
