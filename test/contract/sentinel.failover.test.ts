import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Gateway } from '../../src/gateway/gateway.ts';
import {
  hasRedisServer,
  REDIS_MISSING,
  type SentinelGroup,
  startSentinelGroup,
  until,
} from '../support/redisServers.ts';
import { gatewayFor, post } from './suite.ts';
import { startTraffic } from './traffic.ts';

describe.skipIf(!hasRedisServer)(`Sentinel failover${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let group: SentinelGroup;
  let gateway: Gateway;
  beforeEach(async () => {
    group = await startSentinelGroup();
    gateway = await gatewayFor({ redisUrl: group.url, replyTimeoutMs: 1000 });
  });
  afterEach(async () => {
    await gateway?.close();
    await group?.stop();
  });

  it.each([
    ['crashes', async (group: SentinelGroup) => (await group.master()).kill()],
    ['hangs', async (group: SentinelGroup) => (await group.master()).freeze()],
  ])('follows to the new master when the old one %s, without running anything twice', async (how, fail) => {
    const keys = Array.from({ length: 8 }, (_, i) => `${how}:${i}`);
    const traffic = startTraffic(gateway, keys, { lossless: false });
    await until(() => traffic.tally.acknowledged > 300, 'traffic flows');
    const old = await group.master();
    await fail(group);
    await until(() => traffic.tally.refused > 0, 'commands are refused');
    const away = performance.now();
    expect(await post(gateway, '/', ['PING'])).toMatchObject({ status: 503 });
    await until(async () => (await group.master()) !== old, 'Sentinel names another master');
    await until(async () => (await post(gateway, '/', ['PING'])).status === 200, 'the gateway follows');

    const { refused, uncertain, acknowledged } = traffic.tally;
    await until(() => traffic.tally.acknowledged > acknowledged + 300, 'traffic flows again');
    await traffic.stop();
    expect(traffic.tally.wrong).toEqual([]);
    // Those that were being answered when the gateway had recovered may still be counted; nothing after them.
    expect(traffic.tally.refused - refused + traffic.tally.uncertain - uncertain).toBeLessThanOrEqual(keys.length);
    const counts = await traffic.counts();
    traffic.perKey.forEach(({ acknowledged: known, uncertain: maybe }, i) => {
      expect(counts[i]).toBeLessThanOrEqual(known + maybe);
    });
    expect(counts.reduce((sum, n) => sum + n, 0)).toBeGreaterThan(300);
    // The old master comes back, and takes itself for the master still; the gateway must not return to it.
    if (old.running) old.resume();
    else await old.restart();
    const fresh = await group.master();
    await until(async () => {
      const value = String(performance.now());
      const { status } = await post(gateway, '/', ['SET', 'after', value]);
      expect(status).toBe(200);
      expect(await fresh.command('GET', 'after')).toBe(value);
      return performance.now() > away + 1500;
    }, 'a second and a half has passed');
  });
});
