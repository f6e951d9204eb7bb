import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { normalizeEmail, sqlText } from '../../../src/scripts/adminSql.ts';
import { runWrangler } from '../../../src/scripts/wrangler.ts';
import { ROOT, runScript } from './project.ts';

const DAY_MS = 86_400_000;

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
  const args = ['d1', 'migrations', 'apply', 'gatehouse', '--local', '--persist-to', state];
  const { code, stderr } = await runWrangler(args);
  if (code !== 0) throw new Error(`the migrations were not applied: ${stderr}`);
  database = open();
});
afterAll(() => {
  database?.close();
  rmSync(state, { recursive: true });
});

describe('npm run admin', () => {
  it('grants and revokes, and leaves for Redis exactly what it must learn', async () => {
    addUser('u-1', `o'brien;--"\u00e9@example.com`);
    addUser('u-2', 'other@example.com');
    const before = Date.now();

    // Upper case, decomposed, surrounded by space: the same address.
    const granted = await admin('grant', ` O'Brien;--"E\u0301@Example.com `);
    expect(granted).toMatchObject({ code: 0, stderr: '' });
    expect(granted.stdout).toContain('is an admin now (local database)');
    expect(user('u-1')).toMatchObject({ role: 'admin', epoch: 3, access_version: 8 });
    expect(user('u-2')).toEqual({ role: 'user', epoch: 3, access_version: 7, updated_at_ms: 1 });

    const rows = database.prepare('SELECT * FROM outbox ORDER BY rowid').all();
    expect(rows.map((row) => JSON.parse(String(row['message'])) as unknown)).toEqual([
      { kind: 'epoch', userId: 'u-1', epoch: 3, accessVersion: 8 },
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
    expect(user('u-1')['access_version']).toBe(8);

    const listed = await admin('list');
    expect(listed).toMatchObject({ code: 0, stdout: `o'brien;--"\u00e9@example.com\tA B\tactive\n` });

    expect(await admin('revoke', `o'brien;--"\u00e9@example.com`)).toMatchObject({ code: 0 });
    expect(user('u-1')).toMatchObject({ role: 'user', access_version: 9 });
    expect(database.prepare('SELECT count(*) AS n FROM outbox').get()).toEqual({ n: 4 });
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
      'The local database has no tables yet: run `npm run dev` once, or `npx wrangler d1 migrations apply gatehouse --local`.\n',
    );
  });

  it.each([
    [[]],
    [['grant']],
    [['grant', 'a@b', 'c@d']],
    [['list', 'a@b']],
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
