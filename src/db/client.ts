import { DrizzleError, is } from 'drizzle-orm';

import { AppError } from '../errors';
import { maybeInSpan } from '../util/spans';
import type { InSpan } from '../util/spans';
import { within } from '../util/within';
import { BINDING, BINDING_KIND, open, SYSTEM_NAME } from '#db';
import type { BatchResults, Binding, Drizzle, Statement } from '#db';
import type { BatchOptions } from './connection';
import { DatabaseUnavailable, StatementMistake, findDatabaseError } from './errors';
import { withoutValues } from './shape';

export { ConstraintViolation, DatabaseError, DatabaseUnavailable, StatementMistake, isUniqueViolation } from './errors';

export type { BatchResults, Binding, Drizzle, Statement } from '#db';

export interface Database {
  /**
   * Runs queries within the deadline.
   *
   * @throws {DatabaseUnavailable} when a retry may succeed
   * @throws {ConstraintViolation} see {@link isUniqueViolation}
   * @throws {StatementMistake} for a statement that fails each time. Errors thrown by `work` itself pass through
   */
  run<T>(work: (db: Drizzle) => Promise<T>): Promise<T>;
  /** Builds a query without running it, to read its SQL. */
  build<T>(make: (db: Drizzle) => T): T;
  /**
   * Several statements as one transaction: all or nothing.
   *
   * @returns the rows of each statement that returns any
   */
  batch<const S extends readonly Statement[]>(
    statements: (db: Drizzle) => S,
    options?: BatchOptions,
  ): Promise<BatchResults<S>>;
  /**
   * Checks whether the connection is safe to use.
   *
   * @returns a problem, in words for an operator; `undefined`: none
   * @throws {DatabaseUnavailable}
   */
  check(): Promise<string | undefined>;
}

/** A database with a connection that belongs to one request. */
export interface RequestDatabase extends Database {
  /** Closes the connection at the end of the request. */
  close(): void;
}

export interface DatabaseOptions {
  deadlineMs: number;
  now?: () => number;
  /** Called after each query or batch, with its duration and the kind of its failure (`''`: none). */
  observe?: (durationMs: number, error: string) => void;
  /** `undefined`: the request is not traced. */
  inSpan?: InSpan | undefined;
}

/**
 * The binding that this build's engine needs.
 *
 * @throws {AppError} `CONFIG_INVALID`
 */
export function bindingOf(env: object): Binding {
  const binding = (env as Record<string, unknown>)[BINDING] as Binding | undefined;
  if (binding !== undefined) return binding;
  throw new AppError('CONFIG_INVALID', { detail: `Configuration missing: ${BINDING} (${BINDING_KIND})` });
}

/** Always queries D1's primary: a lagging replica must not decide about sessions or fill caches. */
export function createDatabase(
  binding: Binding,
  { deadlineMs, now = Date.now, observe, inSpan }: DatabaseOptions,
): RequestDatabase {
  let connection: ReturnType<typeof open> | undefined;
  const connect = () => (connection ??= open(binding));

  async function timed<T>(work: () => Promise<T>): Promise<T> {
    const startedMs = now();
    try {
      const result = await maybeInSpan(inSpan, 'database query', DATABASE_SPAN, () =>
        within(work(), deadlineMs, (): never => {
          connection?.abandon?.();
          throw new DatabaseUnavailable('no response in time');
        }),
      );
      observe?.(now() - startedMs, '');
      return result;
    } catch (error) {
      const found = findDatabaseError(error) ?? drizzleMistake(error);
      observe?.(now() - startedMs, found?.name ?? 'other');
      throw found ?? error;
    }
  }

  return {
    run: (work) => timed(async () => work(connect().drizzle)),
    build: (make) => {
      try {
        return make(connect().drizzle);
      } catch (error) {
        throw drizzleMistake(error) ?? error;
      }
    },
    batch: <const S extends readonly Statement[]>(statements: (db: Drizzle) => S, options?: BatchOptions) =>
      timed(async () => {
        return (await connect().batch(statements, options)) as BatchResults<S>;
      }),
    check: () => timed(async () => connect().check?.()),
    close: () => connection?.close?.(),
  };
}

const DATABASE_SPAN = { 'db.system.name': SYSTEM_NAME, 'db.operation.name': 'query' };

/** Texts of statements that Drizzle itself refuses, mostly with a bare `Error`. */
const DRIZZLE_TEXTS =
  /^(?:No values to set|values\(\) must be called with at least one value|Insert select error|You cannot specify|Set operator error|Cannot pass undefined values|Alias ".*" is already used|Cannot execute a query on a query builder|Your .* references a column)/;

function drizzleMistake(error: unknown): StatementMistake | undefined {
  if (!(error instanceof Error)) return undefined;
  const { message } = error;
  const isDrizzles = is(error, DrizzleError) || DRIZZLE_TEXTS.test(message);
  return isDrizzles ? new StatementMistake({ message: withoutValues(message) }, { cause: error }) : undefined;
}
