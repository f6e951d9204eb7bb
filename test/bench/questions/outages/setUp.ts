import { testBindings } from '../../../support/bindings.ts';
import { databaseAt } from '../../support/database.ts';
import type { BenchDatabase } from '../../support/database.ts';
import { NO_POSTGRES, startBenchPostgres } from '../../support/postgres.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';

const UNLIMITED = '100000000/1h';

export interface SetUp extends AsyncDisposable {
  url: string;
  engine: Engine;
  database: BenchDatabase;
  /** Runs the cron trigger. */
  scheduled(): Promise<void>;
}

export type Engine = 'd1' | 'postgres';

/** One of the databases that the question is asked with. */
export interface Side {
  engine: Engine;
  /** The Worker bundled for it. */
  app: string;
}

/**
 * The app in workerd with a database that counts, and the Worker that sends it scheduled events.
 *
 * @throws where there is no PostgreSQL server to start
 */
export async function start({ engine, app }: Side, redis: { url: string; token: string }): Promise<SetUp> {
  await using stack = new AsyncDisposableStack();
  const postgres = engine === 'postgres' ? await startBenchPostgres() : undefined;
  if (postgres === undefined && engine === 'postgres') throw new Error(NO_POSTGRES);
  stack.use(postgres);
  const limits = ['API', 'REGISTER', 'REGISTER_DAY', 'REFRESH'].map((name) => [`LIMIT_${name}`, UNLIMITED]);
  const bindings = {
    ...testBindings(redis),
    ...Object.fromEntries(limits),
    // A busy machine is slow, and slowness is not the outage that is meant.
    REDIS_GUARD_DEADLINE_MS: '2000',
    REDIS_AUTH_DEADLINE_MS: '2000',
    REDIS_CALL_TIMEOUT_MS: '10000',
    DATABASE_DEADLINE_MS: '30000',
  };
  const workers = stack.use(
    await startWorkers([
      { name: 'gatehouse', script: app, bindings, postgres: postgres?.url },
      { name: 'clock', script: await bundlePeer('memory/clock.ts'), bindings: {}, services: { WORKER: 'gatehouse' } },
    ]),
  );
  const owned = stack.move();
  return {
    url: workers.urls.get('gatehouse') ?? '',
    engine,
    database: postgres?.database ?? databaseAt(workers.databaseUrl),
    async scheduled() {
      const response = await fetch(workers.urls.get('clock') ?? '');
      if (!response.ok) throw new Error(`the scheduled run ended with ${await response.text()}`);
      await response.text();
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
