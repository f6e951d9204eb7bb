import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CHROMIUM, CHROMIUM_MISSING, hasChromium } from '../../support/chromium.ts';
import { openApi, operations } from '../../support/contract/contract.ts';
import { until } from '../faults/scene.ts';
import { copyProject, freePort, startScript } from '../scripts/project.ts';
import type { Project, Running } from '../scripts/project.ts';

let project: Project;
let dev: Running;
let url: string;

beforeAll(async () => {
  project = copyProject();
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const env = { PORT: String(port), GATEWAY_PORT: String(await freePort()) };
  dev = startScript(project.root, 'dev', [], { env });
  await until('it runs', () => dev.output.stdout.includes('Ctrl-C') || dev.child.exitCode !== null, {
    withinMs: 55_000,
  });
});
afterAll(async () => {
  dev.child.kill('SIGTERM');
  await dev.ended;
  project[Symbol.dispose]();
});

it('the index tells where everything is, and npm run dev prints the page', async () => {
  const response = await fetch(`${url}/`);
  expect(response.status).toBe(200);
  const { version } = JSON.parse(await readFile(join(project.root, 'package.json'), 'utf8')) as { version: string };
  const index = { name: 'Gatehouse', version, documentation: '/docs', contract: '/openapi.json' };
  expect(await response.json()).toEqual(index);
  for (const path of [index.documentation, index.contract]) expect((await fetch(`${url}${path}`)).status).toBe(200);
  expect(dev.output.stdout).toContain(`${url}/docs`);
});

it('the contract is served as it is in the repository', async () => {
  const response = await fetch(`${url}/openapi.json`);
  expect(response.headers.get('Content-Type')).toMatch(/^application\/json/);
  expect(response.headers.get('Access-Control-Allow-Origin')).toBe('*');
  expect(await response.json()).toEqual(openApi);
});

it('the page has a policy, nothing of the internet, and at most 700 KB', async () => {
  const page = await fetch(`${url}/docs`);
  expect(page.headers.get('Content-Type')).toMatch(/^text\/html/);
  expect(page.headers.get('Content-Security-Policy')).toMatch(/^default-src 'none'; script-src 'self';/);
  const html = await page.text();
  const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, source = '']) => source);
  expect(sources.filter((source) => /^(https?:)?\/\//.test(source))).toEqual([]);
  const files = sources.filter((source) => source.startsWith('/'));
  expect(files.length).toBeGreaterThan(3);
  let bytes = gzipSync(html).length;
  for (const file of files) {
    const response = await fetch(`${url}${file}`);
    expect(response.status).toBe(200);
    bytes += gzipSync(Buffer.from(await response.arrayBuffer())).length;
  }
  expect(bytes).toBeLessThanOrEqual(700 * 1_024);
});

it('what is no asset is the Worker’s', async () => {
  expect((await fetch(`${url}/health`)).status).toBe(200);
  const missing = await fetch(`${url}/docs/none`);
  expect(missing.headers.get('Content-Type')).toBe('application/problem+json');
});

describe.skipIf(!hasChromium)(`in Chromium${hasChromium ? '' : `: ${CHROMIUM_MISSING}`}`, () => {
  it('shows every operation, without the internet and within its policy', async () => {
    const profile = await mkdtemp(join(tmpdir(), 'gatehouse-docs-'));
    const argv = [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      `--user-data-dir=${profile}`,
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
      '--enable-logging=stderr',
      '--virtual-time-budget=20000',
      '--dump-dom',
      `${url}/docs`,
    ];
    const { stdout, stderr } = await promisify(execFile)(CHROMIUM, argv, { maxBuffer: 50_000_000, timeout: 50_000 });
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    const shown = [...stdout.matchAll(/data-path="([^"]+)"/g)].map(([, path]) => path?.replaceAll('\u200b', ''));
    for (const { path } of operations) expect(shown).toContain(path);
    expect(stdout).toContain('Authorize');
    // The console of the page, where a violation of the policy is told.
    expect(stderr.split('\n').filter((line) => line.includes('CONSOLE') && /error|refused|violat/i.test(line))).toEqual(
      [],
    );
  });
});
