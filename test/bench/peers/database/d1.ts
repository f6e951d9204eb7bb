import { DurableObject } from 'cloudflare:workers';

import type { D1Counts } from '../../support/database.ts';

interface Env {
  DATABASE: DurableObjectNamespace;
  MIGRATIONS: string;
}

interface Query {
  sql: string;
  params?: (string | number | null)[] | null;
}

/**
 * SQLite behind the HTTP protocol of workerd's D1 binding (`cloudflare-internal:d1-api`), which plain workerd has no
 * server for. Only as much as the Workers of the benchmark use: it is asked before anything is measured.
 */
export class Database extends DurableObject<Env> {
  readonly #counts: D1Counts = { batches: 0, queries: 0, rowsRead: 0, rowsWritten: 0 };

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    const { storage } = state;
    // The runtime unloads an object that is idle for 10 s, and constructs it again with what it had stored.
    storage.transactionSync(() => {
      storage.sql.exec('CREATE TABLE IF NOT EXISTS bench_migrations (migrated INTEGER NOT NULL)');
      if (storage.sql.exec('SELECT 1 FROM bench_migrations').toArray().length > 0) return;
      for (const statement of JSON.parse(env.MIGRATIONS) as string[]) storage.sql.exec(statement);
      storage.sql.exec('INSERT INTO bench_migrations VALUES (1)');
    });
  }

  override async fetch(request: Request): Promise<Response> {
    const counts = this.#counts;
    if (new URL(request.url).pathname === '/counts') return Response.json(counts);
    const body = await request.json<Query | Query[]>();
    const { storage } = this.ctx;
    counts.batches += 1;
    try {
      const run = ({ sql, params }: Query) => {
        const cursor = storage.sql.exec(sql, ...(params ?? []));
        const results = { columns: cursor.columnNames, rows: [...cursor.raw()] };
        counts.queries += 1;
        counts.rowsRead += cursor.rowsRead;
        counts.rowsWritten += cursor.rowsWritten;
        return { success: true, results, meta: { duration: 0, changes: cursor.rowsWritten } };
      };
      return Response.json(storage.transactionSync(() => (Array.isArray(body) ? body.map(run) : run(body))));
    } catch (error) {
      return Response.json({ success: false, error: (error as Error).message });
    }
  }
}

const HANGING_MS = 5_000;

/** `/state/away` and the like set it. */
let state: DatabaseState = 'up';

export type DatabaseState = 'up' | 'away' | 'hanging';

export default {
  async fetch(request, env) {
    const [, asked] = /\/state\/(up|away|hanging)$/.exec(request.url) ?? [];
    if (asked !== undefined) {
      state = asked as DatabaseState;
      return new Response(state);
    }
    if (state === 'away') return Response.json({ success: false, error: 'D1_ERROR: away' }, { status: 500 });
    // Far longer than the deadline of those who ask, and not for ever: the runtime fails a request that nothing can end.
    if (state === 'hanging') await scheduler.wait(HANGING_MS);
    return env.DATABASE.getByName('bench').fetch(request);
  },
} satisfies ExportedHandler<Env>;
