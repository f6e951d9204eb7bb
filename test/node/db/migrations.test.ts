import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { makeDatabase } from '../../../src/scripts/migrations.ts';
import { PROGRAM } from '../../../src/scripts/wrangler.ts';
import { copyProject } from '../scripts/project.ts';

const directory = fileURLToPath(new URL('../../../src/db/migrations', import.meta.url));
const names = readdirSync(directory)
  .filter((name) => name.endsWith('.sql'))
  .sort();

function apply(database: DatabaseSync, migrations: readonly string[]): void {
  for (const name of migrations) {
    const text = readFileSync(join(directory, name), 'utf8');
    for (const statement of text.split('--> statement-breakpoint')) database.exec(statement);
  }
}

/** Of the migration of that name, whatever its number. */
function indexOf(name: string): number {
  const at = names.findIndex((file) => file.endsWith(`_${name}.sql`));
  expect(at).toBeGreaterThan(0);
  return at;
}

test('messages from before the outbox had an order of its own keep their order, and are still undelivered', () => {
  const database = new DatabaseSync(':memory:');
  const at = indexOf('redis_history');
  apply(database, names.slice(0, at));
  const insert = database.prepare(`INSERT INTO outbox VALUES (?, '{}', ?, ?, ?, 9)`);
  for (const [index, id] of ['z', 'a', 'm'].entries())
    insert.run(id, id === 'a' ? 'delivered' : 'pending', 5 - index, index);
  apply(database, names.slice(at));
  expect(database.prepare('SELECT seq, id, state FROM outbox ORDER BY seq').all()).toEqual([
    Object.assign(Object.create(null), { seq: 1, id: 'z', state: 'pending' }),
    Object.assign(Object.create(null), { seq: 2, id: 'a', state: 'delivered' }),
    Object.assign(Object.create(null), { seq: 3, id: 'm', state: 'pending' }),
  ]);
  expect(database.prepare('SELECT count(*) AS n FROM redis_state').get()).toMatchObject({ n: 1 });
});

test('accounts from before the search text keep all that they are, and have none yet', () => {
  const database = new DatabaseSync(':memory:');
  const at = indexOf('user_search');
  apply(database, names.slice(0, at));
  const insert = database.prepare(
    `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms) VALUES (?, ?, ?, 'h', ?, ?)`,
  );
  for (const [index, name] of ['Ada', 'Émile', '長'].entries()) {
    insert.run(`u${index}`, `u${index}@example.com`, name, index, index);
  }
  const before = database.prepare('SELECT * FROM users ORDER BY id').all();
  apply(database, names.slice(at));
  const after = database.prepare('SELECT * FROM users ORDER BY id').all();
  expect(after).toEqual(before.map((row) => Object.assign(row, { search: null })));
});

test('a merge that brings a migration of the same number leaves the own one as it is: wrangler applies the missing one', () => {
  using project = copyProject();
  const number = String(names.length).padStart(4, '0');
  const own = (name: string, sql: string) =>
    writeFileSync(join(project.root, `src/db/migrations/${number}_${name}.sql`), sql);
  const migrate = () =>
    execFileSync(process.execPath, [PROGRAM, 'd1', 'migrations', 'apply', 'DB', '--local'], {
      cwd: project.root,
      env: { ...process.env, CI: '1', WRANGLER_SEND_METRICS: 'false' },
      encoding: 'utf8',
    });
  own('notes', 'CREATE TABLE notes (id text PRIMARY KEY);');
  migrate();
  const folder = join(project.root, '.wrangler/state/v3/d1/miniflare-D1DatabaseObject');
  const file = readdirSync(folder).find((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite');
  using database = new DatabaseSync(join(folder, file!));
  database.exec(`INSERT INTO notes VALUES ('kept')`);
  own('badges', 'CREATE TABLE badges (id text PRIMARY KEY); ALTER TABLE users ADD COLUMN badge text;');
  migrate();
  expect(database.prepare('SELECT id, (SELECT count(*) FROM badges) AS badges FROM notes').get()).toMatchObject({
    id: 'kept',
    badges: 0,
  });
});

test('the database of a first start has the tables of all migrations, and wrangler has none left to apply', async () => {
  using project = copyProject();
  const state = join(project.root, '.wrangler/state');
  expect(await makeDatabase({ state })).toBe(true);
  const folder = join(state, 'v3/d1/miniflare-D1DatabaseObject');
  const file = readdirSync(folder).find((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite');
  using made = new DatabaseSync(join(folder, file!));
  const expected = new DatabaseSync(':memory:');
  apply(expected, names);
  const schemaOf = (database: DatabaseSync) =>
    database
      .prepare(
        `SELECT name, sql FROM sqlite_master WHERE name NOT GLOB '_cf_*' AND name NOT GLOB '*d1_migrations*' ORDER BY name`,
      )
      .all();
  expect(schemaOf(made)).toEqual(schemaOf(expected));
  const list = execFileSync(process.execPath, [PROGRAM, 'd1', 'migrations', 'list', 'DB', '--local'], {
    cwd: project.root,
    env: { ...process.env, CI: '1', WRANGLER_SEND_METRICS: 'false' },
    encoding: 'utf8',
  });
  expect(list).toContain('No migrations to apply');
});
