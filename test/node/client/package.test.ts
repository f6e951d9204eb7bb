import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { PATIENT } from '../../support/app.ts';
import { startScene } from '../faults/scene.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const run = promisify(execFile);

/** The machine's own Node, which may be older than the one that npm's scripts bring. */
const NODE =
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => !folder.includes('node_modules'))
    .map((folder) => join(folder, 'node'))
    .find((file) => existsSync(file)) ?? process.execPath;

let folder: string;
let project: string;

/** An empty project elsewhere, with the package that npm made and installed. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gatehouse-package-'));
  project = join(folder, 'app');
  const built = join(folder, 'built');
  await run(process.execPath, [join(ROOT, 'src/scripts/buildClient.ts'), '--out', built]);
  await run('npm', ['pack', '--pack-destination', folder], { cwd: built });
  const { version } = JSON.parse(await readFile(join(built, 'package.json'), 'utf8')) as { version: string };
  await mkdir(project);
  await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'app', version: '1.0.0', type: 'module' }));
  await run(
    'npm',
    ['install', '--offline', '--no-audit', '--no-fund', join(folder, `gatehouse-client-${version}.tgz`)],
    {
      cwd: project,
    },
  );
}, 120_000);
afterAll(() => rm(folder, { recursive: true }));

const packaged = (name: string) => join(project, 'node_modules/gatehouse-client', name);

describe('the package', () => {
  it('has no dependency, and less than 5 KB when it is compressed', async () => {
    const manifest = JSON.parse(await readFile(packaged('package.json'), 'utf8')) as Record<string, unknown>;
    expect(manifest['dependencies']).toBeUndefined();
    const code = await readFile(packaged('index.js'));
    expect(gzipSync(code, { level: 9 }).length).toBeLessThan(5_000);
    expect(code.toString()).not.toMatch(/\b(import|require)\s*[({'"]|node:|cloudflare:|process\./);
  });

  it('has a README whose links lead somewhere', async () => {
    const readme = await readFile(packaged('README.md'), 'utf8');
    expect(readme).toContain('`docs/idempotency.md` of the server');
    expect(readme.match(/\]\((?!https?:|#)[^)]*\)/g)).toBeNull();
  });

  it('signs in and calls in the machine’s own Node', async () => {
    await using scene = await startScene(PATIENT);
    await writeFile(
      join(project, 'main.js'),
      `import { ApiError, createClient, memoryStorage } from 'gatehouse-client';
       const client = createClient({ baseUrl: process.argv[2], storage: memoryStorage() });
       const { user } = await client.register({ email: 'node@example.com', password: 'correct horse battery', name: 'Node' });
       const me = await client.call('GET /v1/users/me');
       const refused = await client.call('GET /v1/users').catch((error) => error);
       const { confirmed } = await client.signOut();
       console.log(JSON.stringify({ same: me.id === user.id, code: refused instanceof ApiError && refused.code, confirmed }));`,
    );
    const { stdout } = await run(NODE, ['main.js', scene.app.url], { cwd: project });
    expect(JSON.parse(stdout)).toEqual({ same: true, code: 'FORBIDDEN', confirmed: true });
  });
});

/** What a team writes, and what must not compile. */
const USE = `
import { ApiError, asyncStorage, createClient, memoryStorage, webStorage } from 'gatehouse-client';
import type { ErrorCode, Problem, SessionStorage, User } from 'gatehouse-client';

const storage: SessionStorage = asyncStorage({ getItem: async () => null, setItem: async () => {}, removeItem: async () => {} });
const client = createClient({ baseUrl: 'https://api.example.com', storage });
createClient({ baseUrl: '', storage: memoryStorage(), fetch });
createClient({ baseUrl: '', storage: webStorage('key') });

export async function use(): Promise<User> {
  await client.register({ email: 'a@example.com', password: 'secret', name: 'A', device: null });
  client.on('signedOut', ({ reason }) => reason === 'revoked');
  // @ts-expect-error -- there is no such event
  client.on('signedof', () => {});
  // @ts-expect-error -- it has no name
  await client.register({ email: 'a@example.com', password: 'secret' });
  // @ts-expect-error -- there is no such operation
  await client.call('GET /v1/nothing');
  // @ts-expect-error -- it needs an id
  await client.call('GET /v1/users/{id}');
  // @ts-expect-error -- tokens are the client's own business
  await client.call('POST /v1/auth/refresh', { body: { refresh_token: '' } });
  const { items } = await client.call('GET /v1/sessions');
  const first: string | undefined = items[0]?.device;
  void first;
  await client.call('GET /v1/users', { query: { page: 2, q: 'x' } });
  try {
    return await client.call('PATCH /v1/users/me', { body: { name: 'B' }, signal: new AbortController().signal });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const code: ErrorCode | (string & {}) = error.code;
    if (code === 'RATE_LIMITED') console.log(error.retryAfterSeconds);
    const problem: Problem = error.problem;
    console.log(problem.errors?.[0]?.pointer);
    throw error;
  }
}
`;

const HONO = `
import { hc } from 'hono/client';
import type { AppType } from 'gatehouse-client/hono';
import type { Problem, User } from 'gatehouse-client';

const api = hc<AppType>('https://api.example.com');

export async function use(): Promise<User | undefined> {
  const response = await api.v1.auth.login.$post({ json: { email: 'a@example.com', password: 'secret' } });
  if (response.status === 200) {
    const { user, access_token } = await response.json();
    console.log(access_token.length);
    return user;
  }
  if (response.status === 401 || response.status === 429) {
    const problem: Problem = await response.json();
    console.log(problem.code);
  }
  // @ts-expect-error -- it has no such member
  await api.v1.auth.login.$post({ json: { mail: '' } });
  const session = await api.v1.sessions[':id'].$delete({ param: { id: 'x' } });
  console.log(session.status === 204);
  const list = await api.v1.users.$get({ query: { page: '2' } });
  if (list.ok) console.log((await list.json()).items[0]?.name);
  return undefined;
}
`;

describe.each([
  ['bundler', { module: 'esnext', moduleResolution: 'bundler' }],
  ['node16', { module: 'node16', moduleResolution: 'node16' }],
])('its types with moduleResolution %s', (name, resolution) => {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');

  async function compile(text: string, options: object): Promise<string> {
    const directory = join(project, `types-${name}`);
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'use.ts'), text);
    const compilerOptions = {
      ...resolution,
      ...options,
      target: 'es2022',
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      types: [],
    };
    await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['use.ts'] }));
    return run(process.execPath, [tsc, '-p', directory]).then(
      () => '',
      (error: { stdout: string }) => error.stdout,
    );
  }

  // Without skipLibCheck: nothing in the declarations may need what an app does not have.
  it('are complete', async () => {
    expect(await compile(USE, { lib: ['es2022', 'dom'], skipLibCheck: false })).toBe('');
  });

  it('type Hono’s client, without the server', async () => {
    const hono = join(project, 'node_modules/hono');
    if (!existsSync(hono)) await cp(join(ROOT, 'node_modules/hono'), hono, { recursive: true });
    expect(await compile(HONO, { lib: ['es2022', 'dom', 'dom.iterable'], skipLibCheck: true })).toBe('');
  });
});
