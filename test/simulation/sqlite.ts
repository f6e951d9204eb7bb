import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

// Not an import: Vite does not know this built-in module yet.
const { DatabaseSync } = process.getBuiltinModule('node:sqlite');
type Sqlite = InstanceType<typeof DatabaseSync>;
type Prepared = ReturnType<Sqlite['prepare']>;

const MIGRATIONS = fileURLToPath(new URL('../../src/db/migrations', import.meta.url));

export interface Query {
  sql: string;
  values: readonly unknown[];
}

export interface QueryResult {
  columns: string[];
  /** Values in the order of the columns. */
  rows: unknown[][];
  changes: number;
}

export interface TableRows {
  table: string;
  rows: ReturnType<Prepared['all']>;
}

/** The product's schema on SQLite in memory. One serves all runs of a process, one after the other. */
export class SqlStore {
  readonly #db: Sqlite = new DatabaseSync(':memory:');
  readonly #prepared = new Map<string, Prepared>();
  readonly #tables: string[];
  /** What the migrations themselves put in. */
  readonly #initial: TableRows[];

  constructor() {
    for (const file of readdirSync(MIGRATIONS)
      .filter((name) => name.endsWith('.sql'))
      .sort()) {
      this.#db.exec(readFileSync(`${MIGRATIONS}/${file}`, 'utf8'));
    }
    const found = this.#db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
    this.#tables = found.map(({ name }) => String(name));
    this.#initial = this.copy();
  }

  /** As the migrations leave it, numbers that were given out included. */
  reset(): void {
    this.load(this.#initial);
  }

  /** As one transaction: all or nothing. @throws SQLite's own error */
  run(queries: readonly Query[]): QueryResult[] {
    if (queries.length === 1) return [this.#runOne(queries[0]!)];
    this.#db.exec('BEGIN');
    try {
      const results = queries.map((query) => this.#runOne(query));
      this.#db.exec('COMMIT');
      return results;
    } catch (error) {
      this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** All rows, for a recovery or a replica. */
  copy(): TableRows[] {
    return this.#tables.map((table) => ({ table, rows: this.#db.prepare(`SELECT * FROM "${table}"`).all() }));
  }

  load(copies: readonly TableRows[]): void {
    for (const table of this.#tables) this.#db.exec(`DELETE FROM "${table}"`);
    for (const { table, rows } of copies) {
      for (const row of rows) {
        const names = Object.keys(row);
        const insert = `INSERT INTO "${table}" (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`;
        this.#db.prepare(insert).run(...Object.values(row));
      }
    }
  }

  #runOne({ sql, values }: Query): QueryResult {
    let statement = this.#prepared.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      statement.setReturnArrays(true);
      this.#prepared.set(sql, statement);
    }
    const bound = values.map((value) => (typeof value === 'boolean' ? Number(value) : value)) as never[];
    const columns = statement.columns().map(({ name }) => name);
    if (columns.length === 0) return { columns, rows: [], changes: Number(statement.run(...bound).changes) };
    return { columns, rows: statement.all(...bound) as unknown as unknown[][], changes: 0 };
  }
}
