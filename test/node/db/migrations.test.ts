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
