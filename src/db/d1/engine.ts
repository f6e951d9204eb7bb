import type { D1Database } from '@cloudflare/workers-types';
import type { Column, SQL, SQLWrapper } from 'drizzle-orm';
import { sql } from 'drizzle-orm';
import type { BatchItem, BatchResponse } from 'drizzle-orm/batch';
import { drizzle } from 'drizzle-orm/d1';
import type { DrizzleD1Database } from 'drizzle-orm/d1';
import { integer } from 'drizzle-orm/sqlite-core';

import type { Connection } from '../connection';
import { primaryOf } from './binding';

/**
 * The engine is D1. Everything else gets it as `#db` (package.json, `imports`), so that no module beside this folder knows a dialect.
 */
export { index, integer, primaryKey, sqliteTable as table, text, unionAll, uniqueIndex } from 'drizzle-orm/sqlite-core';

/** Any table, and any of its columns. */
export type { SQLiteColumn as TableColumn, SQLiteTable as Table } from 'drizzle-orm/sqlite-core';

export type Drizzle = DrizzleD1Database;
export type Statement = BatchItem<'sqlite'>;
/** The rows that each statement of a batch returns. */
export type BatchResults<S extends readonly Statement[]> = BatchResponse<S>;

/** A column of numbers that the database gives in the order of insertion, none twice. */
export const autoNumber = (name: string) => integer(name).primaryKey({ autoIncrement: true });

/** The binding that the Worker's environment has for this engine. */
export type Binding = D1Database;
export const BINDING = 'DB';
export const BINDING_KIND = 'a D1 database';
/** What metrics and traces call it (https://opentelemetry.io/docs/specs/semconv/database/). */
export const SYSTEM_NAME = 'sqlite';

export function open(binding: Binding): Connection<Drizzle, Statement> {
  const db = drizzle(primaryOf(binding));
  return {
    drizzle: db,
    // D1 runs one batch after the other: numbers need no care.
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

/** Tells where a part begins in a text, from 1; 0: nowhere. */
export const POSITION_FUNCTION = 'instr';
/** Where a text begins in another one, from 1; 0: nowhere. */
export const positionOf = (part: Operand, text: SQLWrapper): SQL<number> =>
  sql`${sql.raw(POSITION_FUNCTION)}(${text}, ${part})`;

/** A JSON object as text. */
export const jsonObject = (members: Readonly<Record<string, Operand>>): SQL<string> =>
  sql`json_object(${list(Object.entries(members).flatMap(([name, value]) => [sql.raw(`'${name}'`), value]))})`;

/** A JSON object of all rows of a query, as text: an aggregate. */
export const jsonMap = (key: SQLWrapper, value: SQLWrapper): SQL<string> => sql`json_group_object(${key}, ${value})`;

/** In the column list of INSERT … SELECT: the number that the database gives. */
export const nextNumber = (_column: Column): SQL<number> => sql`null`;

/** A bound value where the engine cannot tell its type from what stands beside it. */
export const asText = (value: string | null): SQL<string> => sql`${value}`;
export const asNumber = (value: number | null): SQL<number> => sql`${value}`;

const list = (values: readonly Operand[]) =>
  sql.join(
    values.map((value) => sql`${value}`),
    sql`, `,
  );
