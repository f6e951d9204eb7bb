import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

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

test('accounts from before the search text keep all that they are, and have none yet', () => {
  const database = new DatabaseSync(':memory:');
  const at = names.indexOf('0003_user_search.sql');
  expect(at).toBeGreaterThan(0);
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
