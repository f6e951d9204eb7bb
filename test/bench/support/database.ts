/** Since the start. Rows as D1 counts them, in `meta.rows_read` and `meta.rows_written`, or as PostgreSQL's statistics do. */
export interface DatabaseCounts {
  /** Times that a Worker waits for the database: of D1 one a batch, with PostgreSQL also for its connection. */
  trips: number;
  /** Requests of the binding, or transactions: a batch is one. */
  batches: number;
  queries: number;
  rowsRead: number;
  rowsWritten: number;
}

/** As the benchmark's D1 reports them. */
export type D1Counts = Omit<DatabaseCounts, 'trips'>;

/** The database of the Workers, asked directly. */
export interface BenchDatabase {
  run(sql: string, ...params: (string | number | null)[]): Promise<unknown[][]>;
  /** What `work` costs it. */
  costOf(work: () => Promise<unknown>): Promise<DatabaseCounts>;
}

export function difference(after: DatabaseCounts, before: DatabaseCounts): DatabaseCounts {
  return {
    trips: after.trips - before.trips,
    batches: after.batches - before.batches,
    queries: after.queries - before.queries,
    rowsRead: after.rowsRead - before.rowsRead,
    rowsWritten: after.rowsWritten - before.rowsWritten,
  };
}

/** @param url see `RunningWorkers.databaseUrl` */
export function databaseAt(url: string): BenchDatabase {
  const counts = async (): Promise<DatabaseCounts> => {
    const counted = (await (await fetch(`${url}/counts`)).json()) as D1Counts;
    return { ...counted, trips: counted.batches };
  };
  return {
    async run(sql, ...params) {
      const response = await fetch(url, { method: 'POST', body: JSON.stringify({ sql, params }) });
      const reply = (await response.json()) as { success: boolean; error?: string; results?: { rows: unknown[][] } };
      if (!reply.success || reply.results === undefined) throw new Error(`the database: ${reply.error}`);
      return reply.results.rows;
    },
    async costOf(work) {
      const before = await counts();
      await work();
      return difference(await counts(), before);
    },
  };
}
