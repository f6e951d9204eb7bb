import { currentInvocation } from './isolate.ts';
import type { Invocation } from './isolate.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';
import type { DatabaseSession, Replication } from './replication.ts';
import type { Query, QueryResult } from './sqlite.ts';

/** What happens to calls of D1. */
export type DatabaseMode =
  /** All calls fail. */
  | 'away'
  /** Calls disappear. */
  | 'hang'
  /** Each call for itself: fails, is committed though its response is lost, is late, or fine. */
  | 'flaky'
  /** Up to some seconds late. */
  | 'slow';

export interface DatabaseDeps {
  scheduler: Scheduler;
  random: Random;
  store: Replication;
  trace: (line: () => string) => void;
  unsettled: (kind: 'database', fromMs: number, toMs: number) => void;
  /** Asked about the outbox, or about Redis's age. */
  upkeep: (invocation: Invocation) => void;
}

/** Cloudflare's limit of queries for one invocation of a Worker. */
const MAX_CALLS = 1_000;
/** And of values for one statement. */
const MAX_VALUES = 100;
const USUAL_MS = 24;

/** D1 as a binding shows it, with a network between. */
export class SimulatedDatabase {
  mode: DatabaseMode | undefined;
  /** The only isolate that the mode concerns. */
  only: number | undefined;
  /** How many of the next calls fail, whatever the mode. */
  failNext = 0;
  readonly #deps: DatabaseDeps;

  constructor(deps: DatabaseDeps) {
    this.#deps = deps;
  }

  /** What `env.DB` is. */
  binding(): object {
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
    const { scheduler, random, store, trace } = this.#deps;
    const invocation = currentInvocation();
    const who = `${invocation.isolate.name} [${invocation.label}]`;
    invocation.databaseCalls += queries.length;
    // What looks after Redis, the outbox and changed limits goes on beside the request, which does not wait for it.
    const all = (tables: RegExp) => queries.every(({ sql }) => tables.test(sql));
    if (all(/\b(?:outbox|redis_state)\b/)) this.#deps.upkeep(invocation);
    else if (!all(/\blimit_overrides\b/)) invocation.databaseTrips += 1;
    if (invocation.databaseCalls > MAX_CALLS) {
      return Promise.reject(new Error('D1_ERROR: Too many API requests by single Worker invocation.'));
    }
    const fate = this.#fate(invocation);
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
        if (fate.outcome === 'failed') {
          trace(() => `${who} -> D1: fails: ${brief(queries)}`);
          return fail();
        }
        if (fate.outcome === 'lost') {
          trace(() => `${who} -> D1: lost: ${brief(queries)}`);
          return undefined;
        }
        let results: QueryResult[];
        let replica: boolean;
        try {
          for (const { values } of queries) {
            if (values.length > MAX_VALUES) throw new Error('too many SQL variables: SQLITE_ERROR');
          }
          ({ results, replica } = store.run(queries, session, scheduler.nowMs));
        } catch (error) {
          const text = error instanceof Error ? error.message : String(error);
          const unique = text.includes('UNIQUE') ? ': SQLITE_CONSTRAINT' : ': SQLITE_ERROR';
          trace(() => `${who} -> D1: ${text}: ${brief(queries)}`);
          return arrive(() => reject(new Error(`D1_ERROR: ${text}${unique}`)));
        }
        const where = replica ? ' replica' : '';
        const after = fate.outcome === 'response-lost' ? ' (committed, response lost)' : '';
        trace(() => `${who} -> D1${where}: ${brief(queries)} = ${counts(results)}${after}`);
        return fate.outcome === 'response-lost' ? fail() : arrive(() => resolve(results));
      });
    });
  }

  #fate({ isolate }: Invocation): {
    outcome: 'fine' | 'failed' | 'lost' | 'response-lost';
    lateMs: number;
    lateBackMs: number;
  } {
    const { random } = this.#deps;
    const fine = { outcome: 'fine' as const, lateMs: 0, lateBackMs: 0 };
    if (this.failNext > 0) {
      this.failNext -= 1;
      return { ...fine, outcome: 'failed' };
    }
    switch (this.only === undefined || this.only === isolate.index ? this.mode : undefined) {
      case undefined:
        return fine;
      case 'away':
        return { ...fine, outcome: 'failed' };
      case 'hang':
        return { ...fine, outcome: 'lost' };
      case 'slow': {
        const way = () => (random.chance(0.6) ? 0 : random.between(0, 1_800));
        return { ...fine, lateMs: way(), lateBackMs: way() };
      }
      case 'flaky': {
        const outcome = random.pick(['fine', 'fine', 'failed', 'response-lost', 'late'] as const);
        return outcome === 'late' ? { ...fine, lateMs: random.between(100, 3_000) } : { ...fine, outcome };
      }
    }
  }
}

/** A prepared statement as D1's API has it. */
class Statement {
  readonly query: Query;
  readonly #database: SimulatedDatabase;
  readonly #session: DatabaseSession;

  constructor(database: SimulatedDatabase, session: DatabaseSession, sql: string, values: readonly unknown[]) {
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

function brief(queries: readonly Query[]): string {
  return queries
    .map(({ sql }) =>
      sql
        .replaceAll(/"|`|\s+/g, ' ')
        .replaceAll(/ +/g, ' ')
        .trim()
        .slice(0, 70),
    )
    .join('; ');
}

function counts(results: readonly QueryResult[]): string {
  return results.map(({ columns, rows, changes }) => (columns.length > 0 ? `${rows.length} rows` : changes)).join(', ');
}
