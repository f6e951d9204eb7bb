import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { slotOf } from '../../src/gateway/slots.ts';
import {
  type Cluster,
  hasRedisServer,
  REDIS_MISSING,
  type RedisProcess,
  startCluster,
  until,
} from '../support/redisServers.ts';
import { gatewayFor, post } from './suite.ts';
import { startTraffic } from './traffic.ts';

describe.skipIf(!hasRedisServer)(`Redis Cluster under change${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let cluster: Cluster;
  let gateway: Gateway;
  beforeAll(async () => {
    cluster = await startCluster();
    gateway = await gatewayFor({ redisUrl: cluster.url, replyTimeoutMs: 1000 });
  });
  afterAll(async () => {
    await gateway?.close();
    await cluster?.stop();
  });

  it('serves without a single error while a slot is moved under traffic', async () => {
    const tag = '{moving}';
    const slot = slotOf(tag);
    const keys = Array.from({ length: 8 }, (_, i) => `${tag}:${i}`);
    const fillers = Array.from({ length: 200 }, (_, i) => `${tag}:filler:${i}`);
    await post(
      gateway,
      '/pipeline',
      fillers.map((key) => ['SET', key, key]),
    );
    const traffic = startTraffic(gateway, keys, { lossless: true });
    await until(() => traffic.tally.acknowledged > 200, 'traffic flows');

    for (let round = 0; round < 4; round++) {
      const source = await cluster.masterOf(slot);
      const target = cluster.nodes.slice(0, 3).find((node) => node !== source)!;
      await target.command('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', cluster.idOf(source));
      await source.command('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', cluster.idOf(target));
      for (;;) {
        const moving = (await source.command('CLUSTER', 'GETKEYSINSLOT', String(slot), '40')) as string[];
        if (moving.length === 0) break;
        await source.command(
          'MIGRATE',
          '127.0.0.1',
          String(target.port),
          '',
          '0',
          '5000',
          'REPLACE',
          'KEYS',
          ...moving,
        );
        const { body } = await post(
          gateway,
          '/pipeline',
          [...fillers, `${tag}:none`].map((key) => ['GET', key]),
        );
        expect((body as { result: string }[]).map(({ result }) => result)).toEqual([...fillers, null]);
      }
      const at = traffic.tally.acknowledged;
      await until(() => traffic.tally.acknowledged > at + 50, 'traffic flows through ASK');
      for (const node of [target, source, ...cluster.nodes.filter((other) => other !== source && other !== target)]) {
        await node.command('CLUSTER', 'SETSLOT', String(slot), 'NODE', cluster.idOf(target)).catch((error: Error) => {
          if (!error.message.includes('only with masters')) throw error; // only masters take the command
        });
      }
      expect(await post(gateway, '/', ['MGET', ...fillers])).toEqual({ status: 200, body: { result: fillers } });
    }

    await traffic.stop();
    expect(traffic.tally).toMatchObject({ wrong: [], refused: 0, uncertain: 0 });
    const counts = await traffic.counts();
    expect(counts).toEqual(traffic.perKey.map(({ acknowledged }) => acknowledged));
  });

  it.each([
    ['hangs', async (victim: RedisProcess) => victim.freeze()],
    ['is dead', (victim: RedisProcess) => victim.kill()],
  ])('serves the other shards while a master %s, follows to its replica, and runs nothing twice', async (how, fail) => {
    const keys = Array.from({ length: 12 }, (_, i) => `${how}:${i}`);
    const victim = await cluster.masterOf(slotOf(keys[0]!));
    const spared: string[] = [];
    for (const key of keys) if ((await cluster.masterOf(slotOf(key))) !== victim) spared.push(key);
    expect(spared.length).toBeGreaterThan(0);
    const traffic = startTraffic(gateway, keys, { lossless: false });
    await until(() => traffic.tally.acknowledged > 300, 'traffic flows');
    await fail(victim);
    await until(() => traffic.tally.refused > 0, 'commands for the dead shard are refused');
    for (const key of spared) expect(await post(gateway, '/', ['EXISTS', key])).toMatchObject({ body: { result: 1 } });

    const served = async () => {
      const replies = await Promise.all(keys.map((key) => post(gateway, '/', ['EXISTS', key])));
      return replies.every(({ status }) => status === 200);
    };
    await until(served, 'the replica has taken over');
    const { refused, uncertain, acknowledged } = traffic.tally;
    await until(() => traffic.tally.acknowledged > acknowledged + 300, 'traffic flows again');
    await traffic.stop();
    expect(traffic.tally.wrong).toEqual([]);
    expect(traffic.tally.refused - refused + traffic.tally.uncertain - uncertain).toBeLessThanOrEqual(keys.length);
    const counts = await traffic.counts();
    traffic.perKey.forEach(({ key, acknowledged: known, uncertain: maybe }, i) => {
      expect(counts[i]).toBeLessThanOrEqual(known + maybe);
      // A failover may lose the newest writes of its own shard, not those of the others.
      expect(counts[i]).toBeGreaterThanOrEqual(spared.includes(key) ? known : 1);
    });
    // What hung comes back as a replica.
    if (victim.running) victim.resume();
    else await victim.restart();
    await until(async () => {
      const info = String(await victim.command('INFO', 'replication'));
      return info.includes('role:slave') && info.includes('master_link_status:up');
    }, 'the old master has become a replica');
    expect(await served()).toBe(true);
  });

  it('refuses transactions over several slots with CROSSSLOT, and runs nothing of them', async () => {
    const reply = await post(gateway, '/multi-exec', [
      ['SET', 'a', '1'],
      ['SET', 'b', '1'],
    ]);
    expect(reply).toEqual({ status: 400, body: { error: "CROSSSLOT Keys in request don't hash to the same slot" } });
    expect(await post(gateway, '/', ['EXISTS', 'a', 'b'])).toMatchObject({ body: { result: 0 } });
    expect(await post(gateway, '/', ['RENAME', 'a', 'b'])).toMatchObject({
      status: 400,
      body: { error: expect.stringMatching(/^CROSSSLOT/) },
    });
    const whole = await post(gateway, '/multi-exec', [['SET', 'a', '1'], ['DBSIZE']]);
    expect(whole).toMatchObject({ status: 400, body: { error: expect.stringMatching(/all shards/) } });
  });
});
