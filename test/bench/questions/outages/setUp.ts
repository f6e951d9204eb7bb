import { testBindings } from '../../../support/bindings.ts';
import { databaseAt } from '../../support/database.ts';
import type { BenchDatabase } from '../../support/database.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';

const UNLIMITED = '100000000/1h';

export interface SetUp extends AsyncDisposable {
  url: string;
  database: BenchDatabase;
  /** Runs the cron trigger. */
  scheduled(): Promise<void>;
}

/**
 * The app in workerd with a database that counts, and the Worker that sends it scheduled events.
 *
 * @param app the bundled Worker
 */
export async function start(app: string, redis: { url: string; token: string }): Promise<SetUp> {
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
  const workers = await startWorkers([
    { name: 'gatehouse', script: app, bindings },
    { name: 'clock', script: await bundlePeer('memory/clock.ts'), bindings: {}, services: { WORKER: 'gatehouse' } },
  ]);
  return {
    url: workers.urls.get('gatehouse') ?? '',
    database: databaseAt(workers.databaseUrl),
    async scheduled() {
      const response = await fetch(workers.urls.get('clock') ?? '');
      if (!response.ok) throw new Error(`the scheduled run ended with ${await response.text()}`);
      await response.text();
    },
    [Symbol.asyncDispose]: () => workers[Symbol.asyncDispose](),
  };
}
