import { mkdir } from 'node:fs/promises';
import { afterEach, describe, expect, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import type { Gateway } from '../../../src/gateway/gateway.ts';
import { createRedisClient } from '../../../src/redis/client.ts';
import type { Command, Reply } from '../../../src/redis/client.ts';
import { RedisUnavailable } from '../../../src/redis/errors.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, startRedis, until } from '../../support/redisServers.ts';

const TOKEN = 'reply-texts';
const SET = "return redis.call('SET', KEYS[1], 'x')";
const SHEBANG = `#!lua\n${SET}`;
/** A write as it is, in a script, in a script with a shebang, and through a pcall whose error the script returns. */
const WRITES: Command[] = [
  ['SET', 'k', 'x'],
  ['EVAL', SET, 1, 'k'],
  ['EVAL', SHEBANG, 1, 'k'],
  ['EVAL', SET.replace('call', 'pcall'), 1, 'k'],
];
const READS: Command[] = [
  ['GET', 'k'],
  ['EVAL', "return redis.call('GET', KEYS[1])", 1, 'k'],
];

let stop: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of stop.reverse()) await end();
  stop = [];
});

async function gatewayTo(redisUrl?: string) {
  const gateway: Gateway = await startGateway({ token: TOKEN, port: 0, ...(redisUrl !== undefined && { redisUrl }) });
  stop.push(() => gateway.close());
  const client = createRedisClient({ url: gateway.url, token: TOKEN });
  return (...commands: Command[]) => client.execute(commands);
}

async function serverWith(...args: string[]) {
  const server = await startRedis(...args);
  stop.push(() => server.stop());
  return server;
}

function expectAll(replies: readonly Reply[], reason: 'state' | 'shard', code: string): void {
  for (const reply of replies) expect(reply.error).toMatchObject({ name: 'RedisUnavailable', reason, code });
}

describe.skipIf(!hasRedisServer)(`a real Redis${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`, () => {
  test('that is a replica', async () => {
    const master = await serverWith();
    const replica = await serverWith('--replicaof', '127.0.0.1', String(master.port));
    await until(
      async () => /link_status:up/.test(String(await replica.command('INFO', 'replication'))),
      'it is in sync',
    );
    const ask = await gatewayTo(replica.url);
    expectAll(await ask(...WRITES), 'state', 'READONLY');
  });

  test('that has lost its master, and serves nothing stale', async () => {
    const master = await serverWith();
    const where = ['127.0.0.1', String(master.port)];
    const replica = await serverWith('--replicaof', ...where, '--replica-serve-stale-data', 'no');
    await until(
      async () => /link_status:up/.test(String(await replica.command('INFO', 'replication'))),
      'it is in sync',
    );
    const ask = await gatewayTo(replica.url);
    await ask(...READS);
    await master.kill();
    await until(async () => (await ask(['GET', 'k']))[0]?.error !== undefined, 'it has noticed');
    expectAll(await ask(...READS), 'state', 'MASTERDOWN');
  });

  test('that is out of memory', async () => {
    const server = await serverWith();
    const ask = await gatewayTo(server.url);
    await server.command('CONFIG', 'SET', 'maxmemory', '1');
    expectAll(await ask(...WRITES), 'state', 'OOM');
  });

  test('that cannot save', async () => {
    const server = await serverWith();
    await server.command('CONFIG', 'SET', 'save', '3600 1000000');
    const ask = await gatewayTo(server.url);
    // Where its file belongs there is a directory.
    const [, directory] = (await server.command('CONFIG', 'GET', 'dir')) as string[];
    await mkdir(`${directory}/dump.rdb`);
    await server.command('BGSAVE');
    await until(
      async () => /rdb_last_bgsave_status:err/.test(String(await server.command('INFO', 'persistence'))),
      'a save has failed',
    );
    expectAll(await ask(...WRITES), 'state', 'MISCONF');
  });

  test('that has too few replicas', async () => {
    const server = await serverWith('--min-replicas-to-write', '1');
    const ask = await gatewayTo(server.url);
    expectAll(await ask(...WRITES), 'state', 'NOREPLICAS');
  });

  test('that is busy with a script', async () => {
    const server = await serverWith('--busy-reply-threshold', '20');
    const ask = await gatewayTo(server.url);
    await ask(['PING']);
    const endless = server.command('EVAL', 'while true do end', '0').catch(() => undefined);
    await until(async () => (await ask(['GET', 'k']))[0]?.error !== undefined, 'it is busy');
    expectAll(await ask(...WRITES, ...READS), 'state', 'BUSY');
    await server.command('SCRIPT', 'KILL');
    await endless;
  });

  test('that is loading', async () => {
    const slowly = ['--key-load-delay', '500', '--loading-process-events-interval-bytes', '1024'];
    const server = await serverWith('--enable-debug-command', 'local', ...slowly);
    const ask = await gatewayTo(server.url);
    await server.command('DEBUG', 'POPULATE', '100000');
    const loading = server.command('DEBUG', 'RELOAD').catch(() => undefined);
    await until(async () => {
      const [reply] = await ask(['GET', 'k']);
      return reply?.error instanceof RedisUnavailable && reply.error.code === 'LOADING';
    }, 'it loads');
    expectAll(await ask(...WRITES, ...READS), 'state', 'LOADING');
    await server.kill();
    await loading;
  });

  test('whose users are restricted: a matter of the command', async () => {
    const server = await serverWith();
    await server.command('ACL', 'SETUSER', 'default', '-set');
    const ask = await gatewayTo(server.url);
    for (const { error } of await ask(...WRITES)) expect(error?.name).toBe('RedisReplyError');
    expect(await ask(['GET', 'k'])).toEqual([{ value: null }]);
  });

  test('a cluster without the slot, and one that is down', async () => {
    const cluster = await startCluster();
    stop.push(() => cluster.stop());
    const ask = await gatewayTo(cluster.url);
    expect(await ask(['SET', 'k', 'x'])).toEqual([{ value: 'OK' }]);
    // "k" is in slot 7629, of the second master.
    await Promise.all([cluster.nodes[1]!, cluster.nodes[4]!].map((node) => node.kill()));
    for (const { error } of await ask(...WRITES, ...READS)) {
      expect(error).toMatchObject({ name: 'RedisUnavailable', reason: 'shard' });
    }
    for (const node of [cluster.nodes[0]!, cluster.nodes[2]!]) {
      await node.command('CONFIG', 'SET', 'cluster-require-full-coverage', 'yes');
    }
    await until(
      async () => /cluster_state:fail/.test(String(await cluster.nodes[0]!.command('CLUSTER', 'INFO'))),
      'the cluster is down',
    );
    // "a" is in slot 15495, of the third.
    expectAll(await ask(['SET', 'a', 'x'], ['EVAL', SET, 1, 'a']), 'shard', 'CLUSTERDOWN');
  });
});

test('the embedded Valkey: errors of one command', async () => {
  const ask = await gatewayTo();
  await ask(['RPUSH', 'list', 'x']);
  const replies = await ask(['GET', 'list'], ['EVAL', "return redis.call('GET', KEYS[1])", 1, 'list'], ['NONSENSE']);
  expect(replies.map(({ error }) => error)).toMatchObject([
    { name: 'RedisReplyError', code: 'WRONGTYPE' },
    { name: 'RedisReplyError', code: 'WRONGTYPE' },
    { name: 'RedisReplyError', code: 'ERR' },
  ]);
});
