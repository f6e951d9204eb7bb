import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { slotOf } from '../../src/gateway/slots.ts';
import {
  type Cluster,
  hasRedisServer,
  REDIS_MISSING,
  type RedisProcess,
  startCluster,
  startRedis,
  until,
} from '../support/redisServers.ts';
import { gatewayFor, post } from './suite.ts';

describe.skipIf(!hasRedisServer)(`shards of a cluster${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let cluster: Cluster;
  let gateway: Gateway;
  const extra: RedisProcess[] = [];
  beforeAll(async () => {
    cluster = await startCluster();
    gateway = await gatewayFor({ redisUrl: cluster.url, replyTimeoutMs: 3000, maxInFlight: 4000 });
  });
  afterAll(async () => {
    await gateway?.close();
    await cluster?.stop();
    await Promise.all(extra.map((server) => server.stop()));
  });

  it('a slot moves to a new node without slots, which CLUSTER SLOTS does not name, without an error', async () => {
    const tag = '{to-the-new-node}';
    const slot = slotOf(tag);
    const keys = Array.from({ length: 20 }, (_, i) => `${tag}:${i}`);
    for (const key of keys) expect(await post(gateway, '/', ['SET', key, key])).toMatchObject({ status: 200 });
    const fresh = await startRedis('--cluster-enabled', 'yes', '--cluster-node-timeout', '1000');
    extra.push(fresh);
    const id = String(await fresh.command('CLUSTER', 'MYID'));
    await cluster.nodes[0]!.command('CLUSTER', 'MEET', '127.0.0.1', String(fresh.port));
    await until(async () => {
      const known = await Promise.all(cluster.nodes.map((node) => node.command('CLUSTER', 'NODES')));
      return known.every((text) => new RegExp(`^${id} .* master - .* connected`, 'm').test(String(text)));
    }, 'all nodes know the new one');
    const state = async () => String(await fresh.command('CLUSTER', 'INFO'));
    await until(async () => (await state()).includes('cluster_state:ok'), 'the new one takes part');

    const source = await cluster.masterOf(slot);
    await fresh.command('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', cluster.idOf(source));
    await source.command('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', id);
    const move = ['MIGRATE', '127.0.0.1', String(fresh.port), '', '0', '5000', 'REPLACE', 'KEYS'];
    await source.command(...move, ...keys.slice(0, 10));
    for (const key of keys)
      expect(await post(gateway, '/', ['GET', key])).toEqual({ status: 200, body: { result: key } });
    const script = "return redis.call('GET', KEYS[1])";
    for (const key of keys) {
      expect(await post(gateway, '/', ['EVAL', script, '1', key])).toEqual({ status: 200, body: { result: key } });
      expect(await post(gateway, '/multi-exec', [['EVAL', script, '1', key]])).toEqual({
        status: 200,
        body: [{ result: key }],
      });
    }
    await source.command(...move, ...keys.slice(10));
    for (const node of [fresh, source]) await node.command('CLUSTER', 'SETSLOT', String(slot), 'NODE', id);
    for (const key of keys) {
      expect(await post(gateway, '/', ['EVAL', script, '1', key])).toEqual({ status: 200, body: { result: key } });
    }
  });

  it('one that is silent, or dead, names itself in its errors, while the others serve at full speed', async () => {
    const keys = Array.from({ length: 60 }, (_, i) => `shard:${i}`);
    const victim = await cluster.masterOf(slotOf(keys[0]!));
    const lost: string[] = [];
    const live: string[] = [];
    for (const key of keys) ((await cluster.masterOf(slotOf(key))) === victim ? lost : live).push(key);
    // Its replica as well, or it would take over.
    const silent = [victim, cluster.nodes[cluster.nodes.indexOf(victim) + 3]!];
    for (const node of silent) node.freeze();

    // Load on the silent shard all the while, more of it than may wait at a time; none of it has a reply yet.
    const stop = new AbortController();
    const errors: { status: number; error: string; slot: number }[] = [];
    let waiting = 0;
    const load = Array.from({ length: 10 }, async (_, n) => {
      while (!stop.signal.aborted) {
        const key = lost[n % lost.length]!;
        waiting++;
        const { status, body } = await post(
          gateway,
          '/pipeline',
          Array.from({ length: 200 }, () => ['INCR', key]),
        );
        waiting--;
        // A whole pipeline that no server took is one error.
        const { error } = body as { error: string };
        if (error) errors.push({ status, error, slot: slotOf(key) });
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    });
    await until(() => waiting > 0, 'commands wait for the silent shard');
    // Each of these comes back although the other shard's commands wait: they stand in no common line.
    let served = 0;
    const turnedAway: unknown[] = [];
    await until(async () => {
      const replies = await Promise.all(live.map((key) => post(gateway, '/', ['INCR', key])));
      for (const { status, body } of replies) {
        if (status === 200) served++;
        else turnedAway.push(body);
      }
      return served > 1000;
    }, 'a thousand commands of the other shards are served');
    stop.abort();
    await Promise.all(load);
    expect(turnedAway).toEqual([]);
    const named = errors.filter(({ error }) => error.startsWith('UNAVAILABLE'));
    expect(named.length).toBeGreaterThan(0);
    for (const { status, error, slot } of named) {
      expect(status).toBe(503);
      const ranges = /\(shard of slots ([\d,-]+)(?: and \d+ more ranges)? at 127\.0\.0\.1:(\d+)\)$/.exec(error);
      if (error.endsWith(`(slot ${slot})`)) continue;
      expect({ error, ranges }).toEqual({ error, ranges: expect.anything() });
    }
    for (const node of silent) node.resume();
  });
});
