import { getTableName, sql } from 'drizzle-orm';
import type { Column, SQL, SQLWrapper } from 'drizzle-orm';
import type { BatchItem, BatchResponse } from 'drizzle-orm/batch';
import { bigint, bigserial } from 'drizzle-orm/pg-core';
import { drizzle } from 'drizzle-orm/pg-proxy';
import type { PgRemoteDatabase } from 'drizzle-orm/pg-proxy';

import type { BatchOptions, Connection } from '../connection';
import { createClient } from './client';
import { recordingOf } from './recording';
import { inTransaction } from './transaction';

/**
 * The PostgreSQL engine, chosen by the build condition `postgres` (package.json, `imports`). It exports the same names as
 * the D1 engine.
 */
export { index, pgTable as table, primaryKey, text, unionAll, uniqueIndex } from 'drizzle-orm/pg-core';

/** Any table, and a column of any table. */
export type { PgColumn as TableColumn, PgTable as Table } from 'drizzle-orm/pg-core';

export type Drizzle = PgRemoteDatabase;
export type Statement = BatchItem<'pg'>;
/** The rows that each statement of a batch returns. */
export type BatchResults<S extends readonly Statement[]> = BatchResponse<S>;

/** Milliseconds since the epoch do not fit into PostgreSQL's own `integer`. */
export const integer = (name: string) => bigint(name, { mode: 'number' });

/** A column that the database numbers in the order of insertion. No number is given twice. */
export const autoNumber = (name: string) => bigserial(name, { mode: 'number' }).primaryKey();

/** The Worker's binding for this engine: Hyperdrive, or a server's own address. */
export interface Binding {
  connectionString: string;
}
export const BINDING = 'HYPERDRIVE';
export const BINDING_KIND = 'a Hyperdrive configuration';
/** The name of the system in metrics and traces (https://opentelemetry.io/docs/specs/semconv/database/). */
export const SYSTEM_NAME = 'postgresql';

const CACHED =
  'Hyperdrive caches queries, and would serve what was revoked: npx wrangler hyperdrive update ID --caching-disabled';

/** Opens a connection for one request. Another request must not use its socket. */
export function open({ connectionString }: Binding): Connection<Drizzle, Statement> {
  const client = createClient(connectionString);
  return {
    drizzle: drizzle(async (text, values, method) => {
      const query = { text, values, isArray: method === 'all' };
      // A single reading statement is consistent without a transaction. A writing one must be serializable with other
      // transactions.
      const [rows] = text.startsWith('select ') ? [await client.query(query)] : await inTransaction(client, [query]);
      return { rows: rows ?? [] };
    }),
    async batch(make, options) {
      const recording = recordingOf();
      const outcomes = await recording.of(make(drizzle(recording.record)));
      if (outcomes.length === 0) return [];
      const { before, after } = around(options);
      const results = await inTransaction(client, recording.queries, { before, after });
      recording.resolve(results);
      return Promise.all(outcomes);
    },
    async check() {
      // Read the server's clock twice: only a cache returns the same time again.
      const read = async () =>
        JSON.stringify(await client.query({ text: 'select "now" from "clock"', values: [], isArray: true }));
      return (await read()) === (await read()) ? CACHED : undefined;
    },
    abandon: () => client.abandon(),
    close: () => client.close(),
  };
}

/**
 * A sequence assigns numbers before transactions commit, so a smaller number may become visible after a larger one. Writers
 * lock the table until they commit; a batch that must see every assigned number waits for them.
 */
function around({ settled, renumbered, alongIndex = false }: BatchOptions = {}) {
  const before: string[] = [];
  const after: string[] = [];
  // During a backlog the server's statistics are outdated. It expects fewer rows than LIMIT, and would read and sort all of
  // them.
  if (alongIndex) before.push('set local enable_sort = off');
  if (settled !== undefined) before.push(`lock table "${getTableName(settled)}" in share mode`);
  if (renumbered !== undefined) {
    const name = getTableName(renumbered);
    before.push(`lock table "${name}" in share row exclusive mode`);
    after.push(
      `select setval('${name}_seq_seq', greatest((select max(seq) from "${name}"), (select last_value from ${name}_seq_seq)))`,
    );
  }
  return { before, after };
}

/** Any number of values as one bound parameter, for IN. */
export const anyOf = (values: readonly (number | string)[]): SQL => {
  const isNumbers = values.every((value) => typeof value === 'number');
  const type = sql.raw(isNumbers && values.length > 0 ? 'bigint' : 'text');
  return sql`(select value::${type} from jsonb_array_elements_text(${JSON.stringify(values)}::jsonb) as value)`;
};

/** Rows of texts as one bound parameter, for FROM. */
export const rowsOf = <Name extends string>(
  alias: string,
  names: readonly Name[],
  rows: readonly Readonly<Record<Name, string>>[],
): SQL => {
  const columns = names.map((name) => sql`${sql.identifier(name)} text`);
  return sql`jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as ${sql.identifier(alias)} (${sql.join(columns, sql`, `)})`;
};

type Operand = SQLWrapper | number | string | null;

/** The largest of several values, none of them null. */
export const greatest = (...values: readonly Operand[]): SQL<number> => sql`greatest(${list(values)})`;
/** The smallest of several values, none of them null. */
export const least = (...values: readonly Operand[]): SQL<number> => sql`least(${list(values)})`;

/** SQL function that returns the position of a text in another one, from 1; 0: not found. */
export const POSITION_FUNCTION = 'strpos';
/** The position of `part` in `text`, from 1; 0: not found. */
export const positionOf = (part: Operand, text: SQLWrapper): SQL<number> =>
  sql`${sql.raw(POSITION_FUNCTION)}(${text}, ${part})`;

/** A JSON object as text. */
export const jsonObject = (members: Readonly<Record<string, Operand>>): SQL<string> => {
  const parts = Object.entries(members).flatMap(([name, value]) => [sql.raw(`'${name}'`), typed(value)]);
  return sql`json_build_object(${sql.join(parts, sql`, `)})::text`;
};

/** Aggregates all rows of a query into one JSON object, as text. */
export const jsonMap = (key: SQLWrapper, value: SQLWrapper): SQL<string> =>
  sql`coalesce(json_object_agg(${key}, ${value})::text, '{}')`;

/** For the column list of INSERT … SELECT: lets the database assign the number. */
export const nextNumber = (column: Column): SQL<number> =>
  sql`nextval(${sql.raw(`'${getTableName(column.table)}_${column.name}_seq'`)})`;

/** A bound value, typed as text for an engine that cannot infer the type from the context. */
export const asText = (value: string | null): SQL<string> => sql`${value}::text`;
export const asNumber = (value: number | null): SQL<number> => sql`${value}::bigint`;

function typed(value: Operand): SQL {
  if (typeof value === 'number') return asNumber(value);
  return typeof value === 'string' || value === null ? asText(value) : sql`${value}`;
}

const list = (values: readonly Operand[]) =>
  sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
