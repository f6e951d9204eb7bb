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
   * @throws {DatabaseUnavailable} when another try may succeed
   * @throws {ConstraintViolation} see {@link isUniqueViolation}
   * @throws {StatementMistake} for a statement that fails each time. Errors of `work` itself pass through
   */
  run<T>(work: (db: Drizzle) => Promise<T>): Promise<T>;
  /** A query that is not run: for its SQL. */
  build<T>(make: (db: Drizzle) => T): T;
  /**
   * Several statements as one transaction: all or nothing.
   *
   * @returns each one's rows, for those that return any
   */
  batch<const S extends readonly Statement[]>(
    statements: (db: Drizzle) => S,
    options?: BatchOptions,
  ): Promise<BatchResults<S>>;
  /**
   * Whether the way to the database is sound.
   *
   * @returns what is wrong with it, in words for an operator
   * @throws {DatabaseUnavailable}
   */
  check(): Promise<string | undefined>;
}

/** What the request's scope has beside that. */
export interface RequestDatabase extends Database {
  /** The request is over: its connection ends. */
  close(): void;
}

export interface DatabaseOptions {
  deadlineMs: number;
  now?: () => number;
  /** Told of each query or batch: how long it took, and the kind of its failure (`''`: none). */
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

/** D1's primary, each time: a lagging replica must not decide over sessions and caches. */
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

/** Drizzle refuses some statements itself, mostly with a bare `Error`. */
const DRIZZLE_TEXTS =
  /^(?:No values to set|values\(\) must be called with at least one value|Insert select error|You cannot specify|Set operator error|Cannot pass undefined values|Alias ".*" is already used|Cannot execute a query on a query builder|Your .* references a column)/;

function drizzleMistake(error: unknown): StatementMistake | undefined {
  if (!(error instanceof Error)) return undefined;
  const { message } = error;
  const isDrizzles = is(error, DrizzleError) || DRIZZLE_TEXTS.test(message);
  return isDrizzles ? new StatementMistake({ message: withoutValues(message) }, { cause: error }) : undefined;
}
