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
 * PostgreSQL, where the build's condition `postgres` asks for it (package.json, `imports`): the same names as those of the
 * engine for D1.
 */
export { index, pgTable as table, primaryKey, text, unionAll, uniqueIndex } from 'drizzle-orm/pg-core';

/** Any table, and any of its columns. */
export type { PgColumn as TableColumn, PgTable as Table } from 'drizzle-orm/pg-core';

export type Drizzle = PgRemoteDatabase;
export type Statement = BatchItem<'pg'>;
/** The rows that each statement of a batch returns. */
export type BatchResults<S extends readonly Statement[]> = BatchResponse<S>;

/** Milliseconds do not fit into PostgreSQL's own `integer`. */
export const integer = (name: string) => bigint(name, { mode: 'number' });

/** A column of numbers that the database gives in the order of insertion, none twice. */
export const autoNumber = (name: string) => bigserial(name, { mode: 'number' }).primaryKey();

/** What the Worker's environment has for this engine: Hyperdrive's binding, or a server's own address. */
export interface Binding {
  connectionString: string;
}
export const BINDING = 'HYPERDRIVE';
export const BINDING_KIND = 'a Hyperdrive configuration';
/** What metrics and traces call it (https://opentelemetry.io/docs/specs/semconv/database/). */
export const SYSTEM_NAME = 'postgresql';

const CACHED =
  'Hyperdrive caches queries, and would serve what was revoked: npx wrangler hyperdrive update ID --caching-disabled';

/** For one request: a socket must not be used by another one. */
export function open({ connectionString }: Binding): Connection<Drizzle, Statement> {
  const client = createClient(connectionString);
  return {
    drizzle: drizzle(async (text, values, method) => {
      const query = { text, values, isArray: method === 'all' };
      // One statement that reads is consistent in itself; one that writes is a transaction with others of its kind.
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
      // A view of the server's own clock: only a cache gives the same time twice.
      const read = async () =>
        JSON.stringify(await client.query({ text: 'select "now" from "clock"', values: [], isArray: true }));
      return (await read()) === (await read()) ? CACHED : undefined;
    },
    abandon: () => client.abandon(),
    close: () => client.close(),
  };
}

/**
 * A sequence gives its numbers before transactions commit, so a smaller number may become visible after a larger one. Writers
 * hold a lock on the table until they commit; a batch that must see every number that was given waits for them.
 */
function around({ settled, renumbered, alongIndex = false }: BatchOptions = {}) {
  const before: string[] = [];
  const after: string[] = [];
  // The server's statistics are from before a backlog: it expects fewer rows than LIMIT, and would read all of them to sort them.
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

/** Tells where a part begins in a text, from 1; 0: nowhere. */
export const POSITION_FUNCTION = 'strpos';
/** Where a text begins in another one, from 1; 0: nowhere. */
export const positionOf = (part: Operand, text: SQLWrapper): SQL<number> =>
  sql`${sql.raw(POSITION_FUNCTION)}(${text}, ${part})`;

/** A JSON object as text. */
export const jsonObject = (members: Readonly<Record<string, Operand>>): SQL<string> => {
  const parts = Object.entries(members).flatMap(([name, value]) => [sql.raw(`'${name}'`), typed(value)]);
  return sql`json_build_object(${sql.join(parts, sql`, `)})::text`;
};

/** A JSON object of all rows of a query, as text: an aggregate. */
export const jsonMap = (key: SQLWrapper, value: SQLWrapper): SQL<string> =>
  sql`coalesce(json_object_agg(${key}, ${value})::text, '{}')`;

/** In the column list of INSERT … SELECT: the number that the database gives. */
export const nextNumber = (column: Column): SQL<number> =>
  sql`nextval(${sql.raw(`'${getTableName(column.table)}_${column.name}_seq'`)})`;

/** A bound value where the engine cannot tell its type from what stands beside it. */
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
