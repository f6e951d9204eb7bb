import { REDIS_MISSING, hasRedisServer, startCluster, startRedis } from './redisServers.ts';

/** A Redis of some kind, of a test's own. */
export interface RunningBackend extends AsyncDisposable {
  /** For the gateway; absent for its embedded engine. */
  redisUrl?: string;
}

export interface TestBackend {
  name: string;
  /** For `describe.skipIf(…)`; the name says why. */
  missing: boolean;
  start: () => Promise<RunningBackend>;
}

const real = (name: string, start: () => Promise<{ url: string; stop(): Promise<void> }>): TestBackend => ({
  name: hasRedisServer ? name : `${name}: ${REDIS_MISSING}`,
  missing: !hasRedisServer,
  start: async () => {
    const server = await start();
    return { redisUrl: server.url, [Symbol.asyncDispose]: () => server.stop() };
  },
});

export const EMBEDDED: TestBackend = {
  name: 'the embedded engine',
  missing: false,
  start: () => Promise.resolve({ [Symbol.asyncDispose]: () => Promise.resolve() }),
};

export const REDIS = real('Redis', () => startRedis());

/** What the tests of concurrency run against, one after the other. */
export const BACKENDS: readonly TestBackend[] = [EMBEDDED, REDIS, real('Redis Cluster', startCluster)];
