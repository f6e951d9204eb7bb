/** What services may throw beside `AppError`, for those that may not look below them. */
export { ConstraintViolation, DatabaseUnavailable, StatementMistake } from '../db/client';
export { RedisError, RedisUnavailable } from '../redis/errors';
