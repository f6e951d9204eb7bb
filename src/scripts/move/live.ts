import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { UserError } from '../cli.ts';
import { DATABASE, LOCAL_STATE } from '../migrations.ts';
import { runWrangler, wranglerError } from '../wrangler.ts';
import { loadDump, repairTexts } from './dump.ts';
import type { Query, Row } from './values.ts';

/** The D1 database that is moved, as it is now. */
export interface Live {
  query: Query;
  /** Writes a copy of one moment into a new SQLite file. */
  copyTo(path: string): Promise<void>;
}

/** A SQLite file, which nothing is written to. */
export function fileAt(path: string): Live {
  if (!existsSync(path)) throw new UserError(`There is no file ${path}.`);
  const opened = () => new DatabaseSync(path, { readOnly: true });
  return {
    async query(statements) {
      using database = opened();
      return statements.map((sql) => database.prepare(sql).all() as Row[]);
    },
    async copyTo(copy) {
      using database = opened();
      database.prepare('vacuum into ?').run(copy);
    },
  };
}

/** The database of `npm run dev`. @param persistTo state directory, as wrangler has it */
export function localDatabase(persistTo: string | undefined): Live {
  const state = persistTo === undefined ? LOCAL_STATE : join(persistTo, 'v3/d1');
  const folder = join(state, 'miniflare-D1DatabaseObject');
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const files = names
    .filter((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite')
    .map((name) => join(folder, name));
  const [only, ...others] = files.filter(hasUsers);
  if (only === undefined)
    throw new UserError('There is no local database with tables. Is it elsewhere? --persist-to DIR');
  if (others.length > 0) throw new UserError(`${folder} holds several databases: choose one with --file FILE.`);
  return fileAt(only);
}

function hasUsers(path: string): boolean {
  using database = new DatabaseSync(path, { readOnly: true });
  return database.prepare(`select 1 from sqlite_schema where name = 'users'`).get() !== undefined;
}

/** The deployed database, through wrangler. @param env environment of wrangler.toml */
export function remoteDatabase(env: string | undefined): Live {
  const ofEnv = env === undefined ? [] : ['--env', env];
  const run = async (...args: string[]) => {
    const result = await runWrangler(['d1', ...args, ...ofEnv]);
    if (result.code === 0) return result.stdout;
    const error = wranglerError(result);
    throw new UserError(
      error.includes('CLOUDFLARE_API_TOKEN')
        ? 'wrangler is not logged in: run `npx wrangler login`, or set CLOUDFLARE_API_TOKEN.'
        : `D1 could not be read: ${error}`,
    );
  };
  const query = async (statements: readonly string[]) => {
    const command = statements.join(';\n');
    const shown = await run('execute', DATABASE, '--remote', '--json', '--yes', '--command', command);
    return (JSON.parse(shown) as { results: Row[] }[]).map(({ results }) => results);
  };
  return {
    query,
    async copyTo(copy) {
      const dump = `${copy}.sql`;
      try {
        const [tables = []] = await query([
          `select sql from sqlite_schema where type = 'table' and sql is not null
             and name not like 'sqlite\\_%' escape '\\' and name not like '\\_cf\\_%' escape '\\'`,
        ]);
        const [numbers = []] = await query(['select name, seq from sqlite_sequence']);
        await run('export', DATABASE, '--remote', '--no-schema', '--skip-confirmation', '--output', dump);
        await loadDump(dump, copy, { tables: tables.map(({ sql }) => String(sql)), numbers });
        await repairTexts(copy, query);
      } finally {
        await rm(dump, { force: true });
      }
    },
  };
}
