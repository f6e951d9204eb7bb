import { inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { slotOf } from '../../../src/gateway/slots.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import { THREE_SESSIONS, wholeFlow } from '../../support/flow.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, until } from '../../support/redisServers.ts';

const TOKEN = 'cluster-token';

test.skipIf(!hasRedisServer)(
  `a client's whole life on Redis Cluster, through a failover, without a 5xx${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  async () => {
    const cluster = await startCluster();
    try {
      await using gateway = await startGateway({ token: TOKEN, port: 0, redisUrl: cluster.url, replyTimeoutMs: 1_000 });
      await using app = await startApp({
        bundle: inject('workerBundle'),
        redis: { url: gateway.url, token: TOKEN },
        settings: { ...UNLIMITED, ...THREE_SESSIONS },
      });
      await wholeFlow(app);

      // The master of the very user who is in the middle of it.
      await wholeFlow(app, async () => {
        const [user] = await app.sql('select id from users order by created_at_ms desc limit 1');
        const master = await cluster.masterOf(slotOf(`{${String(user?.['id'])}}`));
        await master.kill();
      });
      await until(async () => {
        const states = await Promise.all(
          cluster.nodes.filter(({ running }) => running).map((node) => node.command('CLUSTER', 'INFO')),
        );
        return states.every((state) => String(state).includes('cluster_state:ok'));
      }, 'a replica has taken over');
      await wholeFlow(app);
    } finally {
      await cluster.stop();
    }
  },
);
