import { Client, DatabaseError } from 'pg';

import { UserError } from '../cli.ts';
import { missingMigrations } from '../postgresMigrations.ts';
import { digestSql, isMovable, quoted } from './values.ts';
import type { Column } from './values.ts';

/** The progress of a run, written in the same transactions as the rows. */
export interface Run {
  /** Names the copy of D1 that it loads. */
  copy: string;
  /** The copy is complete. */
  isCopied: boolean;
  isFinished: boolean;
  /** By table: the id of the last row that was loaded, how many were, and whether the table is complete. */
  progress: ReadonlyMap<string, TableProgress>;
}

export interface TableProgress {
  last: bigint;
  rows: number;
  done: boolean;
}

export type Target = Awaited<ReturnType<typeof openTarget>>;

/** Any number, as long as no other program uses it: one run at a time. */
const LOCK = 0x6a7e_0019;
const OWN = 'gatehouse_move';

/** @throws {UserError} which shows neither the address nor a value */
export async function openTarget(url: string) {
  const client = new Client({ connectionString: url });
  // A connection may break between two queries: the next query then fails with the error.
  client.on('error', () => undefined);
  const ask = async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> => {
    try {
      return (await client.query<Record<string, unknown>>(text, values)).rows;
    } catch (error) {
      throw plain(error);
    }
  };
  try {
    await client.connect();
  } catch (error) {
    throw plain(error, 'PostgreSQL cannot be reached');
  }

  async function transaction(work: () => Promise<void>): Promise<void> {
    await ask('begin');
    try {
      await work();
      await ask('commit');
    } catch (error) {
      // Of a connection that is lost the server rolls back by itself.
      await client.query('rollback').catch(() => undefined);
      throw error;
    }
  }

  const note = (table: string, { last, rows, done }: TableProgress) =>
    ask(
      `insert into ${OWN}.progress values ($1, $2, $3, $4)
       on conflict (name) do update set last = excluded.last, rows = excluded.rows, done = excluded.done`,
      [table, String(last), rows, done],
    );

  return {
    close: () => client.end().catch(() => undefined),

    /** @throws {UserError} while another run is at work, or when the database is not ready */
    async prepare(): Promise<void> {
      const [lock] = await ask('select pg_try_advisory_lock($1) as mine', [LOCK]);
      if (lock?.['mine'] !== true) throw new UserError('Another run of this command is at work on this database.');
      const [server] = await ask(`select current_setting('server_encoding') as encoding`);
      if (server?.['encoding'] !== 'UTF8') throw new UserError('The PostgreSQL database must have the encoding UTF8.');
      if ((await missingMigrations(client)).length > 0) {
        throw new UserError('The PostgreSQL database does not have all migrations: run npm run db:migrate first.');
      }
    },

    /** Tables and the columns that values are written to. */
    async tables(): Promise<ReadonlyMap<string, readonly Column[]>> {
      const rows = await ask(
        `select c.table_name as "table", c.column_name as "name", c.udt_name as "type"
         from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
         where c.table_schema = 'public' and t.table_type = 'BASE TABLE' order by c.table_name, c.ordinal_position`,
      );
      const tables = new Map<string, Column[]>();
      for (const row of rows) {
        const [table, name, type] = [String(row['table']), String(row['name']), String(row['type'])];
        if (!isMovable(type)) throw new UserError(`${table}.${name} is ${type}: this command does not move that type.`);
        tables.set(table, [...(tables.get(table) ?? []), { name, type }]);
      }
      return tables;
    },

    async run(): Promise<Run | undefined> {
      const [known] = await ask(`select to_regclass('${OWN}.run') is not null as has`);
      if (known?.['has'] !== true) return undefined;
      const [run] = await ask(`select copy, copied, finished from ${OWN}.run`);
      if (run === undefined) return undefined;
      const rows = await ask(`select name, last::text, rows::int8::text, done from ${OWN}.progress`);
      const progress = new Map(
        rows.map((row) => [
          String(row['name']),
          { last: BigInt(String(row['last'])), rows: Number(row['rows']), done: row['done'] === true },
        ]),
      );
      return {
        copy: String(run['copy']),
        isCopied: run['copied'] === true,
        isFinished: run['finished'] === true,
        progress,
      };
    },

    /** @throws {UserError} when a table has rows */
    async begin(copy: string, tables: readonly string[]): Promise<void> {
      for (const table of tables) {
        // The migrations put its one row there.
        const own = table === 'redis_state' ? ' where beat > 0' : '';
        const [row] = await ask(`select exists (select 1 from ${quoted(table)}${own}) as has`);
        if (row?.['has'] === true) {
          throw new UserError(`The PostgreSQL database has rows in ${table} already: take one that is empty.`);
        }
      }
      await transaction(async () => {
        await ask(`create schema ${OWN}`);
        await ask(
          `create table ${OWN}.run (copy text not null, copied boolean not null default false, finished boolean not null default false)`,
        );
        await ask(
          `create table ${OWN}.progress (name text primary key, last int8 not null, rows int8 not null, done boolean not null)`,
        );
        await ask(`insert into ${OWN}.run (copy) values ($1)`, [copy]);
        await ask('delete from redis_state');
      });
    },

    async copied(): Promise<void> {
      await ask(`update ${OWN}.run set copied = true`);
    },

    /** Empties the tables that an unfinished run has filled, and forgets it. */
    async undo(tables: readonly string[]): Promise<void> {
      await transaction(async () => {
        await ask(`truncate ${[...tables, 'counter_changes'].map(quoted).join(', ')} restart identity`);
        await ask('insert into redis_state (id) values (1)');
        await ask(`drop schema ${OWN} cascade`);
      });
    },

    /** Rows of a table, and how far it is, as one transaction. */
    async load(
      table: string,
      columns: readonly Column[],
      rows: readonly (readonly (string | null)[])[],
      progress: TableProgress,
    ): Promise<void> {
      const names = columns.map(({ name }) => quoted(name)).join(', ');
      const arrays = columns.map(({ type }, index) => `$${index + 1}::${type}[]`).join(', ');
      const values = columns.map((_column, index) => rows.map((row) => row[index]));
      await transaction(async () => {
        await ask(`insert into ${quoted(table)} (${names}) select * from unnest(${arrays})`, values);
        await note(table, progress);
      });
    },

    /** The table is complete: numbers that it gives from now on are larger than any that D1 has given. */
    async complete(table: string, columns: readonly Column[], lastNumber: number, progress: TableProgress) {
      await transaction(async () => {
        for (const { name } of columns) {
          const [found] = await ask('select pg_get_serial_sequence($1, $2) as sequence', [quoted(table), name]);
          if (typeof found?.['sequence'] !== 'string') continue;
          await ask(
            `select setval($1::regclass, greatest(last, 1), last > 0)
             from (select greatest($2::int8, (select max(${quoted(name)}) from ${quoted(table)})) as last) as numbers`,
            [found['sequence'], lastNumber],
          );
        }
        await note(table, progress);
      });
    },

    async digest(table: string, columns: readonly Column[]): Promise<{ rows: number; digest: string }> {
      const [row] = await ask(digestSql(table, columns));
      return { rows: Number(row?.['rows']), digest: String(row?.['digest']) };
    },

    /** The number of users as the Worker reads it. */
    async countedUsers(): Promise<number> {
      const [row] = await ask(`select value::text from counters where name = 'users'`);
      return Number(row?.['value']);
    },

    async finish(): Promise<void> {
      await ask(`update ${OWN}.run set finished = true`);
      // The plans of the first requests would be made without statistics.
      await ask('analyze');
    },
  };
}

/** The server's messages quote values, those of the connection its address: only the code is shown. */
function plain(error: unknown, what = 'PostgreSQL failed'): UserError {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  const shown = typeof code === 'string' && /^\w+$/.test(code) ? ` (${code})` : '';
  const { table } = error instanceof DatabaseError ? error : {};
  const place = table === undefined ? '' : ` at ${table}`;
  return new UserError(`${what}${place}${shown}. The same command goes on where this one has stopped.`);
}
