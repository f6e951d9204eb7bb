import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { tryOut } from '../../../src/scripts/devScreen.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { copyProject, runScript } from '../scripts/project.ts';
import { pages, ROOT } from './pages.ts';

/** Where pages expect `npm run dev`. */
const DEV_URL = 'http://127.0.0.1:8787';
const METRICS_TOKEN = 'a-token-for-metrics';

const hasCurl = spawnSync('curl', ['--version']).status === 0;

const textOf = (name: string) => pages.find((page) => page.name === name)!.text;

/** The blocks for a shell below a heading. */
function blocksBelow(page: string, heading: string): string[] {
  const [, section = ''] = textOf(page).split(new RegExp(`^#+ ${heading}\n`, 'm'));
  return Array.from(section.split(/^## /m)[0]!.matchAll(/^```sh\n(.*?)^```$/gms), ([, block = '']) => block);
}

let redis: FaultyRedis;
let app: RunningApp;
let folder: string;

beforeAll(async () => {
  redis = await startFaultyRedis();
  app = await startApp({
    bundle: inject('workerBundle'),
    redis,
    settings: {
      METRICS_TOKEN,
      METRICS_INTERVAL_MS: '10000',
      // As deployed: the pages show what the breaker does, and how far limits have counted down.
      ...Object.fromEntries(Object.entries(UNLIMITED).filter(([name]) => name !== 'LIMIT_API')),
      BREAKER_MIN_CALLS: '10',
    },
  });
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-docs-'));
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

/** Runs what a reader pastes, and gives the lines that it prints. */
async function paste(text: string): Promise<string[]> {
  const env = { ...process.env, PATH: `${join(ROOT, 'node_modules/.bin')}:${process.env['PATH']}` };
  const { stdout } = await promisify(execFile)('bash', ['-c', text.replaceAll(DEV_URL, app.url)], { env, cwd: folder });
  return stdout.replaceAll('\r', '').trimEnd().split('\n');
}

const json = (text = '') => JSON.parse(text) as Record<string, unknown>;

describe.skipIf(!hasCurl)('commands with curl', () => {
  test('the first session of the README', async () => {
    const [block = ''] = blocksBelow('README.md', 'A first session with curl');
    const [registered, me, changed, devices, refreshed, loggedOut, refused, ...rest] = await paste(block);
    expect(json(registered)).toMatchObject({ user: { name: 'Grace' }, token_type: 'Bearer' });
    expect(json(me)).toMatchObject({ email: 'grace@example.com', name: 'Grace' });
    expect(json(changed)).toMatchObject({ name: 'Grace H.' });
    expect(json(devices)).toMatchObject({ items: [{ device: 'Phone', current: true }, {}], total: 2 });
    expect(json(refreshed)).toMatchObject({ refresh_token: expect.any(String) });
    expect(loggedOut).toBe('204');
    expect(json(refused)).toMatchObject({ status: 401, code: 'TOKEN_REVOKED' });
    expect(rest).toEqual([]);
  });

  test('the three lines that npm run dev prints, once and again', async () => {
    const lines = tryOut(DEV_URL);
    expect(lines).toHaveLength(3);
    for (const status of [undefined, 409]) {
      const [registered, me, ...rest] = await paste(lines.join('\n'));
      expect(json(registered)).toMatchObject(status === undefined ? { user: { name: 'Ada' } } : { status });
      expect(json(me)).toMatchObject({ email: 'ada@example.com' });
      expect(rest).toEqual([]);
    }
  });

  test('a cache hit in the metrics, as docs/cache.md looks for it', async () => {
    writeFileSync(join(folder, '.dev.vars'), `METRICS_TOKEN='${METRICS_TOKEN}'\n`);
    await paste(tryOut(DEV_URL).join('\n'));
    const block = blocksBelow('docs/cache.md', 'The cache').find((one) => one.includes('/metrics')) ?? '';
    const lines = await paste(block);
    expect(lines.join('\n')).toContain('gatehouse_outcome="hit"');
    for (const line of lines) expect(line).toMatch(/^gatehouse_cache_requests_total\{.*gatehouse_outcome="\w+"\} \d+$/);
  });

  test('the gateway’s first commands', async () => {
    const GATEWAY_TOKEN = 'a-token-of-the-gateway';
    await using gateway = await startGateway({ token: GATEWAY_TOKEN, port: 0 });
    const commands = blocksBelow('docs/gateway.md', 'The gateway')[0]?.match(/^curl .*$/gm) ?? [];
    expect(commands).toHaveLength(2);
    const text = commands
      .map((command) => `${command}; echo`)
      .join('\n')
      .replaceAll('http://127.0.0.1:8079', gateway.url);
    expect(await paste(`GATEWAY_TOKEN='${GATEWAY_TOKEN}'\n${text}`)).toEqual([
      '{"result":"OK"}',
      '[{"result":1},{"result":"1"}]',
    ]);
  });

  test('an outage, with the responses that docs/operations.md shows', async () => {
    const blocks = blocksBelow('docs/operations.md', 'Try an outage');
    const [definition = '', away = '', logout = ''] = blocks.slice(2);
    const [, setUp = ''] = /^(.*^me\(\) \{.*?\}\n)/ms.exec(definition) ?? [];
    const token = (await paste(`${tryOut(DEV_URL).slice(0, 2).join('\n')}\necho "$TOKEN"`)).at(-1);
    const run = (commands: string) => paste(`TOKEN=${token}\n${setUp}\n${commands}`);
    /** The lines that a block shows below a command. */
    const shown = (block: string, command: string) => {
      const [, comments = ''] = `\n${block}`.split(`\n${command}\n`);
      const [lines = ''] = /^(?:# .*\n)+/.exec(comments) ?? [];
      return lines
        .trim()
        .split('\n')
        .map((line) => line.slice(2));
    };
    /** The lines of a response, whatever the order of its headers and how far its limit has counted down. */
    const comparable = (lines: readonly string[]) =>
      new Set(lines.flatMap((line) => line.replace(/;r=\d+;t=\d+/, ';r=N;t=N').split(/(?<=Degraded: )|, /)));

    expect(comparable(await run('me'))).toEqual(comparable(shown(definition, 'me')));

    redis.mode = { kind: 'refuse' };
    const loop = 'for i in $(seq 30); do me; done';
    expect(comparable((await run(loop)).slice(-3))).toEqual(comparable(shown(away, loop)));
    // Calls of the tests before count as well: half of all must have failed.
    await expect
      .poll(async () => (await run(`${loop}\ncurl -s $API/health`)).slice(-1))
      .toEqual(shown(away, 'curl -s $API/health'));
    const ready = json((await run('curl -s $API/ready')).join(''));
    const onThePage = json(shown(away, 'curl -s $API/ready').join(''));
    expect(ready).toMatchObject({ status: onThePage['status'], dependencies: onThePage['dependencies'] as object });
    expect(Object.keys(ready['degradedRequests'] as object)).toEqual(
      expect.arrayContaining(['revocation=d1', 'limiter=local', 'cache=bypass']),
    );

    const [command = ''] = /^curl .*$/m.exec(logout) ?? [];
    expect([...(await run(command)), ...(await run('me')).slice(0, 1)]).toEqual([
      ...shown(logout, command),
      ...shown(logout, 'me'),
    ]);
    await redis.clear();
  });
});

test('keys of one’s own machine rotate as docs/keys.md says', async () => {
  using project = copyProject();
  const { stdout } = await runScript(project.root, 'keys', []);
  writeFileSync(join(project.root, '.dev.vars'), stdout, { mode: 0o600 });
  const [block = ''] = blocksBelow('docs/keys.md', 'On your own machine');
  const steps = block
    .trim()
    .split('\n')
    .map((line) => /^npm run -s keys -- ([^#]*?) *#/.exec(line)?.[1]?.split(' ') ?? []);
  expect(steps).toHaveLength(3);
  const outcomes = [];
  for (const step of steps) outcomes.push((await runScript(project.root, 'keys', step)).code);
  expect(outcomes).toEqual([0, 0, 0]);
});

const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
/** Named with `-- --help`, or in a row of the README that says so of each of its commands. */
const helped = pages.flatMap(({ text }) => {
  const rows = text.match(/^\|.* each with `-- --help` \|$/gm) ?? [];
  const named = [...text.matchAll(/npm run (?:-s )?(\w+) -- --help/g), ...rows.join().matchAll(/npm run (\w+)/g)];
  return named.map(([, name = '']) => name);
});

test.each([...new Set(helped)])('npm run %s -- --help explains itself', (name) => {
  const [program = '', ...args] = scripts[name]!.split(' ');
  const { status, stdout } = spawnSync(program === 'node' ? process.execPath : program, [...args, '--help'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringMatching(new RegExp(`npm run (-s )?${name}`)) });
});
