import { describe } from 'vitest';
import { hasRedisServer, REDIS_MISSING, startSentinelGroup } from '../support/redisServers.ts';
import { contract } from './suite.ts';

describe.skipIf(!hasRedisServer)(`Redis Sentinel${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  contract(async () => {
    const group = await startSentinelGroup();
    return { redisUrl: group.url, stop: () => group.stop() };
  });
});
