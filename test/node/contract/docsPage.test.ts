import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CHROMIUM, CHROMIUM_MISSING, hasChromium, visitInChromium } from '../../support/chromium.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import { openApi, operations } from '../../support/contract/contract.ts';
import { until } from '../faults/scene.ts';
import { copyProject, freePort, migrated, startScript } from '../scripts/project.ts';
import type { Project, Running } from '../scripts/project.ts';

let project: Project;
let dev: Running;
let url: string;

beforeAll(async () => {
  project = await migrated(copyProject());
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const env = { PORT: String(port), GATEWAY_PORT: String(await freePort()) };
  dev = startScript(project.root, 'dev', [], { env });
  await until('it runs', () => dev.output.stdout.includes('Ctrl-C') || dev.child.exitCode !== null);
});
afterAll(async () => {
  dev.child.kill('SIGTERM');
  await dev.ended;
  project[Symbol.dispose]();
});

it('the index links to every page, and npm run dev prints the docs page', async () => {
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

it('a path without an asset is the Worker’s', async () => {
  expect((await fetch(`${url}/health`)).status).toBe(200);
  const missing = await fetch(`${url}/docs/none`);
  expect(missing.headers.get('Content-Type')).toBe('application/problem+json');
});

it('the page that deletes an account has a policy, and nothing of the internet', async () => {
  const page = await fetch(`${url}/delete-account`);
  expect(page.headers.get('Content-Type')).toMatch(/^text\/html/);
  const policy = page.headers.get('Content-Security-Policy');
  expect(policy).toMatch(/^default-src 'none'; script-src 'self';/);
  expect(policy).toContain("frame-ancestors 'none'");
  const html = await page.text();
  const files = [...html.matchAll(/(?:src|href)="(?!data:)([^"]+)"/g)].map(([, file = '']) => file);
  expect(files).toEqual(['/delete-account/style.css', '/delete-account/start.js']);
  for (const file of files) expect((await fetch(`${url}${file}`)).status).toBe(200);
});

/** What a person does on the page: signs in with a token, and executes operations. Runs there. */
const VISITOR = `
const find = async (selector) => {
  for (const untilMs = performance.now() + 60_000; performance.now() < untilMs; ) {
    const found = document.querySelector(selector);
    if (found !== null) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('nothing on the page is ' + selector);
};
// React notices only a value that is set by the element's own setter.
const type = async (selector, text) => {
  const field = await find(selector);
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, text);
  field.dispatchEvent(new Event('input', { bubbles: true }));
  field.dispatchEvent(new Event('change', { bubbles: true }));
};
const click = async (selector) => (await find(selector)).click();
const authorize = async (token) => {
  await click('.auth-wrapper .authorize');
  await type('.auth-container input', token);
  await click('.auth-btn-wrapper .authorize');
  await click('.auth-btn-wrapper .btn-done');
};
const open = async (operation) => {
  const block = '#operations-Account-' + operation;
  await click(block + ' .opblock-summary-control');
  // Drawn once its schemas are resolved; nothing can be executed before.
  await find(block + ' .responses-inner .example');
};
const execute = async (operation) => {
  const block = '#operations-Account-' + operation;
  document.querySelector(block + ' .btn-clear')?.click();
  await click(block + ' .btn.execute');
  const response = block + ' .live-responses-table tbody ';
  const status = (await find(response + '.response-col_status')).firstChild.textContent;
  const [body, headers] = [...document.querySelectorAll(response + '.microlight')];
  return { status, body: body.textContent, headers: headers.textContent };
};
`;

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
    const { stdout, stderr } = await promisify(execFile)(CHROMIUM, argv, { maxBuffer: 50_000_000, timeout: 240_000 });
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    const shown = [...stdout.matchAll(/data-path="([^"]+)"/g)].map(([, path]) => path?.replaceAll('\u200b', ''));
    for (const { path } of operations) expect(shown).toContain(path);
    expect(stdout).toContain('Authorize');
    // The console of the page, where the browser reports a violation of the policy.
    expect(stderr.split('\n').filter((line) => line.includes('CONSOLE') && /error|refused|violat/i.test(line))).toEqual(
      [],
    );
  });

  it('executes operations with a token that is typed into it', async () => {
    const account = newcomer();
    const { body: signedIn } = await clientOf(url)('POST', '/v1/auth/register', { body: account });
    await using page = await visitInChromium(`${url}/docs`, '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1');
    const visit = (steps: string) => page.evaluate(`(async () => { ${VISITOR} ${steps} })()`);

    const anonymous = await visit(`await open('getMe'); return execute('getMe');`);
    expect(anonymous).toMatchObject({ status: '401', body: expect.stringContaining('AUTHENTICATION_REQUIRED') });
    const token = JSON.stringify(signedIn.access_token);
    const read = await visit(`await authorize(${token}); return execute('getMe');`);
    expect(read).toMatchObject({ status: '200', body: expect.stringContaining(account.email) });

    const renamed = await visit(`
      await open('updateMe');
      await type('#operations-Account-updateMe [placeholder="Idempotency-Key"]', '"docs-page-1"');
      await type('#operations-Account-updateMe .body-param__text', '{"name":"Grace Hopper"}');
      return execute('updateMe');`);
    expect(renamed).toMatchObject({ status: '200', body: expect.stringContaining('Grace Hopper') });
    await until('the response is stored', async () => {
      const again = (await visit(`return execute('updateMe');`)) as { status: string; headers: string };
      return again.status === '200' && again.headers.includes('idempotency-replayed: true');
    });
  });

  it('deletes an account with the link of a mail, and not before the button is pressed', async () => {
    const account = newcomer();
    const call = clientOf(url);
    const { body: signedIn } = await call('POST', '/v1/auth/register', { body: account });
    const me = async () => (await call('GET', '/v1/users/me', { token: signedIn.access_token })).status;
    const flags = ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'];
    const press = (form: string) => `await click('#${form} button');`;
    const outcome = `for (const untilMs = performance.now() + 60_000; performance.now() < untilMs; ) {
        const text = (await find('#status')).textContent;
        if (text !== '' && !text.startsWith('One moment')) return text;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }`;
    await using asking = await visitInChromium(`${url}/delete-account`, ...flags);
    const answered = await asking.evaluate(`(async () => { ${VISITOR}
      await type('#email', ${JSON.stringify(account.email)}); ${press('request')} ${outcome} })()`);
    expect(answered).toContain('a mail is on its way');
    const token = () => /gotd1\.[\w-]{43}/.exec(dev.output.stdout)?.[0];
    await until('the mail is printed', () => token() !== undefined);
    await using opened = await visitInChromium(`${url}/delete-account#token=${token()}`, ...flags);
    const visit = (steps: string) => opened.evaluate(`(async () => { ${VISITOR} ${steps} })()`);
    expect(await visit(`return [(await find('#token')).value, location.hash];`)).toEqual([token(), '']);
    expect(await me()).toBe(200);
    expect(await visit(`${press('confirm')} ${outcome}`)).toBe('Your account is deleted.');
    expect(await me()).toBe(401);
    expect(
      await visit(`await type('#token', '${token()}'); ${press('confirm')} await find('#status'); ${outcome}`),
    ).toContain('Ask for another mail');
  });
});
