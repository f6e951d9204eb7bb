/** Errors of services besides `AppError`, for modules that may not import the database. */
export { ConstraintViolation, DatabaseUnavailable, StatementMistake } from '../db/client';
export { RedisError, RedisUnavailable } from '../redis/errors';
