import type { D1Database } from '@cloudflare/workers-types';
import type { Column, SQL, SQLWrapper } from 'drizzle-orm';
import { sql } from 'drizzle-orm';
import type { BatchItem, BatchResponse } from 'drizzle-orm/batch';
import { drizzle } from 'drizzle-orm/d1';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { integer } from 'drizzle-orm/sqlite-core';

import type { Connection } from '../connection';
import { primaryOf } from './binding';

/** The D1 engine. Other modules import it as `#db` (package.json, `imports`), so only this folder depends on a dialect. */
export { index, integer, primaryKey, sqliteTable as table, text, unionAll, uniqueIndex } from 'drizzle-orm/sqlite-core';

/** Any table, and a column of any table. */
export type { SQLiteColumn as TableColumn, SQLiteTable as Table } from 'drizzle-orm/sqlite-core';

export type Drizzle = DrizzleD1Database;
export type Statement = BatchItem<'sqlite'>;
/** The rows that each statement of a batch returns. */
export type BatchResults<S extends readonly Statement[]> = BatchResponse<S>;

/** A column that the database numbers in the order of insertion. No number is given twice. */
export const autoNumber = (name: string) => integer(name).primaryKey({ autoIncrement: true });

/** The Worker's binding for this engine. */
export type Binding = D1Database;
export const BINDING = 'DB';
export const BINDING_KIND = 'a D1 database';
/** The name of the system in metrics and traces (https://opentelemetry.io/docs/specs/semconv/database/). */
export const SYSTEM_NAME = 'sqlite';

export function open(binding: Binding): Connection<Drizzle, Statement> {
  const db = drizzle(primaryOf(binding));
  return {
    drizzle: db,
    // D1 runs batches one after the other, so numbers become visible in their order without a lock.
    async batch(make) {
      const [first, ...rest] = make(db);
      return first === undefined ? [] : db.batch([first, ...rest]);
    },
  };
}

/** Any number of values as one bound parameter, for IN: D1 binds at most 100 a statement. */
export const anyOf = (values: readonly (number | string)[]): SQL =>
  sql`(select value from json_each(${JSON.stringify(values)}))`;

/** Rows of texts as one bound parameter, for FROM. */
export const rowsOf = <Name extends string>(
  alias: string,
  names: readonly Name[],
  rows: readonly Readonly<Record<Name, string>>[],
): SQL => {
  const columns = names.map((name) => sql`value ->> ${sql.raw(`'${name}'`)} as ${sql.identifier(name)}`);
  return sql`(select ${sql.join(columns, sql`, `)} from json_each(${JSON.stringify(rows)})) as ${sql.identifier(alias)}`;
};

type Operand = SQLWrapper | number | string | null;

/** The largest of several values, none of them null. */
export const greatest = (...values: readonly Operand[]): SQL<number> => sql`max(${list(values)})`;
/** The smallest of several values, none of them null. */
export const least = (...values: readonly Operand[]): SQL<number> => sql`min(${list(values)})`;

/** SQL function that returns the position of a text in another one, from 1; 0: not found. */
export const POSITION_FUNCTION = 'instr';
/** The position of `part` in `text`, from 1; 0: not found. */
export const positionOf = (part: Operand, text: SQLWrapper): SQL<number> =>
  sql`${sql.raw(POSITION_FUNCTION)}(${text}, ${part})`;

/** A JSON object as text. */
export const jsonObject = (members: Readonly<Record<string, Operand>>): SQL<string> =>
  sql`json_object(${list(Object.entries(members).flatMap(([name, value]) => [sql.raw(`'${name}'`), value]))})`;

/** Aggregates all rows of a query into one JSON object, as text. */
export const jsonMap = (key: SQLWrapper, value: SQLWrapper): SQL<string> => sql`json_group_object(${key}, ${value})`;

/** For the column list of INSERT … SELECT: lets the database assign the number. */
export const nextNumber = (_column: Column): SQL<number> => sql`null`;

/** A bound value, typed as text for an engine that cannot infer the type from the context. */
export const asText = (value: string | null): SQL<string> => sql`${value}`;
export const asNumber = (value: number | null): SQL<number> => sql`${value}`;

const list = (values: readonly Operand[]) =>
  sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
