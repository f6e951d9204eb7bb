import { describe } from 'vitest';
import { hasRedisServer, REDIS_MISSING, startCluster } from '../support/redisServers.ts';
import { contract } from './suite.ts';

describe.skipIf(!hasRedisServer)(`Redis Cluster${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  contract(async () => {
    const cluster = await startCluster();
    return { redisUrl: cluster.url, stop: () => cluster.stop() };
  });
});
