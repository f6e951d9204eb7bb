import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { ROOT, UserError } from './cli.ts';
import { runWrangler, wranglerError } from './wrangler.ts';

/**
 * The binding in wrangler.toml. wrangler takes a name as well, and looks a name that the environment does not have up in the
 * account: staging would get the database of production.
 */
export const DATABASE = 'DB';

/** Where wrangler keeps local D1 databases. */
export const LOCAL_STATE = join(ROOT, '.wrangler/state/v3/d1');
export const D1_MIGRATIONS = join(ROOT, 'src/db/migrations');

/** A generated migration is several files: they are applied once none has changed for so long, in milliseconds. */
const QUIET_MS = 300;

/**
 * Brings the local D1 database up to date.
 *
 * Asking wrangler costs two seconds, so a stamp beside the database remembers which migrations it has; deleting
 * `.wrangler` starts afresh.
 *
 * @throws {UserError} with what wrangler says
 */
export async function applyMigrations(signal: AbortSignal): Promise<void> {
  const stamp = join(LOCAL_STATE, 'migrations.sha256');
  const wanted = fingerprint(ROOT);
  const isNew = !hasDatabase(LOCAL_STATE);
  if (!isNew && readIfThere(stamp) === wanted) return;

  // Where the first way fails, the second one says which migration is at fault.
  if (!isNew || !(await makeDatabase({ signal }))) {
    const result = await runWrangler(['d1', 'migrations', 'apply', DATABASE, '--local'], { signal });
    if (result.code !== 0) throw new UserError(`The local database could not be migrated: ${wranglerError(result)}`);
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

/**
 * Makes the local D1 database with all migrations in one command: wrangler's own one starts a runtime for each of them. It
 * fills the table in which wrangler notes the migrations that it has applied.
 *
 * @param state the folder of wrangler's local state @default that of the project
 * @returns whether that went well; if not, the database is empty
 */
export async function makeDatabase({ state, signal }: { state?: string; signal?: AbortSignal } = {}): Promise<boolean> {
  const names = sqlFiles(D1_MIGRATIONS);
  const noted = names.map((name) => `INSERT INTO d1_migrations (name) VALUES ('${name.replaceAll("'", "''")}');`);
  const text = [
    'CREATE TABLE d1_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE,',
    'applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL);',
    ...names.map((name) => readFileSync(join(D1_MIGRATIONS, name), 'utf8')),
    ...noted,
  ].join('\n');
  const folder = mkdtempSync(join(tmpdir(), 'migrations-'));
  try {
    const file = join(folder, 'all.sql');
    writeFileSync(file, text);
    const place = state === undefined ? [] : ['--persist-to', state];
    const args = ['d1', 'execute', DATABASE, '--local', '--yes', '--file', file, ...place];
    const { code } = await runWrangler(args, signal === undefined ? {} : { signal });
    return code === 0;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The migrations in a folder, in the order in which they are applied. */
const sqlFiles = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort();

/**
 * Applies migrations that are made while the Worker runs: it has the new tables with its next request.
 *
 * @returns what ends it
 */
export function watchMigrations({
  folder,
  migrate,
  notice,
  signal,
}: {
  folder: string;
  migrate: (signal: AbortSignal) => Promise<void>;
  notice: (line: string) => void;
  signal: AbortSignal;
}): () => void {
  let applied = fingerprint(ROOT, folder);
  let applying = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;

  async function apply(): Promise<void> {
    const wanted = fingerprint(ROOT, folder);
    if (wanted === applied || signal.aborted) return;
    applied = wanted;
    try {
      await migrate(signal);
      notice('The database has the new migrations.');
    } catch (error) {
      if (!signal.aborted) notice(error instanceof Error ? error.message : String(error));
    }
  }

  const watcher = watch(folder, () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      applying = applying.then(apply);
    }, QUIET_MS);
  });
  return () => {
    clearTimeout(timer);
    watcher.close();
  };
}

/** Changes with the migrations, and with wrangler.toml: another database id is another, empty database. */
export function fingerprint(root: string, directory = join(root, 'src/db/migrations')): string {
  const hash = createHash('sha256').update(readFileSync(join(root, 'wrangler.toml')));
  for (const name of sqlFiles(directory)) hash.update(`\n${name}\n`).update(readFileSync(join(directory, name)));
  return hash.digest('hex');
}

function hasDatabase(state: string): boolean {
  try {
    const files = readdirSync(join(state, 'miniflare-D1DatabaseObject'));
    return files.some((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
