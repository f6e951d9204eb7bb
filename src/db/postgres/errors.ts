import { ConstraintViolation, DatabaseError, DatabaseUnavailable, StatementMistake } from '../errors';
import type { Constraint } from '../errors';
import { shapeOf, withoutValues } from '../shape';

/** Class 23 of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
const CONSTRAINTS: Readonly<Record<string, Constraint>> = {
  '23505': 'unique',
  '23503': 'foreign-key',
  '23502': 'not-null',
  '23514': 'check',
};
/** Serialization failure or deadlock: a retry of the same transaction may succeed. */
const CONFLICTS: ReadonlySet<string> = new Set(['40001', '40P01']);
/** Too many connections, no memory or no disk space: retries must be slower. */
const OVERLOADED = /^53/;
/** Wrong data, syntax, names or permissions, or a server limit exceeded. */
const MISTAKES = /^(?:0A|21|22|26|34|42|54)/;

/** Whether the server ended the transaction because of a conflict with another one. */
export const isConflict = (error: unknown): boolean => CONFLICTS.has(codeOf(error) ?? '');

/**
 * Classifies an error of the driver. The server's `detail` quotes values, so it is dropped. Errors without an SQLSTATE come
 * from the connection.
 */
export function postgresError(error: unknown, sql: readonly string[]): DatabaseError {
  if (error instanceof DatabaseError) return error;
  const code = codeOf(error);
  const message = error instanceof Error ? withoutValues(error.message) : '';
  const fields = { code, message, statement: sql.map(shapeOf).join('; ').slice(0, 1_000) };
  if (code?.startsWith('23') === true) return new ConstraintViolation(CONSTRAINTS[code] ?? 'other', fields);
  if (code !== undefined && (CONFLICTS.has(code) || OVERLOADED.test(code))) {
    return new DatabaseUnavailable('overloaded', { ...fields, overloaded: true });
  }
  if (code !== undefined && MISTAKES.test(code)) return new StatementMistake(fields);
  return new DatabaseUnavailable(code ?? 'failed', fields);
}

/** The five characters of an SQLSTATE. */
function codeOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' && /^[\dA-Z]{5}$/.test(code) ? code : undefined;
}
