import { fileURLToPath } from 'node:url';
import { PGlite } from '@electric-sql/pglite';
import { drizzle } from 'drizzle-orm/pglite';
import { migrate } from 'drizzle-orm/pglite/migrator';

import { query, responseOf } from './wire.ts';
import type { Response } from './wire.ts';

const MIGRATIONS = fileURLToPath(new URL('../../src/db/postgres/migrations', import.meta.url));

/** Only one client is there, and nothing outlives the process. */
const SETTINGS = ['fsync=off', 'full_page_writes=off', 'wal_level=minimal', 'max_wal_senders=0', 'shared_buffers=16MB'];

/** Its write-ahead log grows until CHECKPOINT is called. */
const RESETS_PER_CHECKPOINT = 50;

interface Sequence {
  name: string;
  last: string;
  isCalled: boolean;
}

/** All rows, and the numbers that were given out. */
interface Copy {
  tables: { table: string; rows: string }[];
  sequences: Sequence[];
}

/**
 * PostgreSQL in this process, with the product's schema: compiled to WebAssembly (PGlite), it replies before a call returns. It
 * has one session. One serves all runs of a process, one after the other.
 */
export class PostgresStore {
  readonly #pglite: PGlite;
  readonly #tables: string[];
  /** What the migrations themselves put in. */
  readonly #initial: Copy;
  #resets = 0;

  static async start(): Promise<PostgresStore> {
    const pglite = await PGlite.create({ postgresqlconf: SETTINGS });
    await migrate(drizzle({ client: pglite }), { migrationsFolder: MIGRATIONS });
    return new PostgresStore(pglite);
  }

  private constructor(pglite: PGlite) {
    this.#pglite = pglite;
    const found = this.execute("select tablename from pg_tables where schemaname = 'public' order by 1");
    this.#tables = found.map(([name]) => `"${name}"`);
    this.#initial = this.copy();
  }

  /** Replies to what a client sends. */
  respond(bytes: Uint8Array): Response {
    return responseOf(Buffer.from(this.#pglite.execProtocolRawSync(bytes)));
  }

  /** @returns its rows @throws the server's error */
  execute(sql: string): (string | null)[][] {
    const { rows, error } = this.respond(query(sql));
    if (error !== undefined) throw new Error(`PostgreSQL: ${error}: ${sql}`);
    return rows;
  }

  /** Lets the transaction that is under way fail, as the server itself does for its reasons. @param code the SQLSTATE */
  fail(code: string): Response {
    return this.respond(query(`do $$ begin raise exception 'simulated' using errcode = '${code}'; end $$`));
  }

  /** As the migrations leave it, numbers that were given out included. */
  reset(): void {
    this.load(this.#initial);
    // A trigger of the schema draws lots.
    this.execute('select setseed(0.5)');
    this.#resets += 1;
    if (this.#resets % RESETS_PER_CHECKPOINT === 0) this.execute('checkpoint');
  }

  copy(): Copy {
    const tables = this.#tables.map((table) => {
      const [[rows] = []] = this.execute(`select coalesce(json_agg(to_json(t)), '[]') from ${table} t`);
      return { table, rows: rows ?? '[]' };
    });
    const names = this.execute("select sequencename from pg_sequences where schemaname = 'public' order by 1");
    const sequences = names.map(([name]) => {
      const [[last, isCalled] = []] = this.execute(`select last_value, is_called from ${name}`);
      return { name: String(name), last: String(last), isCalled: isCalled === 't' };
    });
    return { tables, sequences };
  }

  load({ tables, sequences }: Copy): void {
    const loading = tables.map(
      ({ table, rows }) =>
        `insert into ${table} select * from json_populate_recordset(null::${table}, ${quoted(rows)})`,
    );
    const numbers = sequences.map(({ name, last, isCalled }) => `select setval('${name}', ${last}, ${isCalled})`);
    // Triggers have done their work when the rows were written first.
    const parts = ['begin', "set local session_replication_role = 'replica'", `truncate ${this.#tables.join(', ')}`];
    this.execute([...parts, ...loading, ...numbers, 'commit'].join('; '));
  }

  /** The process may end. */
  close(): Promise<void> {
    return this.#pglite.close();
  }
}

const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;
