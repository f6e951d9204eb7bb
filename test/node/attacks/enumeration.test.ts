import { randomBytes, randomUUID } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { clientOf } from '../../support/client.ts';
import type { Call } from '../../support/client.ts';
import { signedIn } from '../faults/scene.ts';
import { TRUE_HASHES } from '../../support/bindings.ts';
import { costOf, expectAlike, expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

let scene: AttackScene;
let known: Victim;
let disabled: Victim;
let attacker: Victim;
beforeAll(async () => {
  scene = await startAttack({ ...TRUE_HASHES, LIMIT_LOGIN: '5/15m' });
  known = await scene.newAccount();
  disabled = await scene.newAccount();
  attacker = await scene.newAccount();
  await scene.app.sql("UPDATE users SET status = 'disabled', epoch = epoch + 1 WHERE id = ?", disabled.id);
});
afterAll(() => scene[Symbol.asyncDispose]());

let client = 0;
/** A client at an address of its own. */
const elsewhere = (): Call => clientOf(scene.app.url, `192.0.2.${(client += 1)}`);
const loginAs = (call: Call, email: string, password = 'wrong horse battery') =>
  call('POST', '/v1/auth/login', { body: { email, password } });

/** As many as the counter's window: what a person who is unknown, or known, would see. */
async function guesses(email: string): Promise<unknown[]> {
  const call = elsewhere();
  const faces: unknown[] = [];
  for (let attempt = 0; attempt < 6; attempt += 1) {
    const { status, headers, body } = await loginAs(call, email);
    faces.push([status, body.code, headers.get('RateLimit')?.replaceAll(/t=\d+/g, 't=')]);
  }
  return faces;
}

describe('login', () => {
  test('a wrong password and an unknown account: the same answer, for the same work', async () => {
    await expectAlike(async () => {
      const costs: unknown[] = [];
      for (const email of [known.email, `nobody.${randomUUID().slice(0, 8)}@example.com`, disabled.email]) {
        const { answer, face, pipelines } = await costOf(scene, () => loginAs(elsewhere(), email));
        expectRefused(answer, 'INVALID_CREDENTIALS');
        expect(pipelines.length).toBeGreaterThan(0);
        costs.push({ face, pipelines });
      }
      return costs;
    });
    // The answers do differ where they should.
    const right = await loginAs(elsewhere(), known.email, known.password);
    expect(right.status).toBe(200);
    expectRefused(await loginAs(elsewhere(), disabled.email, disabled.password), 'ACCOUNT_DISABLED');
  });

  test('the limit counts the unknown like the known', async () => {
    const one = await guesses(known.email);
    expect(await guesses(`nobody.${randomUUID().slice(0, 8)}@example.com`)).toEqual(one);
    expect(await guesses(disabled.email)).toEqual(one);
    expect(one.at(-1)).toEqual([429, 'RATE_LIMITED', expect.any(String)]);
  });

  test('values that cannot be a password or an address are refused alike', async () => {
    for (const password of ['', 'x'.repeat(257)]) {
      const one = await costOf(scene, () => loginAs(elsewhere(), known.email, password));
      const other = await costOf(scene, () => loginAs(elsewhere(), 'nobody.at.all@example.com', password));
      expectRefused(one.answer, 'VALIDATION_FAILED');
      expect(other.face).toEqual(one.face);
      expect([one.pipelines, other.pipelines]).toEqual([[], []]);
    }
  });

  const linux = process.platform === 'linux';
  test.runIf(linux)('as many hashes for the unknown as for the known, by the CPU time that they take', async () => {
    const pid = await workerPid();
    const cpu = async (send: () => Promise<unknown>) => {
      const before = await cpuTicks(pid);
      for (let round = 0; round < 4; round += 1) await send();
      return (await cpuTicks(pid)) - before;
    };
    const wrong = await cpu(() => loginAs(elsewhere(), known.email));
    const unknown = await cpu(() => loginAs(elsewhere(), `nobody.${randomUUID().slice(0, 8)}@example.com`));
    const none = await cpu(() => loginAs(elsewhere(), known.email, ''));
    // A login without any hash costs far less than one with a hash: so this measurement can see a difference.
    expect(none * 5).toBeLessThan(wrong);
    expect(unknown / wrong).toBeGreaterThan(0.6);
    expect(unknown / wrong).toBeLessThan(1.6);
  });

  /** The Worker's process: the only one of its kind that this test file has started. */
  async function workerPid(): Promise<number> {
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      const stat = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
      const [, name = '', parent = ''] = /^\d+ \((.*)\) \S (\d+)/.exec(stat) ?? [];
      if (name.startsWith('workerd') && Number(parent) === process.pid) return Number(entry);
    }
    throw new Error('workerd is not there');
  }

  /** User and system time, in ticks of ten milliseconds (proc_pid_stat(5)). */
  async function cpuTicks(pid: number): Promise<number> {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  }
});

describe('refresh', () => {
  test('a forged token says nothing of the session that it names', async () => {
    const live = known.refresh.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A'));
    const [form, kid, user, , ...rest] = live.split('.');
    const none = [form, kid, user, randomBytes(16).toString('base64url'), ...rest].join('.');
    const nobody = [form, kid, randomUUID(), randomBytes(16).toString('base64url'), ...rest].join('.');
    const faces: unknown[] = [];
    for (const token of [live, none, nobody, 'grt1.x']) {
      const cost = await costOf(scene, () =>
        scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } }),
      );
      expectRefused(cost.answer, 'INVALID_TOKEN');
      expect(cost.pipelines).toEqual([]);
      faces.push(cost.face);
    }
    for (const other of faces) expect(other).toEqual(faces[0]);
  });
});

describe('data of other users', () => {
  const own = (call: Call, method: string, path: string, body?: unknown) =>
    call(method, path, { token: attacker.access, ...(body !== undefined && { body }) });

  test('a session of another user gets the response of one that does not exist', async () => {
    const ids = [
      known.sessionId,
      `${known.id}.${randomBytes(16).toString('base64url')}`,
      `${randomUUID()}.${randomBytes(16).toString('base64url')}`,
      `${attacker.id}.${randomBytes(16).toString('base64url')}`,
      known.id,
      attacker.id,
      `${attacker.id}.`,
      `${attacker.id}.${known.sessionId}`,
      `.${known.sessionId}`,
      `${attacker.id}}:${known.sessionId}`,
    ];
    const said = new Set<string>();
    for (const id of ids) {
      const { answer } = await costOf(scene, () => own(scene.call, 'DELETE', `/v1/sessions/${encodeURIComponent(id)}`));
      expectRefused(answer, 'NOT_FOUND');
      said.add(JSON.stringify({ ...answer.body, requestId: '' }));
    }
    expect(said.size).toBe(1);
    await expectUnharmed(scene, known);
    // The control: one's own.
    const mine = signedIn(await loginAs(elsewhere(), attacker.email, attacker.password));
    expect((await own(scene.call, 'DELETE', `/v1/sessions/${mine.sessionId}`)).status).toBe(204);
  });

  test.each<[string, (id: string) => [string, string, unknown?]]>([
    ['reading a user', (id) => ['GET', `/v1/users/${id}`]],
    ['changing a user', (id) => ['PATCH', `/v1/users/${id}`, { role: 'admin' }]],
    ['changing a user to nonsense', (id) => ['PATCH', `/v1/users/${id}`, { role: 'root' }]],
    ['looking for one', (id) => ['GET', `/v1/users?q=${id}`]],
    ['looking into a counter', (id) => ['POST', '/v1/admin/limits/peek', { policy: 'api', identity: `user:${id}` }]],
    ['resetting a counter', (id) => ['POST', '/v1/admin/limits/reset', { policy: 'api', identity: `user:${id}` }]],
  ])('%s is forbidden, whether or not it exists', async (_, of) => {
    await expectAlike(async () => {
      const costs: unknown[] = [];
      for (const id of [known.id, attacker.id, disabled.id, randomUUID(), 'x', known.email]) {
        const { answer, face, pipelines } = await costOf(scene, () => own(scene.call, ...of(encodeURIComponent(id))));
        expectRefused(answer, 'FORBIDDEN');
        costs.push({ face: { ...(face as object), headers: undefined }, pipelines });
      }
      return costs;
    });
    const [row] = await scene.app.sql('SELECT role FROM users WHERE id = ?', attacker.id);
    expect(row).toEqual({ role: 'user' });
  });

  test('without a token every route refuses before it looks', async () => {
    const routes: [string, string][] = [
      ['GET', `/v1/users/${known.id}`],
      ['GET', `/v1/users/${randomUUID()}`],
      ['DELETE', `/v1/sessions/${known.sessionId}`],
      ['DELETE', `/v1/sessions/${randomUUID()}.x`],
      ['GET', '/v1/users?q=a'],
      ['POST', '/v1/admin/limits/peek'],
    ];
    for (const [method, path] of routes) {
      expectRefused(await scene.call(method, path), 'AUTHENTICATION_REQUIRED');
    }
  });
});

test('the logs say nothing: not of whom, not with what', () => {
  expectQuietLogs(scene, 'wrong horse', known.password, 'nobody');
});
