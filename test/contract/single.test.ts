import { describe } from 'vitest';
import { hasRedisServer, REDIS_MISSING, startRedis } from '../support/redisServers.ts';
import { contract } from './suite.ts';

describe.skipIf(!hasRedisServer)(`redis-server${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  contract(async () => {
    const server = await startRedis('--requirepass', 'contract');
    return { redisUrl: server.url, stop: () => server.stop() };
  });
});
