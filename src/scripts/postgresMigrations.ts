import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';

import { ROOT } from './cli.ts';

export const POSTGRES_MIGRATIONS = join(ROOT, 'src/db/postgres/migrations');

interface Migration {
  /** Such as `0001_rules.sql`. */
  name: string;
  sql: string;
  /** SHA-256 of the file. */
  hash: string;
  /** When it was made, as its journal says; 0 for a file that the journal does not name. */
  madeAtMs: number;
}

/**
 * The migrations that a database has not had yet, in the order of their names, as wrangler applies those of D1: which number, and
 * which date, a file has beside the others does not matter. Drizzle's own migrator asks only whether a file is younger than the
 * newest that was applied, and passes over an older one that a merge has brought.
 */
export async function missingMigrations(client: Client, folder = POSTGRES_MIGRATIONS): Promise<Migration[]> {
  const rows = await appliedTo(client);
  const hashes = new Set(rows.map(({ hash }) => hash));
  // Those that were applied before an edit of a comment, say.
  const times = new Set(rows.map(({ created_at: madeAt }) => Number(madeAt)).filter((madeAtMs) => madeAtMs > 0));
  return migrationsIn(folder).filter(({ hash, madeAtMs }) => !hashes.has(hash) && !times.has(madeAtMs));
}

/** The database's records of applied migrations; none if it is not the app's database. */
export async function appliedTo(client: Client): Promise<{ hash: string; created_at: string | null }[]> {
  const { rows } = await client.query<{ has: boolean }>(
    `select to_regclass('drizzle.__drizzle_migrations') is not null as has`,
  );
  if (rows[0]?.has !== true) return [];
  const applied = await client.query<{ hash: string; created_at: string | null }>(
    'select hash, created_at from drizzle.__drizzle_migrations',
  );
  return applied.rows;
}

/** Applies what is missing, all in one transaction, and records it where Drizzle does. */
export async function applyMissing(client: Client, folder = POSTGRES_MIGRATIONS): Promise<void> {
  await client.query('create schema if not exists drizzle');
  await client.query(
    'create table if not exists drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)',
  );
  const missing = await missingMigrations(client, folder);
  await client.query('begin');
  try {
    for (const { sql, hash, madeAtMs } of missing) {
      for (const statement of sql.split('--> statement-breakpoint')) await client.query(statement);
      await client.query('insert into drizzle.__drizzle_migrations (hash, created_at) values ($1, $2)', [
        hash,
        madeAtMs,
      ]);
    }
    await client.query('commit');
  } catch (error) {
    // If the connection is broken, the query's error shows it.
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

function migrationsIn(folder: string): Migration[] {
  const journal = JSON.parse(readFileSync(join(folder, 'meta/_journal.json'), 'utf8')) as {
    entries: { tag: string; when: number }[];
  };
  const times = new Map(journal.entries.map(({ tag, when }) => [`${tag}.sql`, when]));
  const names = readdirSync(folder).filter((name) => name.endsWith('.sql'));
  return names.sort().map((name) => {
    const sql = readFileSync(join(folder, name), 'utf8');
    return { name, sql, hash: createHash('sha256').update(sql).digest('hex'), madeAtMs: times.get(name) ?? 0 };
  });
}
