import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { startApp } from '../../support/app.ts';
import { testBindings } from '../../support/bindings.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, startRedis } from '../../support/redisServers.ts';

const TOKEN = 'concurrency-token';

interface Answer {
  status: number;
  /** Decided without Redis: by this isolate alone. */
  degraded: boolean;
}

/**
 * Two isolates with the same settings and one Redis between them get 200 requests of one address at the same time. The
 * requests carry no token: one that the limiter admits gets 401.
 */
async function compete(redisUrl: string): Promise<Answer[]> {
  await using gateway = await startGateway({ token: TOKEN, port: 0, redisUrl });
  const redis = { url: gateway.url, token: TOKEN };
  const settings = {
    ...testBindings(redis),
    LIMIT_API: '100/1h',
    // A busy machine must not make an isolate decide by itself.
    REDIS_GUARD_DEADLINE_MS: '10000',
    REDIS_CALL_TIMEOUT_MS: '20000',
    KEY_PREFIX: `t${randomUUID().slice(0, 8)}`,
  };
  const start = () => startApp({ bundle: inject('workerBundle'), redis, settings });
  await using first = await start();
  await using second = await start();
  // Both isolates are up, and the script is loaded, before they compete.
  for (const app of [first, second]) await (await fetch(`${app.url}/v1/users/me`)).arrayBuffer();

  const connections: net.Socket[] = [];
  try {
    // One after another: the two together must not overrun a server's backlog. Only then do all of them ask.
    for (let i = 0; i < 200; i += 1) connections.push(await connect(i % 2 === 0 ? first.url : second.url));
    return await Promise.all(connections.map((connection) => ask(connection, '203.0.113.7')));
  } finally {
    for (const connection of connections) connection.destroy();
  }
}

async function connect(url: string): Promise<net.Socket> {
  const { hostname, port } = new URL(url);
  const connection = net.connect({ host: hostname, port: Number(port), noDelay: true });
  await once(connection, 'connect');
  return connection;
}

async function ask(connection: net.Socket, address: string): Promise<Answer> {
  connection.write(
    `GET /v1/users/me HTTP/1.1\r\nHost: gatehouse.test\r\nCF-Connecting-IP: ${address}\r\nConnection: close\r\n\r\n`,
  );
  const answer = await text(connection);
  return {
    status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]),
    degraded: /^gatehouse-degraded:/im.test(answer),
  };
}

function expectExactly100(answers: readonly Answer[]): void {
  const count = (status: number) => answers.filter((answer) => answer.status === status).length;
  expect(answers.filter(({ degraded }) => degraded)).toEqual([]);
  expect({ admitted: count(401), refused: count(429) }).toEqual({ admitted: 100, refused: 100 });
}

describe.skipIf(!hasRedisServer)(
  `200 concurrent requests to two isolates at a limit of 100${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  () => {
    test('admits exactly 100 on Redis', async () => {
      const server = await startRedis();
      try {
        expectExactly100(await compete(server.url));
      } finally {
        await server.stop();
      }
    });

    test('admits exactly 100 on Redis Cluster with three masters', async () => {
      const cluster = await startCluster();
      try {
        expectExactly100(await compete(cluster.url));
      } finally {
        await cluster.stop();
      }
    });
  },
);
