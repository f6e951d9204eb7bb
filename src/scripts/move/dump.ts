import { createReadStream } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

import { quoted } from './values.ts';
import type { Query, Row } from './values.ts';

/** Statements of one transaction. */
const LOT = 10_000;

/**
 * Loads the rows that `wrangler d1 export --no-schema` has written into a new SQLite file. Without triggers: what they would
 * count is among the rows.
 *
 * @param tables the CREATE TABLE statements
 * @param numbers rows of `sqlite_sequence`: the last number that each table has given
 */
export async function loadDump(
  dump: string,
  path: string,
  { tables, numbers }: { tables: readonly string[]; numbers: readonly Readonly<Record<string, unknown>>[] },
): Promise<void> {
  using database = new DatabaseSync(path);
  database.exec('pragma journal_mode = off; pragma synchronous = off; pragma foreign_keys = off');
  for (const sql of tables) database.exec(sql);
  let loaded = 0;
  database.exec('begin');
  for await (const statement of statementsOf(createReadStream(dump, 'utf8'))) {
    // The numbers come from `numbers`; other statements are settings of the connection.
    if (!/^insert\s/i.test(statement) || /^insert into "?sqlite_sequence"?/i.test(statement)) continue;
    database.exec(statement);
    loaded += 1;
    if (loaded % LOT === 0) database.exec('commit; begin');
  }
  database.exec('delete from sqlite_sequence');
  const number = database.prepare('insert into sqlite_sequence (name, seq) values (?, ?)');
  for (const { name, seq } of numbers) number.run(String(name), Number(seq));
  database.exec('commit');
}

/** The statements of a dump without triggers: a semicolon outside of quotes ends one. */
export async function* statementsOf(chunks: AsyncIterable<string>): AsyncGenerator<string> {
  let pending = '';
  let quote = '';
  for await (const chunk of chunks) {
    let start = 0;
    for (const { 0: mark, index } of chunk.matchAll(/['"`;]/g)) {
      // A doubled quote ends the text and begins it again, which is the same.
      if (quote !== '') quote = mark === quote ? '' : quote;
      else if (mark !== ';') quote = mark;
      else {
        yield (pending + chunk.slice(start, index)).trim();
        pending = '';
        start = index + 1;
      }
    }
    pending += chunk.slice(start);
  }
  if (pending.trim() !== '') yield pending.trim();
}

/**
 * An export writes a line break as `\n` and turns it back with `replace()`, which also turns a backslash and an n that stood in the
 * text. Such texts, which any user may have as a name, are asked for once more.
 *
 * @param query asks the exported database
 */
export async function repairTexts(path: string, query: Query): Promise<void> {
  using database = new DatabaseSync(path);
  const names = database
    .prepare(`select name from sqlite_schema where type = 'table'`)
    .all()
    .map((row) => String(row['name']));
  const tables = names
    .filter((name) => !/^(?:sqlite_|_cf_)/.test(name))
    .map((name) => {
      const columns = database.prepare('select name, type, pk from pragma_table_info(?)').all(name);
      const named = (rows: typeof columns) => rows.map((row) => String(row['name']));
      return {
        name,
        key: named(columns.filter(({ pk }) => pk !== 0)),
        texts: named(columns.filter(({ type }) => /text/i.test(String(type)))),
      };
    })
    .filter(({ key, texts }) => key.length > 0 && texts.length > 0);
  const results = await query(
    tables.map(({ name, key, texts }) => {
      const listed = [...new Set([...key, ...texts])].map(quoted).join(', ');
      const doubtful = texts.map((text) => String.raw`instr(${quoted(text)}, '\n') + instr(${quoted(text)}, '\r') > 0`);
      return `select ${listed} from ${quoted(name)} where ${doubtful.join(' or ')}`;
    }),
  );
  for (const [index, { name, key, texts }] of tables.entries()) {
    const equal = (columns: readonly string[]) => columns.map((column) => `${quoted(column)} = ?`);
    const update = database.prepare(
      `update ${quoted(name)} set ${equal(texts).join(', ')} where ${equal(key).join(' and ')}`,
    );
    for (const row of results[index] as Row[]) update.run(...[...texts, ...key].map((column) => row[column]!));
  }
}
