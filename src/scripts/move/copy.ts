import { DatabaseSync } from 'node:sqlite';

import type { Live } from './live.ts';
import { quoted } from './values.ts';
import type { Row, Stored } from './values.ts';

export interface SourceTable {
  name: string;
  columns: readonly string[];
  rows: number;
}

export interface CopiedRow {
  rowid: bigint;
  values: readonly Stored[];
}

/** A copy of the D1 database that no longer changes. */
export interface Copy extends Disposable {
  tables: readonly SourceTable[];
  /** Rows in the order of their ids, after one of them. */
  lot(table: string, columns: readonly string[], after: bigint, size: number): CopiedRow[];
  /** All rows, one after the other. */
  all(table: string, columns: readonly string[]): Iterable<readonly Stored[]>;
  /** The last number that the table has given to a row, deleted ones included. */
  lastNumber(table: string): number;
  query(statements: readonly string[]): Row[][];
}

/** Of SQLite and Cloudflare; `counters` is a view in PostgreSQL, which counts by itself. */
const OTHERS = /^(?:sqlite_|_cf_|d1_migrations$|counters$)/;

export function openCopy(path: string): Copy {
  const database = new DatabaseSync(path, { readOnly: true });
  const names = (database.prepare(`select name from sqlite_schema where type = 'table' order by name`).all() as Row[])
    .map(({ name }) => String(name))
    .filter((name) => !OTHERS.test(name));
  const tables = names.map((name) => {
    const columns = database.prepare(`select name from pragma_table_info(?)`).all(name) as Row[];
    const counted = database.prepare(`select count(*) as n from ${quoted(name)}`).get() as Row;
    return { name, columns: columns.map((column) => String(column['name'])), rows: Number(counted['n']) };
  });
  const listed = (columns: readonly string[]) => columns.map(quoted).join(', ');
  const reading = (sql: string) => {
    const statement = database.prepare(sql);
    statement.setReadBigInts(true);
    statement.setReturnArrays(true);
    return statement;
  };
  return {
    tables,
    lot(table, columns, after, size) {
      const sql = `select rowid, ${listed(columns)} from ${quoted(table)} where rowid > ? order by rowid limit ?`;
      const rows = reading(sql).all(after, size) as unknown as [bigint, ...Stored[]][];
      return rows.map(([rowid, ...values]) => ({ rowid, values }));
    },
    *all(table, columns) {
      yield* reading(`select ${listed(columns)} from ${quoted(table)}`).iterate() as unknown as Iterable<Stored[]>;
    },
    lastNumber(table) {
      const has = database.prepare(`select 1 from sqlite_schema where name = 'sqlite_sequence'`).get();
      if (has === undefined) return 0;
      const row = database.prepare('select seq from sqlite_sequence where name = ?').get(table) as Row | undefined;
      return Number(row?.['seq'] ?? 0);
    },
    query: (statements) => statements.map((sql) => database.prepare(sql).all() as Row[]),
    [Symbol.dispose]: () => database.close(),
  };
}

/** Changes between checks that must not be; the scheduled run writes `redis_state` each minute. */
export async function hasChanged(live: Live, copy: Copy): Promise<boolean> {
  const statements = copy.tables
    .filter(({ name }) => name !== 'redis_state')
    .map(({ name, columns }) => {
      const parts = columns.map(
        (column) =>
          `coalesce(length(${quoted(column)}), 0) + coalesce(cast(${quoted(column)} as integer) % 1000003, 0)`,
      );
      return `select count(*) as n, coalesce(sum(${parts.join(' + ')}), 0) as total from ${quoted(name)}`;
    });
  return JSON.stringify(await live.query(statements)) !== JSON.stringify(copy.query(statements));
}
