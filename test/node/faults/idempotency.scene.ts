import { randomUUID } from 'node:crypto';

import { startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer, Call } from '../../support/client.ts';
import { startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import { hasRedisServer, startRedis } from '../../support/redisServers.ts';
import { bundleTestWorker } from '../../support/testWorker.ts';
import { startTruth } from '../cache/scene.ts';
import type { Truth } from '../cache/scene.ts';
import { SETTINGS, signedIn } from './scene.ts';
import type { Account, SignedIn } from './scene.ts';

/** The app with its developer's routes, in front of a Redis that fails when a test asks for it. */
export interface KeyedScene extends AsyncDisposable {
  app: RunningApp;
  redis: FaultyRedis;
  truth: Truth;
  call: Call;
  newAccount(): Promise<Account & SignedIn>;
  /** How many orders have this note. */
  count(note: string): Promise<number>;
}

/** What an `Idempotency-Key` looks like. */
export const newKey = (): string => `"${randomUUID()}"`;

export async function startKeyedScene(): Promise<KeyedScene> {
  const { bundle, remove } = await bundleTestWorker('keyedWorker.ts');
  const server = hasRedisServer ? await startRedis() : undefined;
  const redis = await startFaultyRedis(server?.url);
  const truth = await startTruth();
  const app = await startApp({
    bundle,
    redis,
    // On a busy machine a deadline of 200 ms passes for requests that the tests need Redis to keep apart.
    settings: { ...SETTINGS, REDIS_GUARD_DEADLINE_MS: '2000', DATABASE_DEADLINE_MS: '10000', TRUTH_URL: truth.url },
  });
  await app.sql('CREATE TABLE orders (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, note TEXT NOT NULL)');
  let client = 0;
  return {
    app,
    redis,
    truth,
    call: clientOf(app.url),
    async newAccount() {
      const account = newcomer();
      const address = `198.51.100.${(client = (client % 250) + 1)}`;
      const answer = await clientOf(app.url, address)('POST', '/v1/auth/register', { body: account });
      return { ...account, ...signedIn(answer), id: (answer.body as { user: { id: string } }).user.id };
    },
    async count(note) {
      const [row] = await app.sql('SELECT count(*) AS n FROM orders WHERE note = ?', note);
      return Number(row?.['n']);
    },
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]();
      await truth[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
      await server?.stop();
      await remove();
    },
  };
}

/** Whether a response is that of an earlier execution. */
export const replayed = ({ headers }: Answer): boolean => headers.get('Idempotency-Replayed') === 'true';
