import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { ROOT, UserError, runProgram } from './cli.ts';

const HELP = `npm run db:generate [-- --name NAME] [--custom]

Compares src/db/schema.ts with the migrations that there are, and writes the next one for D1 (src/db/migrations) and for
PostgreSQL (src/db/postgres/migrations).

  --name NAME   what their file names end with; without it a random one
  --custom      empty ones, for SQL of your own, such as a trigger
  --help        prints this
`;

const D1 = join(ROOT, 'src/db/migrations');
const POSTGRES = join(ROOT, 'src/db/postgres/migrations');

await runProgram(async () => {
  const { values } = parseArgs({
    options: {
      name: { type: 'string' },
      custom: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const options = [
    ...(values.name === undefined ? [] : ['--name', values.name]),
    ...(values.custom === true ? ['--custom'] : []),
  ];
  for (const folder of [D1, POSTGRES]) dropUnlistedSnapshots(folder);
  generate('src/db/drizzle.config.ts', options);
  const before = new Set(readdirSync(POSTGRES));
  generate('src/db/drizzle.postgres.config.ts', options, { NODE_OPTIONS: '--conditions=postgres' });
  for (const file of readdirSync(POSTGRES).filter((name) => name.endsWith('.sql') && !before.has(name))) {
    const path = join(POSTGRES, file);
    writeFileSync(path, collated(readFileSync(path, 'utf8')));
  }
});

/**
 * Deletes the snapshots of migrations that the journal does not list. A merge leaves them when an app has more migrations of
 * its own than the newer Gatehouse, and takes Gatehouse's journal. drizzle-kit compares the schema with the snapshot of the
 * highest number, listed or not: it would find the same difference each time.
 */
function dropUnlistedSnapshots(folder: string): void {
  const { entries } = JSON.parse(readFileSync(join(folder, 'meta/_journal.json'), 'utf8')) as {
    entries: { tag: string }[];
  };
  const listed = new Set(entries.map(({ tag }) => `${tag.split('_', 1)[0]}_snapshot.json`));
  for (const file of readdirSync(join(folder, 'meta')))
    if (file.endsWith('_snapshot.json') && !listed.has(file)) rmSync(join(folder, 'meta', file));
}

function generate(config: string, options: readonly string[], env: Record<string, string> = {}): void {
  const { status } = spawnSync('drizzle-kit', ['generate', '--config', config, ...options], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new UserError(`drizzle-kit failed with ${config}`);
}

/** Texts compare byte by byte, as in SQLite, whatever the server's language. drizzle-kit has no word for it. */
function collated(sql: string): string {
  return sql.replaceAll(/(?<="\w+" |SET DATA TYPE )text\b(?!\[| COLLATE)/g, 'text COLLATE "C"');
}
