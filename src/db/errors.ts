import type { LogFields } from '../config/log';

/** Base class of all database errors. Messages never hold values; a log line may contain `logFields`. */
export abstract class DatabaseError extends Error {
  /** The database's own message without values, and the statement's shape. */
  readonly logFields: LogFields;

  constructor(message: string, fields: LogFields = {}, options?: ErrorOptions) {
    super(message, options);
    this.logFields = fields;
  }
}

/**
 * The database did not respond in time, or refused for the moment: a retry may succeed. The requested change may or may not
 * have happened.
 */
export class DatabaseUnavailable extends DatabaseError {
  override readonly name = 'DatabaseUnavailable';
  /** The database is overloaded: retries must be slower. */
  readonly overloaded: boolean;

  constructor(message: string, { overloaded = false, ...fields }: LogFields & { overloaded?: boolean } = {}) {
    super(message, fields);
    this.overloaded = overloaded;
  }
}

export type Constraint = 'unique' | 'foreign-key' | 'not-null' | 'check' | 'other';

/** A statement violates a constraint of the schema. It fails again unless the data change. */
export class ConstraintViolation extends DatabaseError {
  override readonly name = 'ConstraintViolation';
  readonly constraint: Constraint;

  constructor(constraint: Constraint, fields: LogFields) {
    super(`a constraint of the database was violated (${constraint})`, fields);
    this.constraint = constraint;
  }
}

/** A developer's mistake: a missing table or column, a syntax error, `set({})`. A retry fails again. */
export class StatementMistake extends DatabaseError {
  override readonly name = 'StatementMistake';

  constructor(fields: LogFields, options?: ErrorOptions) {
    super('a statement for the database is wrong', fields, options);
  }
}

/** Finds the database's error in a chain of causes: Drizzle wraps errors. */
export function findDatabaseError(error: unknown): DatabaseError | undefined {
  return causesOf(error).find((cause) => cause instanceof DatabaseError);
}

/** Whether a write met a UNIQUE constraint. */
export function isUniqueViolation(error: unknown): boolean {
  return causesOf(error).some((cause) => cause instanceof ConstraintViolation && cause.constraint === 'unique');
}

/** An error and its chain of causes. */
export function causesOf(error: unknown): Error[] {
  const causes: Error[] = [];
  for (let cause = error; cause instanceof Error && causes.length < 5; cause = cause.cause) causes.push(cause);
  return causes;
}
