import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';

import { hasPostgres, startPostgres } from '../../support/postgres.ts';
import { difference } from './database.ts';
import type { BenchDatabase, DatabaseCounts } from './database.ts';
import type { WireAnswer } from './postgresProcess.ts';
import type { WireCounts } from './postgresWire.ts';

/** A server of the benchmark's own, without a disk that it waits for. */
export interface BenchPostgres extends AsyncDisposable {
  /** Behind the hop that counts. */
  readonly url: string;
  readonly database: BenchDatabase;
}

/** For a question's progress, where there is no server to start. */
export const NO_POSTGRES = 'no PostgreSQL here (apt-get install postgresql, or POSTGRES_BIN): its cases are left out';

/** @returns `undefined` where there is no server to start */
export async function startBenchPostgres(): Promise<BenchPostgres | undefined> {
  if (!hasPostgres) return undefined;
  await using stack = new AsyncDisposableStack();
  const server = await startPostgres();
  stack.defer(() => server.stop());
  const direct = new URL(await server.database());
  const program = fileURLToPath(new URL('postgresProcess.ts', import.meta.url));
  const child = fork(program, [direct.port], { execArgv: [] });
  const exited = once(child, 'exit');
  stack.defer(async () => {
    if (child.connected) child.disconnect();
    await exited;
  });
  const ask = async (): Promise<WireAnswer> => {
    const [answer] = (await Promise.race([once(child, 'message'), exited])) as [WireAnswer | number];
    if (typeof answer !== 'object') throw new Error('the hop in front of PostgreSQL has ended');
    return answer;
  };
  const ready = await ask();
  const client = new Client({ connectionString: direct.href });
  await client.connect();
  stack.defer(() => client.end());

  async function wire(): Promise<WireCounts> {
    child.send('count');
    const answer = await ask();
    if (!('counts' in answer)) throw new Error('the hop in front of PostgreSQL has no counts');
    return answer.counts;
  }
  const rowsOf = async (sql: string, params: readonly unknown[] = [], through = client) =>
    (await through.query<unknown[]>({ text: sql, values: [...params], rowMode: 'array' })).rows;

  async function counts(): Promise<DatabaseCounts> {
    // PostgreSQL adds a connection's rows to its statistics when the connection ends, which is when its request does.
    for (let tried = 1; (await rowsOf(OTHERS)).length > 0; tried += 1) {
      if (tried === 1_200) throw new Error('a Worker has kept its connection to PostgreSQL');
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    const [row] = await rowsOf(ROWS);
    const { trips, batches, queries } = await wire();
    return { trips, batches, queries, rowsRead: Number(row?.[0]), rowsWritten: Number(row?.[1]) };
  }

  const url = new URL(direct);
  url.port = String('port' in ready ? ready.port : 0);
  const owned = stack.move();
  return {
    url: url.href,
    database: {
      async run(sql, ...params) {
        // On a connection of its own: once it has ended, PostgreSQL's statistics have its rows.
        const once = new Client({ connectionString: direct.href });
        await once.connect();
        try {
          return await rowsOf(sql, params, once);
        } finally {
          await once.end();
        }
      },
      async costOf(work) {
        const before = await counts();
        await work();
        return difference(await counts(), before);
      },
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const OTHERS = `select 1 from pg_stat_activity
  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`;
/** Entries that scans of tables and indexes have returned, and rows that were written; indexes are not counted apart. */
const ROWS = `select
  (select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables) +
    (select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes),
  (select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) from pg_stat_user_tables)`;
