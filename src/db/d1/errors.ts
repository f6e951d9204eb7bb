import { ConstraintViolation, DatabaseUnavailable, StatementMistake, causesOf } from '../errors';
import type { Constraint, DatabaseError } from '../errors';
import { shapeOf, withoutValues } from '../shape';

/** How the messages of SQLite and D1 name each constraint. */
const CONSTRAINTS: readonly (readonly [RegExp, Constraint])[] = [
  [/UNIQUE constraint failed|SQLITE_CONSTRAINT_(?:UNIQUE|PRIMARYKEY|ROWID)/, 'unique'],
  [/FOREIGN KEY constraint failed|SQLITE_CONSTRAINT_FOREIGNKEY/, 'foreign-key'],
  [/NOT NULL constraint failed|SQLITE_CONSTRAINT_NOTNULL/, 'not-null'],
  [/CHECK constraint failed|SQLITE_CONSTRAINT_CHECK/, 'check'],
  [/constraint failed|SQLITE_CONSTRAINT/, 'other'],
];

/**
 * D1's list of errors advises for these to "optimize the queries, send fewer requests"
 * (https://developers.cloudflare.com/d1/observability/debug-d1/#error-list). BUSY and LOCKED are SQLite's names for it. The
 * last pattern is the limit of queries in one invocation (https://developers.cloudflare.com/d1/platform/limits/).
 */
const OVERLOADED =
  /overloaded|SQLITE_(?:BUSY|LOCKED)|database (?:table )?is locked|exceeded (?:timeout|its (?:memory|CPU time) limit)|Too many API requests/;

/**
 * Result codes that blame the statement, not the server (https://www.sqlite.org/rescode.html), and D1's own codes for
 * values of a wrong type and for unknown columns.
 */
const MISTAKE_CODES =
  /\bSQLITE_(?:ERROR|MISMATCH|RANGE|AUTH|TOOBIG|MISUSE|PERM|READONLY|INTERNAL)\b|\bD1_(?:TYPE_ERROR|COLUMN_NOTFOUND|EXEC_ERROR)\b/;
/** SQLite's texts for such mistakes, for messages without a code. */
const MISTAKE_TEXTS =
  /no such (?:table|column|function|index|module|view|trigger|savepoint)|syntax error|has no column named|ambiguous column name|unrecognized token|incomplete input|datatype mismatch|too many SQL variables|(?:wrong|different) number of (?:arguments|parameter bindings|bindings)|values for \d+ columns|misuse of|(?:statement|string or blob) too (?:long|big)|not authorized|malformed JSON|Type '\w+' not supported/i;

/**
 * Classifies an error of the D1 binding. Unknown errors count as an outage: D1's texts change, and a retry does no harm.
 *
 * @param sql the statements of the call
 */
export function databaseError(error: unknown, sql: readonly string[]): DatabaseError {
  const text = messagesOf(error);
  const statement = sql.map(shapeOf).join('; ').slice(0, 1_000);
  const fields = { code: codeOf(text), message: withoutValues(firstMessageOf(error)), statement };
  const constraint = CONSTRAINTS.find(([pattern]) => pattern.test(text))?.[1];
  if (constraint !== undefined) return new ConstraintViolation(constraint, fields);
  if (OVERLOADED.test(text)) return new DatabaseUnavailable('overloaded', { ...fields, overloaded: true });
  if (MISTAKE_CODES.test(text) || MISTAKE_TEXTS.test(text)) return new StatementMistake(fields);
  return new DatabaseUnavailable(fields.code ?? 'failed', fields);
}

function messagesOf(error: unknown): string {
  return causesOf(error)
    .map(({ message }) => message)
    .join('\n');
}

function firstMessageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}

/** SQLite's or D1's code, such as `SQLITE_ERROR`. */
function codeOf(text: string): string | undefined {
  return /\bSQLITE_[A-Z_]+\b/.exec(text)?.[0] ?? /\bD1_[A-Z_]+\b/.exec(text)?.[0];
}
