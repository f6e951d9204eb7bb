import { Client, types } from 'pg';
import type { QueryResult } from 'pg';

import { UserError } from './cli.ts';
import { appliedTo, applyMissing } from './postgresMigrations.ts';

/** The oldest server that the app is tested on, as `server_version_num`. */
const OLDEST_VERSION = 150_000;
const CONNECT_WITHIN_MS = 10_000;
/** Any number, as long as no other program uses it; that of `npm run move` is one smaller. */
const MIGRATION_LOCK = 0x6a7e_001a;
/** Tries of a transaction that the server ends because of another one. */
const TRIES = 12;

export type Row = Readonly<Record<string, string | number | null>>;

/**
 * The PostgreSQL database that `DATABASE_URL` names.
 *
 * @returns `undefined` where it is not set: the app then has a D1 database
 * @throws {UserError} without the value, which may hold a password
 */
export function databaseUrl(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const text = env['DATABASE_URL']?.trim();
  if (!text) return undefined;
  const url = URL.parse(text);
  const isPostgres = url !== null && /^postgres(?:ql)?:$/.test(url.protocol) && url.hostname !== '';
  if (isPostgres && url.pathname.length > 1) return text;
  throw new UserError(
    'DATABASE_URL must be postgres://USER:PASSWORD@HOST:PORT/DATABASE. Without DATABASE_URL the database is D1.',
  );
}

/** `HOST:PORT/DATABASE`: no user, no password, no options. */
export function placeOf(url: string): string {
  const { hostname, port, pathname } = new URL(url);
  return `${hostname}:${port || 5432}${pathname}`;
}

/**
 * Runs `work` on a connection of its own.
 *
 * @throws {UserError} one line, when the database cannot be reached, or is none that the app can use
 */
export async function withPostgres<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: CONNECT_WITHIN_MS });
  // A connection may break between two queries: the next query then fails with the error.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    // One that waits for a server that says nothing would hold the process.
    void client.end().catch(() => undefined);
    throw new UserError(refusal(error, url));
  }
  try {
    await assertUsable(client, url);
    return await work(client);
  } finally {
    await client.end();
  }
}

/**
 * Applies the migrations that the database has not had yet, all in one transaction. Of several runs at once each waits for the one
 * before it, and finds its work done.
 *
 * @throws {UserError}
 */
export async function migratePostgres(url: string, folder?: string): Promise<void> {
  await withPostgres(url, async (client) => {
    try {
      // Until the connection ends: what is to be applied is read before the transaction begins.
      await client.query('select pg_advisory_lock($1)', [MIGRATION_LOCK]);
      await applyMissing(client, folder);
    } catch (error) {
      const isOwn = (await appliedTo(client).catch(() => [])).length > 0;
      const problem = migrationProblem(error, url, isOwn);
      throw problem === undefined ? error : new UserError(problem);
    }
  });
}

/**
 * Runs statements, separated by `;`, as one SERIALIZABLE transaction. One that the server ends because of another transaction
 * is tried again.
 *
 * @returns the rows of each statement
 */
export async function transact(client: Client, sql: string): Promise<Row[][]> {
  for (let tried = 1; ; tried += 1) {
    try {
      const text = `begin isolation level serializable;\n${sql};\ncommit`;
      // Of several statements `pg` makes a list of results, which its types do not know.
      const results = (await client.query({ text, types: PARSERS })) as unknown as QueryResult<Row>[];
      return results.slice(1, -1).map(({ rows }) => rows);
    } catch (error) {
      // If the connection is broken, the query's error shows it.
      await client.query('rollback').catch(() => undefined);
      if (!/^(?:40001|40P01)$/.test(codeOf(error)) || tried === TRIES) throw error;
    }
  }
}

/** `bigint` as a number, as in the app. */
const INT8: number = types.builtins.INT8;
const PARSERS = {
  getTypeParser: ((id: number, format?: 'text') =>
    id === INT8 ? Number : types.getTypeParser(id, format)) as typeof types.getTypeParser,
};

async function assertUsable(client: Client, url: string): Promise<void> {
  const { rows } = await client.query<{ version: string; number: number }>(
    `select version() as version, current_setting('server_version_num')::int as number`,
  );
  const { version = '', number = 0 } = rows[0] ?? {};
  const name = version.split(' ').slice(0, 2).join(' ');
  if (version.startsWith('PostgreSQL') && number >= OLDEST_VERSION) return;
  throw new UserError(`The server of DATABASE_URL (${placeOf(url)}) is ${name}: PostgreSQL 15 or later is needed.`);
}

/** Errors of the server, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
function refusal(error: unknown, url: string): string {
  const code = codeOf(error);
  const of = `of DATABASE_URL (${placeOf(url)})`;
  if (code.startsWith('28')) return `The server ${of} refuses the user or the password.`;
  if (code === '3D000') return `The server ${of} has no such database: create it first (createdb).`;
  if (/^[\dA-Z]{5}$/.test(code)) return `The server ${of} refuses the connection (SQLSTATE ${code}).`;
  const isSilent = error instanceof Error && /timeout/.test(error.message);
  if (code !== '' || isSilent) return `The server ${of} cannot be reached (${code || 'no response in time'}).`;
  return `What listens at the address ${of} is not a PostgreSQL server, or does not take this kind of connection.`;
}

/** `42P07`, `42710`, `42723`: a table or function of that name is there already. */
function migrationProblem(error: unknown, url: string, isOwn: boolean): string | undefined {
  const code = codeOf(error) || codeOf(error instanceof Error ? error.cause : undefined);
  const database = `The database of DATABASE_URL (${placeOf(url)})`;
  const isThere = /^(?:42P07|42710|42723)$/.test(code);
  if (isThere && isOwn)
    return `${database} has what a migration makes: after a merge, empty the one that repeats yours (docs/routes.md). Nothing was changed.`;
  if (isThere) return `${database} has tables that the migrations did not make: give the app a database of its own.`;
  if (code === '42501') return `${database} does not let its user create tables.`;
  return code === '' ? undefined : `${database} could not be migrated (${code}).`;
}

export function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : '';
}
