import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';

import { describe as describeJob, progressOn } from '../../../src/scripts/warmBar.ts';
import { startApp, UNLIMITED } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import { startFaultyRedis, command, script } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { ROOT, runScript, startScript } from './project.ts';

/** More than two slices. */
const USERS = 230;

const person = newcomer();
let redis: FaultyRedis;
let app: RunningApp;
let token: string;

const warm = (args: readonly string[], env: Readonly<Record<string, string>> = { GATEHOUSE_TOKEN: token }) =>
  runScript(ROOT, 'warm', ['--remote', app.url, ...args], { env });

async function signIn(): Promise<string> {
  const call = clientOf(app.url);
  return (await call('POST', '/v1/auth/login', { body: { email: person.email, password: person.password } })).body
    .access_token;
}

beforeAll(async () => {
  redis = await startFaultyRedis();
  const settings = { ...UNLIMITED, KEY_PREFIX: 'app', REDIS_GUARD_DEADLINE_MS: '5000', REDIS_AUTH_DEADLINE_MS: '5000' };
  app = await startApp({ bundle: inject('workerBundle'), redis, settings });
  await clientOf(app.url)('POST', '/v1/auth/register', { body: person });
  await app.sql(`update users set role = 'admin' where email = ?`, person.email);
  token = await signIn();
  for (let i = 0; i < USERS; i += 1) {
    await app.sql(
      `insert into users (id, email, name, password_hash, created_at_ms, updated_at_ms) values (?, ?, 'A', 'x', 1, 1)`,
      `warm-${i}`,
      `warm-${i}@example.com`,
    );
    await app.sql(
      `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       values (?, ?, '', '', 1, ?, ?, 1)`,
      `warm-${i}.x`,
      `warm-${i}`,
      Date.now(),
      Date.now() + 86_400_000,
    );
  }
});
afterAll(async () => {
  await app[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});
beforeEach(() => redis.clear());

const forget = () => redis.engine('UNLINK', 'app:cache:warming:{active-users}');
const cached = async () => {
  const keys = (await redis.engine('KEYS', 'app:user:{warm-*}')) as string[];
  return keys.length;
};

describe('npm run warm', () => {
  it('runs every job until it is done, and says how far it is', async () => {
    const { code, stdout, stderr } = await warm([]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(/^user-lists: 3\/3, \d+\.\d s$/),
      expect.stringMatching(/^user-lists: 3 warmed, \d+\.\d s$/),
      expect.stringMatching(/^active-users: 100, \d+\.\d s$/),
      expect.stringMatching(/^active-users: 200, \d+\.\d s$/),
      expect.stringMatching(new RegExp(`^active-users: ${USERS + 1}, \\d+\\.\\d s$`)),
      expect.stringMatching(new RegExp(`^active-users: ${USERS + 1} warmed, \\d+\\.\\d s$`)),
      '',
    ]);
    expect(await cached()).toBe(USERS);
    expect(stdout + stderr).not.toContain(token);
  });

  it('goes on where Ctrl-C has stopped it', async () => {
    await forget();
    await redis.engine('UNLINK', ...Array.from({ length: USERS }, (_, i) => `app:user:{warm-${i}}`));
    const first = startScript(ROOT, 'warm', ['active-users', '--remote', app.url], { env: { GATEHOUSE_TOKEN: token } });
    await new Promise<void>((resolve) => {
      first.child.stdout?.once('data', () => resolve());
    });
    first.child.kill('SIGINT');
    const stopped = await first.ended;
    expect(stopped.code).toBe(130);
    expect(stopped.stdout.trimEnd().split('\n').slice(-2)).toEqual([
      'Stopped. The run of active-users is unfinished: the cron trigger goes on with it each minute, and the same command at once.',
      '"Stop" in the console (Warming), or DELETE /v1/admin/warming/active-users, ends it.',
    ]);

    const second = await warm(['active-users', '--concurrency', '20']);
    expect(second.code).toBe(0);
    const counts = [...second.stdout.matchAll(/^active-users: (\d+),/gm)].map(([, count]) => Number(count));
    // The slice that it had asked for was finished without it.
    expect(counts[0]).toBeGreaterThan(200);
    expect(counts.at(-1)).toBe(USERS + 1);
    expect(await cached()).toBe(USERS);
  });

  it('the cron trigger runs scheduled jobs, and no others', async () => {
    await forget();
    await redis.engine('UNLINK', 'app:cache:warming:{user-lists}');
    await app.scheduled();
    const of = (job: string) => redis.engine('HGET', `app:cache:warming:{${job}}`, 'value');
    expect(JSON.parse(String(await of('user-lists')))).toMatchObject({ state: 'done', done: 3 });
    expect(await of('active-users')).toBeNull();
  });

  it('--restart begins anew', async () => {
    await redis.engine(
      'HSET',
      'app:cache:warming:{active-users}',
      'value',
      JSON.stringify({
        state: 'running',
        cursor: 'zzz',
        done: 7,
        failed: 0,
        total: null,
        startedAtMs: 1,
        updatedAtMs: 1,
      }),
    );
    const { code, stdout } = await warm(['active-users', '--restart']);
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`active-users: ${USERS + 1} warmed`));
  });

  it('waits while another request holds the lock, as long as the API says', async () => {
    const lock = 'app:lock:{warming:user-lists}';
    await redis.engine('SET', lock, 'another 1');
    const waiting = startScript(ROOT, 'warm', ['user-lists', '--remote', app.url], { env: { GATEHOUSE_TOKEN: token } });
    await expect.poll(() => waiting.output.stdout).toContain('Waiting');
    await redis.engine('UNLINK', lock);
    const { code, stdout } = await waiting.ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^The lock is held by another request\. \(409\) Waiting 1 s …$/m);
    expect(stdout).toMatch(/^user-lists: 3 warmed/m);
  });

  it('a slice whose response was lost is not done twice', async () => {
    await forget();
    // The last slice's progress is recorded, and Redis is not there for what comes after it: the API answers 503.
    const proxy = await flakyProxy(app.url, (method, status) => method === 'POST' && status === 200);
    try {
      const args = ['active-users', '--remote', proxy.url];
      const { code, stdout } = await runScript(ROOT, 'warm', args, { env: { GATEHOUSE_TOKEN: token } });
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`active-users: ${USERS + 1} warmed`));
      expect(proxy.answers.filter((answer) => answer === 'POST 200')).toHaveLength(1);
    } finally {
      await proxy.close();
    }
  });

  it('waits for a Redis that is away for a moment', async () => {
    redis.mode = { kind: 'drop-before', when: script('{warming:user-lists}'), times: 6 };
    const { code, stdout } = await warm(['user-lists']);
    expect(stdout).toMatch(/\(503\) Waiting 5 s …/);
    expect(code).toBe(0);
  });

  it('logs in with an address and a password, and out again', async () => {
    const env = { GATEHOUSE_EMAIL: person.email, GATEHOUSE_PASSWORD: person.password };
    const { code, stdout, stderr } = await warm(['user-lists'], env);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).not.toContain(person.password);
    const [session] = await app.sql(`select ended_reason from sessions where device = 'npm run warm'`);
    expect(session).toEqual({ ended_reason: 'logout' });
  });

  it('says in one line what is wrong, without the token', async () => {
    const lines = async (args: readonly string[], env?: Record<string, string>) => {
      const { code, stdout, stderr } = await warm(args, env);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      return stderr;
    };
    const other = newcomer();
    const { body } = await clientOf(app.url)('POST', '/v1/auth/register', { body: other });
    expect(await lines([], { GATEHOUSE_TOKEN: body.access_token })).toContain('(403)');
    expect(await lines([], { GATEHOUSE_TOKEN: 'secret-but-wrong' })).not.toContain('secret-but-wrong');
    expect(await lines([], {})).toContain('Set GATEHOUSE_TOKEN');
    expect(await lines([], { GATEHOUSE_EMAIL: person.email, GATEHOUSE_PASSWORD: 'a wrong one' })).toContain('(401)');
    expect(await lines(['nothing'])).toContain('There is no job "nothing": user-lists, active-users.');
    expect(await lines(['--concurrency', '0'])).toContain('1 to 20');
    expect(await lines(['--remote', 'http://api.example.com'])).toContain('TLS');
    expect(await lines(['--remote', 'ftp://127.0.0.1'])).toContain('no URL');
    expect(await lines(['--remote', 'http://127.0.0.1:1'])).toContain('does not respond');
    expect(redis.requests.flatMap(({ commands }) => commands).some(command('SET', 'secret-but-wrong'))).toBe(false);
  });
});

/** Passes requests on, and cuts the first answer that `cuts` names. */
async function flakyProxy(target: string, cuts: (method: string, status: number) => boolean) {
  const answers: string[] = [];
  let whole = true;
  const server = createServer((request, response) => {
    const forward = async () => {
      const { method = 'GET', url = '/', headers } = request;
      const answer = await fetch(`${target}${url}`, {
        method,
        headers: { Authorization: headers.authorization ?? '', 'CF-Connecting-IP': '203.0.113.8' },
      });
      const text = await answer.text();
      answers.push(`${method} ${answer.status}`);
      if (whole && cuts(method, answer.status)) {
        whole = false;
        request.socket.destroy();
        return;
      }
      response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(text);
    };
    forward().catch(() => request.socket.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    answers,
    close: () => new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}

describe('progress', () => {
  const job = { name: 'orders', state: 'running', done: 6, failed: 0, total: 12 } as const;

  it.each([
    [job, 10, 'orders [#####-----] 6/12, 1.5 s'],
    [{ ...job, done: 30 }, 4, 'orders [####] 30/12, 1.5 s'],
    [{ ...job, total: 0 }, 4, 'orders: 6/0, 1.5 s'],
    [{ ...job, total: null, failed: 2 }, 4, 'orders: 8, 2 failed, 1.5 s'],
    [{ name: 'x\u001B[2Jy', state: 'idle' } as const, 0, 'x [2Jy: 0, 1.5 s'],
  ])('%j', (given, width, line) => expect(describeJob(given, 1_500, width)).toBe(line));

  it('is one line that is written over on a terminal, and lines elsewhere', () => {
    const written = (stream: { isTTY?: boolean; columns?: number }) => {
      let text = '';
      const progress = progressOn({ ...stream, write: (part) => (text += part) });
      progress.show(job, 1_000);
      progress.show({ ...job, done: 12 }, 2_000);
      progress.note('done');
      progress.note('again');
      return text;
    };
    expect(written({})).toBe('orders: 6/12, 1.0 s\norders: 12/12, 2.0 s\ndone\nagain\n');
    expect(written({ isTTY: true, columns: 20 })).toBe(
      '\r\u001B[Korders [###########\r\u001B[Korders [###########\r\u001B[Kdone\nagain\n',
    );
    for (const unknown of [{}, { columns: 0 }]) {
      expect(written({ isTTY: true, ...unknown })).toContain(`[${'#'.repeat(15)}${'-'.repeat(15)}] 6/12, 1.0 s\r`);
    }
  });
});
