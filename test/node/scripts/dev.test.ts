import { spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { parseVars } from '../../../src/scripts/devVars.ts';
import { createKeySet } from '../../../src/scripts/keySets.ts';
import { copyProject, freePort, occupyPort, runScript, startScript } from './project.ts';
import type { Project, Running } from './project.ts';

let project: Project;
const started: Running[] = [];
afterAll(async () => {
  for (const { child } of started) if (child.exitCode === null) child.kill('SIGKILL');
  await Promise.all(started.map(({ ended }) => ended));
});

const DEV_VARS = () => join(project.root, '.dev.vars');

/** A start takes some 20 s, and far longer on a busy machine. */
const START_LIMIT_MS = 240_000;

const TOML = () => join(project.root, 'wrangler.toml');

const OTHER_DATABASE =
  'wrangler.toml has another database_id than at the last start, and each has a local database of its own. Accounts and rows of ' +
  'the former one are not in this one; to have them back, set database_id = "00000000-0000-0000-0000-000000000000".\n';
const OPEN_NO_MORE = '.dev.vars could be read by other users of this machine: not any more.\n';

let people = 0;
const register = (url: string) =>
  fetch(`${url}/v1/auth/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: `ada${(people += 1)}@example.com`, password: 'correct horse battery', name: 'Ada' }),
  });

/** The private parts of a key set. */
const secretsOf = (text: string) => Array.from(text.matchAll(/"[dk]":"([\w-]{43})"/g), ([, secret = '']) => secret);

/** A request with a Host header of its own. */
function raw(
  {
    outside,
    port,
    method,
    host,
    body,
  }: Record<'outside' | 'port' | 'method' | 'host', string> & { body?: string | undefined },
  path: string,
): Promise<{ status: number; text: string }> {
  const headers = { host, ...(body !== undefined && { 'content-type': 'application/json' }) };
  return new Promise((resolve, reject) => {
    const sent = request({ host: outside, port, method, path, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.once('error', reject).end(body);
  });
}

/** @param notices on stderr: before it begins, and before it builds */
async function start(env: Readonly<Record<string, string>> = {}, notices: { first?: string; second?: string } = {}) {
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const script = startScript(project.root, 'dev', [], {
    env: { PORT: String(port), GATEWAY_PORT: String(gatewayPort), ...env },
    timeoutMs: START_LIMIT_MS,
  });
  started.push(script);
  await until(() => script.output.stdout.includes('Ctrl-C stops all of it') || script.child.exitCode !== null);
  expect(script.output.stderr).toBe(
    `${notices.first ?? ''}Starting Gatehouse …\n${notices.second ?? ''}Redis and the database are ready. Building the Worker …\n`,
  );
  return { ...script, url: `http://127.0.0.1:${port}`, gatewayUrl: `http://127.0.0.1:${gatewayPort}` };
}

async function until(condition: () => boolean, limitMs = START_LIMIT_MS): Promise<void> {
  const endMs = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > endMs) throw new Error(`not within ${limitMs} ms: ${condition.toString()}`);
    await delay(50);
  }
}

/** Whether a process runs: one that has ended and was not collected yet does not. */
function runs(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.startsWith('Z');
  } catch {
    return false;
  }
}

/** Processes below another, from /proc: none of them may be left. */
function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const [, parent = ''] = readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
      parents.set(Number(name), Number(parent));
    } catch {
      // It ended while the list was read.
    }
  }
  const found = [pid];
  // Grows while it is walked: the children of children are found too.
  for (const of of found) for (const [child, parent] of parents) if (parent === of) found.push(child);
  return found.slice(1);
}

const listens = async (url: string) => {
  try {
    await fetch(url, { signal: AbortSignal.timeout(1_000) });
    return true;
  } catch {
    return false;
  }
};

describe.runIf(process.platform === 'linux')('npm run dev', () => {
  // One for all: only the first start has migrations to apply.
  beforeAll(() => {
    project = copyProject();
  });
  afterAll(() => project[Symbol.dispose]());

  it('generates secrets, serves what its screen says, and leaves no process on SIGTERM', async () => {
    const { child, output, ended, url, gatewayUrl } = await start();
    expect(statSync(DEV_VARS()).mode & 0o777).toBe(0o600);
    expect(output.stdout).toContain(url);
    expect(output.stdout).toContain(`over REST at ${gatewayUrl}`);
    expect(output.stdout).toContain('.dev.vars, generated now: SIGNING_KEYS');

    // The migrations are applied, and the Worker reaches the gateway on its unusual port. A busy machine may miss
    // the first deadline.
    const ready = async (): Promise<unknown> => (await fetch(`${url}/ready`)).json();
    const up = { dependencies: { redis: { status: 'up' }, database: { status: 'up' } } };
    await expect.poll(ready, { interval: 500 }).toMatchObject(up);
    // The terminal is the mailbox.
    const person = { email: 'ada@example.com', password: 'correct horse battery', name: 'Ada' };
    const registered = await fetch(`${url}/v1/auth/register`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(person),
    });
    expect(registered.status).toBe(201);
    await expect.poll(() => output.stdout).toMatch(/mail to ada@example\.com ──\nSubject: .+\n\n(?:.*\n)+?gotv1\./);
    // Cron triggers can be tried.
    expect((await fetch(`${url}/__scheduled?cron=*+*+*+*+*`)).status).toBe(200);

    // A migration that is made now is applied while the Worker runs.
    const migration = join(project.root, 'src/db/migrations/9999_new.sql');
    writeFileSync(migration, `UPDATE users SET name = 'Ada Lovelace';`);
    await until(() => output.stderr.includes('The database has the new migrations.'));
    const login = await fetch(`${url}/v1/auth/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email: person.email, password: person.password }),
    });
    expect(await login.json()).toMatchObject({ user: { name: 'Ada Lovelace' } });
    rmSync(migration);

    // The settings stay those of the start, however an editor writes the file: half of it, and a new one in its place, again and again.
    const toml = readFileSync(TOML(), 'utf8');
    for (const limit of [7, 8, 9]) {
      writeFileSync(TOML(), '[vars');
      writeFileSync(`${TOML()}~`, toml.replace('[vars]', `[vars]\nLIMIT_API = "${limit}/1m"`));
      renameSync(`${TOML()}~`, TOML());
    }
    await until(() => output.stderr.includes('wrangler.toml has changed: stop npm run dev and start it again'));
    const anonymous = await fetch(`${url}/v1/users/me`);
    expect(anonymous.headers.get('RateLimit-Policy')).toContain('"api";q=100;w=900');
    writeFileSync(TOML(), toml);

    const processes = descendants(child.pid!);
    expect(processes.length).toBeGreaterThanOrEqual(2);
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0 });
    await until(() => !processes.some(runs), 60_000);
    expect([await listens(url), await listens(gatewayUrl)]).toEqual([false, false]);
    expect(readdirSync(project.root).filter((name) => name.startsWith('.wrangler.dev'))).toEqual([]);
  });

  it('says that a new database_id has a local database of its own; ends with 1, and takes everything along, when wrangler dies', async () => {
    const toml = readFileSync(TOML(), 'utf8');
    writeFileSync(TOML(), toml.replace(/(?<=database_id = ").*(?=")/, crypto.randomUUID()));
    const first = await start({}, { second: OTHER_DATABASE });
    // It has its tables.
    expect((await register(first.url)).status).toBe(201);
    const [wrangler, ...rest] = descendants(first.child.pid!);
    // As if wrangler were killed during a build: its esbuild then does not end by itself.
    const esbuild = rest.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('esbuild'));
    process.kill(esbuild!, 'SIGSTOP');
    process.kill(wrangler!, 'SIGKILL');
    const { code, stderr } = await first.ended;
    expect(code).toBe(1);
    expect(stderr).toContain('wrangler ended unexpectedly (SIGKILL)');
    expect(stderr).not.toContain('    at ');
    await until(() => !rest.some(runs), 60_000);
  });

  it('ends with npm, when npm gets a SIGTERM', async () => {
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(npm_|HOST$|GATEWAY_|REDIS_|DATABASE_URL$)/.test(name),
    );
    const env = {
      ...Object.fromEntries(inherited),
      PORT: String(await freePort()),
      GATEWAY_PORT: String(await freePort()),
    };
    const npm = spawn('npm', ['run', 'dev'], { cwd: project.root, env, stdio: 'pipe' });
    let stderr = '';
    npm.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    npm.stdout.resume();
    await until(() => stderr.includes('Building the Worker') || npm.exitCode !== null);
    // The shell, the program, and what it has started.
    const processes = descendants(npm.pid!);
    expect(processes.length).toBeGreaterThanOrEqual(2);
    npm.kill('SIGTERM');
    try {
      await until(() => !processes.some(runs), 60_000);
    } finally {
      for (const pid of processes.filter(runs)) process.kill(pid, 'SIGKILL');
    }
  });

  // One start for all: it takes seconds of CPU.
  describe('started again, for the network, with settings and rotated keys in .dev.vars', () => {
    let dev: Awaited<ReturnType<typeof start>>;
    let present = '';
    beforeAll(async () => {
      await runScript(project.root, 'keys', ['rotate', '--set', 'signing', '--write']);
      const before = existsSync(DEV_VARS()) ? readFileSync(DEV_VARS(), 'utf8') : '';
      const peppers = JSON.stringify(await createKeySet('pepper'));
      present = `${before}PEPPER_KEYS='${peppers}'\nLIMIT_API='7/1m'\n`;
      // As a developer writes it by hand.
      writeFileSync(DEV_VARS(), present);
      chmodSync(DEV_VARS(), 0o644);
      dev = await start({ HOST: '0.0.0.0' }, before === '' ? {} : { first: OPEN_NO_MORE });
    });

    it('leaves .dev.vars as it is, for its owner only, and serves the new key', async () => {
      expect(statSync(DEV_VARS()).mode & 0o777).toBe(0o600);
      expect(dev.output.stdout).not.toContain('generated now');
      expect(readFileSync(DEV_VARS(), 'utf8')).toBe(present);
      const { keys } = (await (await fetch(`${dev.url}/.well-known/jwks.json`)).json()) as { keys: object[] };
      expect(keys).toHaveLength(2);
    });

    it('shows no secret in the list of processes, in any environment but wrangler’s own, or in its output', async () => {
      const { child, output, url } = dev;
      const vars = parseVars(readFileSync(DEV_VARS(), 'utf8'));
      const names = ['PEPPER_KEYS', 'SIGNING_KEYS', 'REFRESH_KEYS', 'UPSTASH_REDIS_REST_TOKEN'] as const;
      const secrets = names.flatMap((name) =>
        name === 'UPSTASH_REDIS_REST_TOKEN' ? vars.get(name)! : secretsOf(vars.get(name)!),
      );
      // Two of the signing keys: the active one and the next.
      expect(secrets.length).toBe(names.length + 1);

      // The Worker has got what only the file names.
      const registered = await register(url);
      expect(registered.status).toBe(201);
      const { access_token: token } = (await registered.json()) as { access_token: string };
      const me = await fetch(`${url}/v1/users/me`, { headers: { authorization: `Bearer ${token}` } });
      expect(me.headers.get('RateLimit-Policy')).toContain('"api";q=7;w=60');

      const processes = [child.pid!, ...descendants(child.pid!)];
      expect(processes.length).toBeGreaterThanOrEqual(3);
      for (const pid of processes) {
        const shown = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
        for (const secret of secrets) expect(shown, `process ${pid}`).not.toContain(secret);
      }
      // What wrangler has started got none of them handed on.
      for (const pid of processes.filter((one) => readFileSync(`/proc/${one}/cmdline`, 'latin1').includes('workerd'))) {
        const inherited = readFileSync(`/proc/${pid}/environ`, 'latin1');
        for (const secret of secrets) expect(inherited, `process ${pid}`).not.toContain(secret);
      }
      for (const secret of secrets) expect(output.stdout + output.stderr).not.toContain(secret);
    });

    it('serves no SQL and no traces to clients that reach the port', async () => {
      const port = new URL(dev.url).port;
      // From another machine: by its address, and with the Host header that wrangler's own pages ask for.
      const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
      const outside = addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
      const paths = ['', '/', '/api', '/api/d1/database', '/api/local/workers', '/api/local/observability'];
      for (const path of paths) {
        for (const host of [`${outside}:${port}`, `localhost:${port}`]) {
          for (const [method, body] of [['GET'], ['POST', '{"sql":"select email from users"}']] as const) {
            const { status, text } = await raw({ outside, port, method, host, body }, `/cdn-cgi/local/explorer${path}`);
            // The Worker's own 404, or wrangler's refusal of another host.
            expect({ path, host, status }).toEqual({ path, host, status: host.startsWith('localhost') ? 404 : 403 });
            expect(text).toMatch(host.startsWith('localhost') ? /"code":"NOT_FOUND"/ : /Invalid Host header/);
          }
        }
      }
    });

    it('is outlived by none of its processes when it is killed', async () => {
      const processes = descendants(dev.child.pid!);
      expect(processes.length).toBeGreaterThanOrEqual(2);
      dev.child.kill('SIGKILL');
      await dev.ended;
      await until(() => !processes.some(runs), 60_000);
    });
  });
});

describe('npm run dev, refused', () => {
  let toml = '';
  beforeAll(() => {
    project = copyProject();
    toml = readFileSync(join(project.root, 'wrangler.toml'), 'utf8');
  });
  afterAll(() => project[Symbol.dispose]());
  afterEach(() => {
    rmSync(DEV_VARS(), { force: true });
    writeFileSync(join(project.root, 'wrangler.toml'), toml);
  });

  const refused = async (env: Readonly<Record<string, string>>) => {
    const { code, stdout, stderr } = await runScript(project.root, 'dev', [], { env });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    return stderr;
  };

  it('names the port that is in use, and how to choose another, before it writes anything', async () => {
    await using occupied = await occupyPort();
    const [taken, free] = [String(occupied.port), String(await freePort())];
    const worker = await refused({ PORT: taken, GATEWAY_PORT: free });
    expect(worker).toContain(`127.0.0.1:${taken} is in use`);
    expect(worker).toContain(`PORT=${Number(taken) + 1} npm run dev`);
    const gateway = await refused({ PORT: free, GATEWAY_PORT: taken });
    expect(gateway).toContain(`127.0.0.1:${taken} is in use`);
    expect(gateway).toContain(`GATEWAY_PORT=${Number(taken) + 1} npm run dev`);
    expect(existsSync(DEV_VARS())).toBe(false);
  });

  it('names a broken setting, and leaves .dev.vars as it is', async () => {
    expect(await refused({ PORT: 'web' })).toContain('PORT must be a port number');
    expect(await refused({ REDIS_URL: 'db:6379' })).toContain('REDIS_URL');
    writeFileSync(DEV_VARS(), `SIGNING_KEYS='{"keys":'\n`);
    expect(await refused({})).toContain('SIGNING_KEYS: is not JSON');
    expect(readFileSync(DEV_VARS(), 'utf8')).toBe(`SIGNING_KEYS='{"keys":'\n`);
  });

  it('says what is wrong with DATABASE_URL, and never its password, before it writes anything', async () => {
    const nowhere = await freePort();
    const env = { PORT: String(await freePort()), GATEWAY_PORT: String(await freePort()) };
    const stderr = await refused({ ...env, DATABASE_URL: `postgres://ada:s3cret@127.0.0.1:${nowhere}/app` });
    expect(stderr).toContain(`(127.0.0.1:${nowhere}/app) cannot be reached (ECONNREFUSED)`);
    expect(stderr).not.toContain('s3cret');
    expect(existsSync(DEV_VARS())).toBe(false);
    appendFileSync(join(project.root, 'wrangler.toml'), '\n[[hyperdrive]]\nbinding = "HYPERDRIVE"\nid = "1"\n');
    expect(await refused(env)).toContain('wrangler.toml binds HYPERDRIVE, so the app is on PostgreSQL: DATABASE_URL=');
  });

  it('says what is wrong when wrangler cannot read its configuration', async () => {
    writeFileSync(join(project.root, 'wrangler.toml'), '= broken\n');
    const env = { PORT: String(await freePort()), GATEWAY_PORT: String(await freePort()) };
    const { code, stderr } = await runScript(project.root, 'dev', [], { env });
    expect(code).toBe(1);
    expect(stderr).toContain('The local database could not be migrated: Invalid TOML document');
  });
});
