import { once } from 'node:events';
import { connect, createServer, type Server } from 'node:net';
import { Redis } from '@upstash/redis';
import { Ratelimit } from '@upstash/ratelimit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { type Cluster, hasRedisServer, REDIS_MISSING, startCluster, until } from '../support/redisServers.ts';
import { gatewayFor, TOKEN } from './suite.ts';

/** A balancer as simple as they come: each connection goes to the next gateway. */
async function startBalancer(ports: readonly number[]): Promise<{ url: string; server: Server; used: number[] }> {
  const used = ports.map(() => 0);
  let next = 0;
  const server = createServer((client) => {
    const at = next++ % ports.length;
    used[at]!++;
    const upstream = connect(ports[at]!, '127.0.0.1');
    client.pipe(upstream).pipe(client);
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      socket.on('error', () => {});
      socket.on('close', () => other.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as { port: number }).port}`, server, used };
}

describe.skipIf(!hasRedisServer)(`several gateways${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let cluster: Cluster;
  let gateways: Gateway[];
  let balancer: Awaited<ReturnType<typeof startBalancer>>;
  let redis: Redis;
  beforeAll(async () => {
    cluster = await startCluster();
    gateways = await Promise.all([1, 2, 3].map(() => gatewayFor({ redisUrl: cluster.url })));
    balancer = await startBalancer(gateways.map(({ port }) => port));
    // Without keep-alive every request may meet another gateway.
    redis = new Redis({ url: balancer.url, token: TOKEN, retry: false, keepAlive: false });
    await until(async () => {
      const states = await Promise.all(gateways.map(({ url }) => fetch(`${url}/ready`)));
      return states.every(({ status }) => status === 200);
    }, 'all gateways are ready');
  });
  afterAll(async () => {
    balancer?.server.close();
    await Promise.all((gateways ?? []).map((gateway) => gateway.close()));
    await cluster?.stop();
  });

  it('run scripts that another gateway has loaded, those for Upstash with key locking too', async () => {
    const script = "#!lua flags=allow-key-locking\nreturn redis.call('INCR', KEYS[1])";
    const limiter = new Ratelimit({ redis, limiter: Ratelimit.slidingWindow(5, '1 h'), ephemeralCache: false });
    const plain = redis.createScript<number>("return redis.call('INCR', KEYS[1])");
    const locking = redis.createScript<number>(script);
    for (let i = 1; i <= 12; i++) {
      expect(await plain.exec(['plain'], [])).toBe(i);
      expect(await locking.exec(['locking'], [])).toBe(i);
    }
    const outcomes: boolean[] = [];
    for (let i = 0; i < 9; i++) outcomes.push((await limiter.limit('{someone}')).success);
    expect(outcomes.filter(Boolean)).toHaveLength(5);
  });

  it('keep transactions atomic among each other', async () => {
    const rounds = Array.from({ length: 60 }, () =>
      redis.multi().incr('{tx}:n').get('{tx}:n').incr('{tx}:n').exec<[number, number, number]>(),
    );
    for (const [first, seen, second] of await Promise.all(rounds)) expect([seen, second]).toEqual([first, first + 1]);
    expect(await redis.get('{tx}:n')).toBe(120);
  });

  it('deliver a message that is published through one to the subscribers of all', async () => {
    const received: unknown[][] = [[], [], [], [], [], []];
    let confirmed = 0;
    const subscribers = received.map((messages) => {
      const subscriber = redis.subscribe<number>('balanced');
      subscriber.on('subscribe', () => confirmed++);
      subscriber.on('message', ({ message }) => messages.push(message));
      return subscriber;
    });
    await until(() => confirmed === received.length, 'all are subscribed');
    for (let i = 0; i < 20; i++) await redis.publish('balanced', i);
    await until(() => received.every((messages) => messages.length === 20), 'all messages arrive');
    for (const messages of received) expect(messages).toEqual(Array.from({ length: 20 }, (_, i) => i));
    for (const subscriber of subscribers) await subscriber.unsubscribe();
    expect(balancer.used.every((connections) => connections > 0)).toBe(true);
  });

  it('one goes on with a SCAN that another has begun', async () => {
    const names = Array.from({ length: 300 }, (_, i) => `scanned:${i}`);
    await Promise.all(names.map((name) => redis.set(name, 1)));
    const seen = new Set<string>();
    let cursor = '0';
    let pages = 0;
    do {
      const through = new Redis({ url: gateways[pages++ % 3]!.url, token: TOKEN, retry: false });
      const [next, keys] = await through.scan(cursor, { match: 'scanned:*', count: 40 });
      for (const key of keys) seen.add(key);
      cursor = next;
    } while (cursor !== '0');
    expect([...seen].toSorted()).toEqual(names.toSorted());
  });
});
