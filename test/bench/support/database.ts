/** Since the start, as D1 counts them in `meta.rows_read` and `meta.rows_written`. */
export interface DatabaseCounts {
  /** Requests of the binding: a batch is one. */
  batches: number;
  queries: number;
  rowsRead: number;
  rowsWritten: number;
}

/** The database of the Workers, asked directly. */
export interface BenchDatabase {
  run(sql: string, ...params: (string | number | null)[]): Promise<unknown[][]>;
  /** What `work` costs it. */
  costOf(work: () => Promise<unknown>): Promise<DatabaseCounts>;
}

/** @param url see `RunningWorkers.databaseUrl` */
export function databaseAt(url: string): BenchDatabase {
  const counts = async () => (await (await fetch(`${url}/counts`)).json()) as DatabaseCounts;
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
      const after = await counts();
      return {
        batches: after.batches - before.batches,
        queries: after.queries - before.queries,
        rowsRead: after.rowsRead - before.rowsRead,
        rowsWritten: after.rowsWritten - before.rowsWritten,
      };
    },
  };
}
