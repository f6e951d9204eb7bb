import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { ROOT, UserError } from '../cli.ts';
import { progressOn } from '../warmBar.ts';
import { hasChanged, openCopy } from './copy.ts';
import type { Copy, SourceTable } from './copy.ts';
import type { Live } from './live.ts';
import type { Run, Target } from './target.ts';
import { digestOf, toPostgres } from './values.ts';
import type { Column } from './values.ts';

/** Copies hold all of D1, password hashes included: only their owner reads them, and they are deleted at the end. */
const COPIES = join(ROOT, '.wrangler/move');
/** Where nothing watches, reports of progress have this distance. */
const REPORT_MS = 1_000;

/** Smaller than any rowid. */
const BEFORE_ALL = -(2n ** 63n);

const STEPS = `Switch now:
  1. In wrangler.toml remove [[d1_databases]], and uncomment [[hyperdrive]] with the id of your configuration (docs/postgres.md).
  2. npm run deploy          without READ_ONLY: changes are accepted again, by PostgreSQL.
  3. GET /ready says "ready". Keep D1 until you are sure; what is changed from now on is not in it.
`;

const pathOf = (copy: string) => join(COPIES, `${copy}.sqlite`);

/**
 * Moves the rows of `live` into `target`, or continues an interrupted run.
 *
 * @param options `url`: of the deployment, which must refuse changes; `lot`: rows of a transaction
 * @throws {UserError} with the remedy
 */
export async function move(
  live: Live,
  target: Target,
  { url, lot, restart }: { url: string | undefined; lot: number; restart: boolean },
): Promise<void> {
  const startedMs = Date.now();
  let run = await target.run();
  if (run?.isFinished === true) {
    if (restart)
      throw new UserError('The move is finished, and the database may be in use: take an empty one for another move.');
    // It was killed before it came to that.
    await removeCopy(run.copy);
    process.stdout.write(`Everything was moved before.\n${STEPS}`);
    return;
  }
  const columns = await target.tables();
  if (run !== undefined && restart) {
    await removeCopy(run.copy);
    await target.undo([...columns.keys()].filter((table) => table !== 'counter_changes'));
    run = undefined;
  }
  await assertReadOnly(url);
  if (run?.isCopied !== true) run = await begin(live, target, [...columns.keys()], run);
  if (!existsSync(pathOf(run.copy))) {
    throw new UserError(
      'The copy of D1 that the former run has made is not on this machine: begin anew with --restart.',
    );
  }
  using copy = openCopy(pathOf(run.copy));
  const tables = matched(copy, columns);
  await load(copy, tables, target, run, lot);
  process.stderr.write('Comparing …\n');
  const rows = await compare(copy, tables, target);
  await assertReadOnly(url);
  if (await hasChanged(live, copy)) {
    throw new UserError(
      'D1 is no longer what was copied: see that nothing writes it (READ_ONLY=true), and run with --restart.',
    );
  }
  await target.finish();
  await removeCopy(run.copy);
  const seconds = ((Date.now() - startedMs) / 1_000).toFixed(1);
  process.stdout.write(
    `Moved: ${tables.length} tables, ${rows} rows, in ${seconds} s. Counts and digests agree.\n${STEPS}`,
  );
}

/** @throws {UserError} unless the deployment refuses changes */
async function assertReadOnly(url: string | undefined): Promise<void> {
  if (url === undefined) return;
  // It has no token, so its end signs no user out.
  const response = await fetch(new URL('/v1/auth/logout', url), {
    method: 'POST',
    redirect: 'error',
    signal: AbortSignal.timeout(30_000),
  }).catch(() => undefined);
  if (response === undefined) throw new UserError(`${url} does not respond.`);
  const body = (await response.json().catch(() => ({}))) as { code?: unknown };
  if (body.code === 'READ_ONLY') return;
  throw new UserError(`${url} accepts changes: npm run deploy -- --var READ_ONLY:true, and wait a minute.`);
}

/**
 * Copies D1. The copy's name is recorded first, so that the next run finds what one that was killed has left.
 *
 * @param former a run that did not come to the end of its copy
 * @throws {UserError} while the outbox has undelivered messages
 */
async function begin(live: Live, target: Target, tables: readonly string[], former: Run | undefined): Promise<Run> {
  const [[pending] = []] = await live.query([`select count(*) as n from outbox where state = 'pending'`]);
  const messages = Number(pending?.['n'] ?? 0);
  if (messages > 0) {
    throw new UserError(
      `${messages} messages of the outbox were not delivered to Redis yet. The cron trigger delivers them each minute: try again then.`,
    );
  }
  const copy = former?.copy ?? randomUUID();
  if (former === undefined) await target.begin(copy, tables);
  process.stderr.write('Copying D1 …\n');
  await removeCopy(copy);
  await mkdir(COPIES, { recursive: true, mode: 0o700 });
  const part = `${pathOf(copy)}.part`;
  try {
    await live.copyTo(part);
    await rename(part, pathOf(copy));
    await target.copied();
  } catch (error) {
    await removeCopy(copy);
    throw error;
  }
  return { copy, isCopied: true, isFinished: false, progress: new Map() };
}

/** Deletes a copy, and what it was made of. */
async function removeCopy(copy: string): Promise<void> {
  if (!existsSync(COPIES)) return;
  const names = (await readdir(COPIES)).filter((name) => name.startsWith(copy));
  await Promise.all(names.map((name) => rm(join(COPIES, name), { force: true })));
}

interface Matched extends SourceTable {
  into: readonly Column[];
}

/** @throws {UserError} unless both sides have the same tables and columns; triggers fill those that only PostgreSQL has */
function matched(copy: Copy, columns: ReadonlyMap<string, readonly Column[]>): Matched[] {
  return copy.tables.map((table) => {
    const into = columns.get(table.name);
    const names = (into ?? []).map(({ name }) => name).sort();
    if (into === undefined || names.join() !== [...table.columns].sort().join()) {
      throw new UserError(
        `The table ${table.name} differs between D1 and PostgreSQL: apply all migrations on both sides, and run with --restart.`,
      );
    }
    return { ...table, into };
  });
}

async function load(copy: Copy, tables: readonly Matched[], target: Target, run: Run, size: number): Promise<void> {
  const progress = progressOn(process.stderr);
  for (const { name, into, rows: total } of tables) {
    let { last, rows, done } = run.progress.get(name) ?? { last: BEFORE_ALL, rows: 0, done: false };
    if (done) continue;
    const names = into.map((column) => column.name);
    const startedMs = Date.now();
    let reportedMs = 0;
    const report = () => {
      reportedMs = Date.now();
      progress.show({ name, state: 'running', done: rows, total }, reportedMs - startedMs);
    };
    for (;;) {
      const lot = copy.lot(name, names, last, size);
      if (lot.length === 0) break;
      const values = lot.map(({ rowid, values: stored }) =>
        stored.map((value, index) => toPostgres(value, into[index]!, `${name}.${names[index]}, rowid ${rowid},`)),
      );
      last = lot.at(-1)!.rowid;
      rows += lot.length;
      await target.load(name, into, values, { last, rows, done: false });
      if (Date.now() - reportedMs >= REPORT_MS) report();
    }
    await target.complete(name, into, copy.lastNumber(name), { last, rows, done: true });
    progress.note(`${name}: ${rows} rows`);
    done = true;
  }
}

/** @returns how many rows there are @throws {UserError} for the first table that differs */
async function compare(copy: Copy, tables: readonly Matched[], target: Target): Promise<number> {
  let total = 0;
  for (const { name, into } of tables) {
    const names = into.map((column) => column.name);
    const source = digestOf(read(copy, name, names, into));
    const moved = await target.digest(name, into);
    if (source.rows !== moved.rows) {
      throw new UserError(`${name}: D1 has ${source.rows} rows, PostgreSQL ${moved.rows}. Begin anew with --restart.`);
    }
    if (source.digest !== moved.digest) {
      throw new UserError(`${name}: the rows in PostgreSQL are not those of D1. Begin anew with --restart.`);
    }
    if (name === 'users' && (await target.countedUsers()) !== source.rows) {
      throw new UserError('PostgreSQL counts another number of users than there are. Begin anew with --restart.');
    }
    total += source.rows;
  }
  return total;
}

function* read(copy: Copy, table: string, names: readonly string[], columns: readonly Column[]) {
  for (const stored of copy.all(table, names)) {
    yield stored.map((value, index) => toPostgres(value, columns[index]!, `${table}.${names[index]}`));
  }
}
