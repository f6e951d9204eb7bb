import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { accountChangeSql, normalizeEmail, sqlText } from '../../../src/scripts/adminSql.ts';
import type { AccountChange } from '../../../src/scripts/adminSql.ts';
import { copyProject, migrateAtOnce, ROOT, runScript } from './project.ts';

const DAY_MS = 86_400_000;
/** The id in wrangler.toml. */
const PRODUCTION = '00000000-0000-0000-0000-000000000000';

let state: string;
let database: DatabaseSync;

const admin = (...args: string[]) => runScript(ROOT, 'admin', [...args, '--persist-to', state]);

/** The local D1 database, read and written past wrangler. */
function open(): DatabaseSync {
  const directory = join(state, 'v3/d1/miniflare-D1DatabaseObject');
  const name = readdirSync(directory).find((file) => file.endsWith('.sqlite') && file !== 'metadata.sqlite');
  return new DatabaseSync(join(directory, name!));
}

function addUser(id: string, email: string, status = 'active'): void {
  database
    .prepare(
      `INSERT INTO users (id, email, name, status, password_hash, epoch, access_version, created_at_ms, updated_at_ms)
       VALUES (?, ?, 'A\tB', ?, 'x', 3, 7, 1, 1)`,
    )
    .run(id, email, status);
}

const user = (id: string) =>
  database.prepare('SELECT role, epoch, access_version, updated_at_ms FROM users WHERE id = ?').get(id)!;

beforeAll(async () => {
  state = mkdtempSync(join(tmpdir(), 'gatehouse-admin-'));
  await migrateAtOnce(state);
  database = open();
});
afterAll(() => {
  database?.close();
  rmSync(state, { recursive: true });
});

/** By a random step from 1 to 1,000. @returns the present version */
function raised(before: number, now: unknown): number {
  expect(now).toBeGreaterThan(before);
  expect(now).toBeLessThanOrEqual(before + 1_000);
  return Number(now);
}

describe('npm run admin', () => {
  it('grants and revokes, and leaves exactly the messages that Redis must get', async () => {
    addUser('u-1', `o'brien;--"\u00e9@example.com`);
    addUser('u-2', 'other@example.com');
    const before = Date.now();

    // Upper case, decomposed, surrounded by space: the same address.
    const granted = await admin('grant', ` O'Brien;--"E\u0301@Example.com `);
    expect(granted).toMatchObject({ code: 0, stderr: '' });
    expect(granted.stdout).toContain('is an admin now (local database)');
    expect(user('u-1')).toMatchObject({ role: 'admin', epoch: 3 });
    const accessVersion = raised(7, user('u-1')['access_version']);
    expect(user('u-2')).toEqual({ role: 'user', epoch: 3, access_version: 7, updated_at_ms: 1 });

    const rows = database.prepare('SELECT * FROM outbox ORDER BY rowid').all();
    expect(rows.map((row) => JSON.parse(String(row['message'])) as unknown)).toEqual([
      { kind: 'epoch', userId: 'u-1', epoch: 3, accessVersion, accessVersionRaised: 1 },
      { kind: 'invalidate', users: ['u-1'], namespaces: ['users'] },
    ]);
    for (const row of rows) {
      const at = Number(row['created_at_ms']);
      expect(at).toBeGreaterThanOrEqual(before);
      expect(at).toBeLessThanOrEqual(Date.now());
      expect(row).toMatchObject({ state: 'pending', due_at_ms: at, expires_at_ms: at + 31 * DAY_MS });
      expect(row['id']).toMatch(/^[\da-f]{8}-([\da-f]{4}-){3}[\da-f]{12}$/);
      expect(user('u-1')['updated_at_ms']).toBe(at);
    }

    const again = await admin('grant', `o'brien;--"\u00e9@example.com`);
    expect(again).toMatchObject({ code: 0 });
    expect(again.stdout).toContain('is an admin already');
    expect(user('u-1')['access_version']).toBe(accessVersion);

    const listed = await admin('list');
    expect(listed).toMatchObject({ code: 0, stdout: `o'brien;--"\u00e9@example.com\tA B\tactive\n` });

    expect(await admin('revoke', `o'brien;--"\u00e9@example.com`)).toMatchObject({ code: 0 });
    expect(user('u-1')).toMatchObject({ role: 'user' });
    raised(accessVersion, user('u-1')['access_version']);
    expect(database.prepare('SELECT count(*) AS n FROM outbox').get()).toEqual({ n: 4 });
    const audit = database.prepare('SELECT by, action, user_id, detail FROM audit ORDER BY seq').all();
    const about = { by: 'command-line', action: 'role-changed', user_id: 'u-1' };
    expect(audit).toEqual([
      { ...about, detail: '{"role":"admin"}' },
      { ...about, detail: '{"role":"user"}' },
    ]);
  });

  it('disables and enables, ends sessions of one account or of all, and leaves who did it', async () => {
    addUser('u-4', 'four@example.com');
    addUser('u-5', 'five@example.com');
    const begunMs = Date.now();
    const soon = begunMs + DAY_MS;
    const begin = (id: string, userId: string) =>
      database
        .prepare(
          `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
           VALUES (?, ?, 'Phone', '203.0.113.7', 1, 1, ?, 3)`,
        )
        .run(id, userId, soon);
    const reasons = () =>
      database
        .prepare(`SELECT id, ended_reason, address FROM sessions ORDER BY id`)
        .all()
        .map((row) => {
          // Of one that has ended the network is kept.
          expect(row['address']).toBe(row['ended_reason'] === null ? '203.0.113.7' : '203.0.113.0/24');
          return [row['id'], row['ended_reason']];
        });
    const enqueued = () =>
      database
        .prepare('SELECT message FROM outbox ORDER BY seq DESC LIMIT 2')
        .all()
        .map((row) => JSON.parse(String(row['message'])) as unknown);
    begin('u-4.a', 'u-4');
    begin('u-5.a', 'u-5');

    expect((await admin('disable', 'four@example.com')).stdout).toContain('four@example.com is disabled now');
    expect(database.prepare(`SELECT status FROM users WHERE id = 'u-4'`).get()).toEqual({ status: 'disabled' });
    const disabled = raised(3, user('u-4')['epoch']);
    expect(reasons()).toEqual([
      ['u-4.a', 'disabled'],
      ['u-5.a', null],
    ]);
    expect(enqueued()).toEqual([
      { kind: 'invalidate', users: ['u-4'], namespaces: ['users'] },
      { kind: 'epoch', userId: 'u-4', epoch: disabled, accessVersion: 7, epochRaised: 1 },
    ]);
    // Past wrangler, which takes seconds for each command.
    const run = (change: AccountChange) =>
      accountChangeSql(change, { email: 'four@example.com', nowMs: Date.now() })
        .split(';\n')
        .map((statement) => database.prepare(statement).all())[0];
    expect(run('disable')).toEqual([]);
    expect(run('enable')).toEqual([{ id: 'u-4' }]);
    expect(user('u-4')).toMatchObject({ epoch: disabled, access_version: 7 });

    begin('u-4.b', 'u-4');
    expect(run('end-sessions')).toEqual([{ id: 'u-4' }]);
    const ended = raised(disabled, user('u-4')['epoch']);
    expect(enqueued()[0]).toEqual({ kind: 'epoch', userId: 'u-4', epoch: ended, accessVersion: 7, epochRaised: 1 });
    begin('u-4.c', 'u-4');
    const all = await admin('end-sessions', '--everyone');
    expect(all.stdout).toContain('2 accounts are signed out everywhere');
    expect(reasons()).toEqual([
      ['u-4.a', 'disabled'],
      ['u-4.b', 'administrator'],
      ['u-4.c', 'administrator'],
      ['u-5.a', 'administrator'],
    ]);
    expect(enqueued()).toEqual([
      { kind: 'epoch', userId: 'u-5', epoch: raised(3, user('u-5')['epoch']), accessVersion: 7, epochRaised: 1 },
      { kind: 'epoch', userId: 'u-4', epoch: raised(ended, user('u-4')['epoch']), accessVersion: 7, epochRaised: 1 },
    ]);

    const by = 'command-line';
    const audit = database
      .prepare(`SELECT by, action, user_id, detail FROM audit WHERE at_ms >= ? ORDER BY seq`)
      .all(begunMs);
    expect(audit).toEqual([
      { by, action: 'disabled', user_id: 'u-4', detail: '{}' },
      { by, action: 'enabled', user_id: 'u-4', detail: '{}' },
      { by, action: 'sessions-ended', user_id: 'u-4', detail: '{}' },
      { by, action: 'everyone-signed-out', user_id: null, detail: '{"users":2}' },
    ]);
    const kinds = database.prepare(`SELECT kind FROM events WHERE user_id = 'u-4' ORDER BY rowid`).all();
    expect(kinds.map((row) => row['kind'])).toEqual(['disabled', 'enabled', 'sessions-ended', 'sessions-ended']);
  });

  it('says in one line that an address is unknown, and writes nothing', async () => {
    const count = () => database.prepare('SELECT count(*) AS n FROM outbox').get();
    const before = count();
    const { code, stdout, stderr } = await admin('grant', `nobody' OR '1'='1@example.com`.replaceAll(' ', ''));
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.trimEnd()).toMatch(
      /^No account has the address nobody'or'1'='1@example\.com in the local database\.$/,
    );
    expect(count()).toEqual(before);
  });

  it('says that a disabled account stays one', async () => {
    addUser('u-3', 'off@example.com', 'disabled');
    const { stdout } = await admin('grant', 'off@example.com');
    expect(stdout).toContain('The account is disabled');
  });

  it('says what to run when the database has no tables', async () => {
    const empty = mkdtempSync(join(tmpdir(), 'gatehouse-admin-'));
    const { code, stderr } = await runScript(ROOT, 'admin', ['list', '--persist-to', empty]);
    rmSync(empty, { recursive: true });
    expect(code).toBe(1);
    expect(stderr).toBe(
      'The local database has no tables yet: run `npm run dev` once, or `npx wrangler d1 migrations apply DB --local`.\n',
    );
  });

  it('changes the database of the environment that --env names, and no other', async () => {
    using project = copyProject();
    const staging = '11111111-1111-4111-8111-111111111111';
    const toml = [
      '[env.staging]',
      '[[env.staging.d1_databases]]',
      'binding = "DB"',
      'database_name = "gatehouse-staging"',
      `database_id = "${staging}"`,
      'migrations_dir = "src/db/migrations"',
      '[env.bare]',
    ];
    appendFileSync(join(project.root, 'wrangler.toml'), toml.join('\n'));
    const asked: string[] = [];
    // Cloudflare's API, as far as `wrangler d1 execute --remote` uses it.
    await using api = createServer((request, response) => {
      const path = request.url ?? '';
      asked.push(path);
      const isKnown = path.endsWith('/gatehouse');
      const result = path.endsWith('/query')
        ? [{ results: [], success: true, meta: {} }]
        : { name: 'gatehouse', uuid: PRODUCTION };
      response.statusCode = isKnown || path.endsWith('/query') ? 200 : 404;
      response.setHeader('Content-Type', 'application/json');
      const errors = response.statusCode === 200 ? [] : [{ code: 7404, message: 'not found' }];
      response.end(JSON.stringify({ success: errors.length === 0, errors, messages: [], result }));
    });
    api.listen(0, '127.0.0.1');
    await once(api, 'listening');
    const env = {
      CLOUDFLARE_API_BASE_URL: `http://127.0.0.1:${(api.address() as AddressInfo).port}`,
      CLOUDFLARE_API_TOKEN: 'none',
      CLOUDFLARE_ACCOUNT_ID: 'account',
    };
    const remote = async (...args: string[]) => {
      asked.length = 0;
      const outcome = await runScript(project.root, 'admin', ['list', '--remote', ...args], { env });
      const queried = asked.flatMap((path) => /\/d1\/database\/([^/]+)\/query$/.exec(path)?.[1] ?? []);
      return { code: outcome.code, queried };
    };
    expect(await remote()).toEqual({ code: 0, queried: [PRODUCTION] });
    expect(await remote('--env', 'staging')).toEqual({ code: 0, queried: [staging] });
    expect(await remote('--env', 'bare')).toEqual({ code: 1, queried: [] });

    const local = await runScript(project.root, 'admin', ['list', '--env', 'staging', '--persist-to', state]);
    expect(local.stderr).toBe(
      'The local database has no tables yet: run `npx wrangler d1 migrations apply DB --local --env staging`.\n',
    );
  });

  it.each([
    [[]],
    [['grant']],
    [['grant', 'a@b', 'c@d']],
    [['list', 'a@b']],
    [['disable']],
    [['end-sessions']],
    [['end-sessions', 'a@b', '--everyone']],
    [['grant', 'a@b', '--local', '--remote']],
    [['grant', 'ada']],
  ])('refuses %j in one line, without asking any database', async (args) => {
    const { code, stdout, stderr } = await admin(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});

describe('SQL', () => {
  it('carries any text unchanged, in characters that mean nothing to SQL or a shell', () => {
    for (const text of [`'`, `''); DROP TABLE users; --`, '\\', '$(id)`', '\u00e9\u{1f600}', 'a;b', '']) {
      const literal = sqlText(text);
      expect(literal).toMatch(/^CAST\(X'[\da-f]*' AS TEXT\)$/);
      expect(database.prepare(`SELECT ${literal} AS text, typeof(${literal}) AS type`).get()).toEqual({
        text,
        type: 'text',
      });
    }
  });

  it('normalises addresses', () => {
    expect(normalizeEmail(' E\u0301va@Example.COM\n')).toBe('\u00e9va@example.com');
  });
});
