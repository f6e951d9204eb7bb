import { expect, inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { slotOf } from '../../../src/gateway/slots.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import { clientOf } from '../../support/client.ts';
import { THREE_SESSIONS, wholeFlow } from '../../support/flow.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, until } from '../../support/redisServers.ts';

const TOKEN = 'cluster-token';
const METRICS_TOKEN = 'a-token-of-a-scraper';

/** The script adds counts to three keys at once: they have to be in one slot. */
async function expectCounted({ url }: { url: string }): Promise<void> {
  const call = clientOf(url);
  const requests = async () => {
    const { status, body } = await call('GET', '/metrics', { token: METRICS_TOKEN });
    expect(status).toBe(200);
    const line = /_count\{http_request_method="GET",http_route="\/health",http_response_status_code="200"\} (\d+)/;
    return Number(line.exec(String(body))?.[1] ?? 0);
  };
  const before = await requests();
  for (let time = 0; time < 7; time += 1) await call('GET', '/health');
  expect((await requests()) - before).toBe(7);
}

test.skipIf(!hasRedisServer)(
  `a client's whole life on Redis Cluster, through a failover, without a 5xx${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  async () => {
    const cluster = await startCluster();
    try {
      await using gateway = await startGateway({ token: TOKEN, port: 0, redisUrl: cluster.url, replyTimeoutMs: 1_000 });
      await using app = await startApp({
        bundle: inject('workerBundle'),
        redis: { url: gateway.url, token: TOKEN },
        settings: { ...UNLIMITED, ...THREE_SESSIONS, METRICS_TOKEN, METRICS_INTERVAL_MS: '10000' },
      });
      await wholeFlow(app);
      await expectCounted(app);

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
