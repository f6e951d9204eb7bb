import { brief, countCall, DatabaseFaults, USUAL_MS } from './database.ts';
import type { Database, DatabaseDeps } from './database.ts';
import { currentInvocation } from './isolate.ts';
import type { Random } from './random.ts';
import { Replication } from './replication.ts';
import type { DatabaseSession } from './replication.ts';
import type { Query, QueryResult, SqlStore } from './sqlite.ts';

/** Cloudflare's limit of queries for one invocation of a Worker. */
const MAX_CALLS = 1_000;
/** And of values for one statement. */
const MAX_VALUES = 100;

/** D1 as a binding shows it, with a network between. */
export class SimulatedD1 implements Database {
  readonly name = 'D1';
  readonly faults: DatabaseFaults;
  readonly #deps: DatabaseDeps;
  readonly #random: Random;
  readonly #store: SqlStore;
  readonly #replication: Replication;

  /** @param replica left out: everything is read from the primary */
  constructor(deps: DatabaseDeps, store: SqlStore, replica: SqlStore | undefined) {
    this.#deps = deps;
    this.#random = deps.random('database');
    this.faults = new DatabaseFaults(this.#random, deps);
    this.#store = store;
    store.reset();
    this.#replication = new Replication(store, replica, deps.random('replication'));
  }

  env(): object {
    return { DB: this.#binding() };
  }

  connect(): never {
    throw new Error('D1 needs no socket');
  }

  execute(sql: string): unknown[][] {
    const queries = [{ sql, values: [] }];
    const [result] = this.#store.run(queries);
    if (result?.columns.length === 0) this.#replication.changed(queries, this.#deps.scheduler.nowMs);
    return result?.rows ?? [];
  }

  save(): () => void {
    const copies = this.#store.copy();
    return () => {
      this.#store.load(copies);
      this.#replication.changed(copies, this.#deps.scheduler.nowMs);
    };
  }

  /** What `env.DB` is. */
  #binding(): object {
    const begin = (session: () => DatabaseSession) => {
      const prepare = (sql: string) => new Statement(this, session(), sql, []);
      const batch = async (statements: readonly Statement[]) =>
        (
          await this.#call(
            statements.map(({ query }) => query),
            session(),
          )
        ).map(shape);
      return { prepare, batch, getBookmark: () => null };
    };
    // Without a session every query goes to the primary.
    const primary = begin(() => ({ bookmark: undefined }));
    return {
      ...primary,
      withSession(constraint = 'first-unconstrained') {
        const session = { bookmark: constraint === 'first-primary' ? undefined : 0 };
        return begin(() => session);
      },
    };
  }

  async one(query: Query, session: DatabaseSession): Promise<QueryResult> {
    const [result] = await this.#call([query], session);
    if (result === undefined) throw new Error('unreachable');
    return result;
  }

  #call(queries: readonly Query[], session: DatabaseSession): Promise<QueryResult[]> {
    const { scheduler, trace } = this.#deps;
    const random = this.#random;
    const invocation = currentInvocation();
    const who = `${invocation.isolate.name} [${invocation.label}]`;
    invocation.databaseCalls += queries.length;
    const statements = queries.map(({ sql }) => sql);
    countCall(invocation, statements, this.#deps);
    if (invocation.databaseCalls > MAX_CALLS) {
      return Promise.reject(new Error('D1_ERROR: Too many API requests by single Worker invocation.'));
    }
    const fate = this.faults.fate(invocation);
    const before = random.between(1, 12) + fate.lateMs;
    const back = random.between(1, 12) + fate.lateBackMs;
    if (before + back > USUAL_MS) this.#deps.unsettled('database', scheduler.nowMs, scheduler.nowMs + before + back);
    return new Promise((resolve, reject) => {
      const arrive = (settle: () => void) => {
        scheduler.after(back, () => {
          if (invocation.open && invocation.isolate.alive) settle();
        });
      };
      const fail = () => arrive(() => reject(new Error('D1_ERROR: Network connection lost.')));
      scheduler.after(before, () => {
        if (fate.outcome === 'failed' || fate.outcome === 'cut') {
          trace(() => `${who} -> D1: fails: ${brief(statements)}`);
          return fail();
        }
        if (fate.outcome === 'lost') {
          trace(() => `${who} -> D1: lost: ${brief(statements)}`);
          return undefined;
        }
        let results: QueryResult[];
        let replica: boolean;
        try {
          for (const { values } of queries) {
            if (values.length > MAX_VALUES) throw new Error('too many SQL variables: SQLITE_ERROR');
          }
          ({ results, replica } = this.#replication.run(queries, session, scheduler.nowMs));
        } catch (error) {
          const text = error instanceof Error ? error.message : String(error);
          const unique = text.includes('UNIQUE') ? ': SQLITE_CONSTRAINT' : ': SQLITE_ERROR';
          trace(() => `${who} -> D1: ${text}: ${brief(statements)}`);
          return arrive(() => reject(new Error(`D1_ERROR: ${text}${unique}`)));
        }
        const where = replica ? ' replica' : '';
        const after = fate.outcome === 'response-lost' ? ' (committed, response lost)' : '';
        trace(() => `${who} -> D1${where}: ${brief(statements)} = ${counts(results)}${after}`);
        return fate.outcome === 'response-lost' ? fail() : arrive(() => resolve(results));
      });
    });
  }
}

/** A prepared statement as D1's API has it. */
class Statement {
  readonly query: Query;
  readonly #database: SimulatedD1;
  readonly #session: DatabaseSession;

  constructor(database: SimulatedD1, session: DatabaseSession, sql: string, values: readonly unknown[]) {
    this.#database = database;
    this.#session = session;
    this.query = { sql, values };
  }

  bind(...values: unknown[]): Statement {
    return new Statement(this.#database, this.#session, this.query.sql, values);
  }

  async all(): Promise<object> {
    return shape(await this.#database.one(this.query, this.#session));
  }

  run(): Promise<object> {
    return this.all();
  }

  async raw(options?: { columnNames?: boolean }): Promise<unknown[][]> {
    const { columns, rows } = await this.#database.one(this.query, this.#session);
    return options?.columnNames === true ? [columns, ...rows] : rows;
  }

  async first(column?: string): Promise<unknown> {
    const [row] = objects(await this.#database.one(this.query, this.#session));
    if (row === undefined) return null;
    return column === undefined ? row : row[column];
  }
}

/** Columns of one name become one, as they do in D1. */
function objects({ columns, rows }: QueryResult): Record<string, unknown>[] {
  return rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]])));
}

function shape(result: QueryResult): object {
  const { rows, changes } = result;
  const meta = { duration: 0, changes, rows_read: rows.length, rows_written: changes, served_by_primary: true };
  return { success: true, results: objects(result), meta };
}

function counts(results: readonly QueryResult[]): string {
  return results.map(({ columns, rows, changes }) => (columns.length > 0 ? `${rows.length} rows` : changes)).join(', ');
}
