import { mkdirSync, watch, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { ROOT } from './cli.ts';
import { readText } from './devVars.ts';
import { DATABASE, LOCAL_STATE } from './migrations.ts';
import { linesOf } from './wranglerToml.ts';

/** What `npm run dev` reads at its start only. */
const READ_AT_START = ['.dev.vars', 'wrangler.toml'];

/** An editor writes a file in several steps: it is looked at once nothing has happened for so long, in milliseconds. */
const QUIET_MS = 300;

/**
 * Says when a file that was read at the start has changed.
 *
 * @returns what ends it
 */
export function watchSettings(notice: (line: string) => void, folder = ROOT): () => void {
  const texts = () => READ_AT_START.map((name) => readText(join(folder, name)));
  const atStart = texts();
  let last = atStart;
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    const now = texts();
    for (const [index, name] of READ_AT_START.entries()) {
      if (now[index] === last[index] || now[index] === atStart[index]) continue;
      notice(`${name} has changed: stop npm run dev and start it again to use it.`);
    }
    last = now;
  }

  // The folder: a watcher of a file loses it when an editor puts a new one in its place.
  const watcher = watch(folder, (_, name) => {
    if (name === null || !READ_AT_START.includes(name)) return;
    clearTimeout(timer);
    timer = setTimeout(look, QUIET_MS);
  });
  return () => {
    clearTimeout(timer);
    watcher.close();
  };
}

/**
 * Wrangler keeps a local D1 for each `database_id`, so a new id, such as that of the first deployment, begins with an empty
 * one.
 *
 * @returns the message to print if the id differs from that of the last start
 */
export function otherLocalDatabase(folder = ROOT, state = LOCAL_STATE): string | undefined {
  const id = localDatabaseId(readText(join(folder, 'wrangler.toml')) ?? '');
  const file = join(state, 'database_id');
  const former = readText(file);
  if (former === id) return undefined;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, id);
  if (former === undefined) return undefined;
  return (
    'wrangler.toml has another database_id than at the last start, and each has a local database of its own. Accounts and rows ' +
    `of the former one are not in this one; to have them back, set database_id = "${former}".`
  );
}

/** As wrangler chooses it. */
function localDatabaseId(toml: string): string {
  const lines = linesOf(toml, '').filter(({ table }) => table === 'd1_databases');
  const { tableNumber } = lines.find(({ name, texts }) => name === 'binding' && texts[0] === DATABASE) ?? {};
  const valueOf = (setting: string) =>
    lines.find((line) => line.tableNumber === tableNumber && line.name === setting)?.texts[0];
  return valueOf('preview_database_id') ?? valueOf('database_id') ?? DATABASE;
}
