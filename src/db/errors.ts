import type { LogFields } from '../config/log';

/**
 * Anything that went wrong with the database. Messages never hold values; `logFields` is what a log line may say about it.
 */
export abstract class DatabaseError extends Error {
  /** The database's own message without values, and the statement's shape. */
  readonly logFields: LogFields;

  constructor(message: string, fields: LogFields = {}, options?: ErrorOptions) {
    super(message, options);
    this.logFields = fields;
  }
}

/**
 * The database did not respond, not in time, or refused for the moment: another try may succeed. The change that was asked
 * for may or may not have happened.
 */
export class DatabaseUnavailable extends DatabaseError {
  override readonly name = 'DatabaseUnavailable';
  /** The database has more work than it can do: retries must be slower. */
  readonly overloaded: boolean;

  constructor(message: string, { overloaded = false, ...fields }: LogFields & { overloaded?: boolean } = {}) {
    super(message, fields);
    this.overloaded = overloaded;
  }
}

export type Constraint = 'unique' | 'foreign-key' | 'not-null' | 'check' | 'other';

/** A statement met a constraint of the schema. The same statement fails again as long as the data are what they are. */
export class ConstraintViolation extends DatabaseError {
  override readonly name = 'ConstraintViolation';
  readonly constraint: Constraint;

  constructor(constraint: Constraint, fields: LogFields) {
    super(`a constraint of the database was violated (${constraint})`, fields);
    this.constraint = constraint;
  }
}

/** A developer's mistake: a missing table or column, a syntax error, `set({})`. No retry helps. */
export class StatementMistake extends DatabaseError {
  override readonly name = 'StatementMistake';

  constructor(fields: LogFields, options?: ErrorOptions) {
    super('a statement for the database is wrong', fields, options);
  }
}

/** The database's error in a chain of causes, where Drizzle has wrapped it. */
export function findDatabaseError(error: unknown): DatabaseError | undefined {
  return causesOf(error).find((cause) => cause instanceof DatabaseError);
}

/** Whether a write met a UNIQUE constraint. */
export function isUniqueViolation(error: unknown): boolean {
  return causesOf(error).some((cause) => cause instanceof ConstraintViolation && cause.constraint === 'unique');
}

/** An error, what caused it, and so on. */
export function causesOf(error: unknown): Error[] {
  const causes: Error[] = [];
  for (let cause = error; cause instanceof Error && causes.length < 5; cause = cause.cause) causes.push(cause);
  return causes;
}
