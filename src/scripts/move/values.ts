import { createHash } from 'node:crypto';

import { UserError } from '../cli.ts';

/** What SQLite has in a column, integers as bigint. */
export type Stored = string | bigint | number | null | Uint8Array;

/** A row as a query shows it. */
export type Row = Readonly<Record<string, string | number | null>>;
/** Runs statements on D1: one result for each. */
export type Query = (statements: readonly string[]) => Promise<Row[][]>;

export interface Column {
  name: string;
  /** PostgreSQL's name of its type, such as `int8`. */
  type: string;
}

const INTEGERS: ReadonlySet<string> = new Set(['int2', 'int4', 'int8']);
const TEXTS: ReadonlySet<string> = new Set(['text', 'varchar']);
export const isMovable = (type: string) => INTEGERS.has(type) || TEXTS.has(type) || type === 'bytea';

const REMEDY = 'Change it in D1, then run the command with --restart.';

/**
 * A value as PostgreSQL reads it.
 *
 * @param at the place, for the error: no value is shown
 * @throws {UserError} where the column cannot hold exactly this value
 */
export function toPostgres(value: Stored, { type }: Column, at: string): string | null {
  if (value === null) return null;
  if (INTEGERS.has(type) && typeof value === 'bigint') return String(value);
  if (type === 'bytea' && value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`;
  if (TEXTS.has(type) && typeof value === 'string') {
    if (value.includes('\0')) {
      throw new UserError(`${at} holds a NUL character, which PostgreSQL does not store. ${REMEDY}`);
    }
    return value;
  }
  throw new UserError(`${at} holds ${kindOf(value)}, and PostgreSQL’s column is ${type}. ${REMEDY}`);
}

function kindOf(value: Exclude<Stored, null>): string {
  if (typeof value === 'bigint') return 'an integer';
  if (typeof value === 'number') return 'a floating-point number';
  return typeof value === 'string' ? 'a text' : 'a blob';
}

/** Rows as one number that does not depend on their order: the sum of 60 bits of each row's SHA-256. */
export function digestOf(rows: Iterable<readonly (string | null)[]>): { rows: number; digest: string } {
  let [count, sum] = [0, 0n];
  for (const values of rows) {
    const text = values.map((value) => (value === null ? 'N;' : `${Buffer.byteLength(value)}:${value};`)).join('');
    sum += BigInt(`0x${createHash('sha256').update(text).digest('hex').slice(0, 15)}`);
    count += 1;
  }
  return { rows: count, digest: String(sum) };
}

/** The same of a table in PostgreSQL, as the columns `rows` and `digest`. */
export function digestSql(table: string, columns: readonly Column[]): string {
  const parts = columns.map(({ name, type }) => {
    const text = type === 'bytea' ? `('\\x' || encode(${quoted(name)}, 'hex'))` : `${quoted(name)}::text`;
    return `coalesce(octet_length(${text})::text || ':' || ${text} || ';', 'N;')`;
  });
  const hash = `encode(sha256(convert_to(${parts.join(' || ')}, 'UTF8')), 'hex')`;
  return `select count(*)::int8 as "rows", coalesce(sum(('x' || substr(${hash}, 1, 15))::bit(60)::int8), 0)::text as "digest"
    from ${quoted(table)}`;
}

/** An identifier, in both dialects. */
export const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;
