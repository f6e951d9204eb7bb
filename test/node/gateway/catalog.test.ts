import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBackend } from '../../../src/gateway/backends/cluster.ts';
import { CommandCatalog } from '../../../src/gateway/catalog.ts';
import { newClient } from '../../../src/gateway/client.ts';
import { KEYS, refusal } from '../../../src/gateway/commands.ts';
import { type EmbeddedEngine, startEmbeddedEngine } from '../../../src/gateway/embedded.ts';
import { type Command, JSON_SHAPE, type Outcome, type Reply } from '../../../src/gateway/reply.ts';
import {
  type Cluster,
  hasRedisServer,
  REDIS_MISSING,
  type RedisProcess,
  startCluster,
  startRedis,
  until,
} from '../../support/redisServers.ts';

type Client = ReturnType<typeof newClient>;

function asker(client: Client) {
  let asked = 0;
  return {
    get asked() {
      return asked;
    },
    ask: (command: Command): Promise<Outcome> => {
      asked++;
      return client.sendCommand<Reply>(command, { typeMapping: JSON_SHAPE }).catch((error: Error) => error);
    },
  };
}

async function connect(endpoint: { host: string; port: number; username?: string; password?: string }) {
  const client = newClient(endpoint);
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Compares the keys of every command that the server lists, with ones in every place, with the server's own word. */
async function compareAll(client: Client, table: typeof KEYS): Promise<{ compared: number; asked: number }> {
  const counter = asker(client);
  const catalog = new CommandCatalog(counter.ask, table);
  const list = (await client.sendCommand(['COMMAND'])) as unknown as [string, number, string[]][];
  let compared = 0;
  for (const [lower, arity] of list) {
    const name = lower.toUpperCase();
    if (refusal(name, [name]) !== undefined) continue;
    for (const extra of [0, 1, 2]) {
      const command = [name, ...Array.from({ length: Math.abs(arity) - 1 + (arity < 0 ? extra : 0) }, () => '1')];
      const theirs = await client.sendCommand<string[]>(['COMMAND', 'GETKEYS', ...command]).catch(() => undefined);
      if (theirs === undefined) continue; // such arguments make no command
      const ours = await catalog.findKeys(name, command as unknown as Command);
      expect({ command, keys: ours.map(String) }).toEqual({ command, keys: theirs });
      compared++;
    }
  }
  return { compared, asked: counter.asked };
}

describe('CommandCatalog on the embedded Valkey', () => {
  let engine: EmbeddedEngine;
  let client: Client;
  beforeAll(async () => {
    engine = await startEmbeddedEngine();
    client = await connect(engine.endpoint as { host: string; port: number });
  });
  afterAll(async () => {
    client.destroy();
    await engine.stop();
  });

  it('finds the keys of every command that the server lists', async () => {
    const { compared, asked } = await compareAll(client, KEYS);
    expect(compared).toBeGreaterThan(300);
    expect(asked).toBeGreaterThan(0); // Valkey 9 has commands that the table does not
  });

  it('finds them without a table of its own', async () => {
    expect((await compareAll(client, new Map())).compared).toBeGreaterThan(300);
  });

  it('asks the server about MSETEX, whose keys follow their number', async () => {
    const catalog = new CommandCatalog(asker(client).ask);
    const command: Command = ['MSETEX', '2', 'a', '1', 'b', '2', 'EX', '10'];
    expect((await catalog.findKeys('MSETEX', command)).map(String)).toEqual(['a', 'b']);
  });

  it('asks once about a command, and remembers nothing of names that are none', async () => {
    const counter = asker(client);
    const catalog = new CommandCatalog(counter.ask);
    for (let i = 0; i < 5; i++) await catalog.findKeys('DELIFEQ', ['DELIFEQ', 'k', 'v']);
    expect(counter.asked).toBe(1);
    for (let i = 0; i < 5; i++) await catalog.findKeys('NOSUCH', ['NOSUCH', 'k']);
    expect(counter.asked).toBe(6);
  });

  it('refuses unknown commands that block or administer, as the server describes them', async () => {
    const facts: Record<string, string[]> = { BLNEW: ['write', 'blocking'], ADMINNEW: ['admin'], GETNEW: ['readonly'] };
    const catalog = new CommandCatalog((command) => {
      const name = String(command[2]);
      return Promise.resolve([[Buffer.from(name), '2', (facts[name] ?? []).map((f) => Buffer.from(f)), '1', '1', '1']]);
    });
    expect(await catalog.refusal('BLNEW')).toMatch(/it blocks/);
    expect(await catalog.refusal('ADMINNEW')).toMatch(/administers/);
    expect(await catalog.refusal('GETNEW')).toBeUndefined();
    expect(await catalog.refusal('GET')).toBeUndefined();
  });
});

describe.skipIf(!hasRedisServer)(`CommandCatalog on redis-server${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let server: RedisProcess;
  let cluster: Cluster;
  beforeAll(async () => {
    [server, cluster] = await Promise.all([startRedis('--cluster-enabled', 'yes'), startCluster()]);
  });
  afterAll(async () => {
    await Promise.all([server?.stop(), cluster?.stop()]);
  });

  it('finds the keys of every command that the server lists, with and without a table of its own', async () => {
    const client = await connect({ host: '127.0.0.1', port: server.port });
    try {
      expect((await compareAll(client, KEYS)).compared).toBeGreaterThan(300);
      expect((await compareAll(client, new Map())).compared).toBeGreaterThan(300);
    } finally {
      client.destroy();
    }
  });

  it('routes commands on a cluster that the gateway does not know, each to its keys', async () => {
    const seeds = cluster.nodes.slice(0, 3).map(({ port }) => ({ host: '127.0.0.1', port }));
    // A gateway so old that it knows no command at all.
    const backend = new ClusterBackend(seeds, 'cluster', {}, new Map());
    try {
      await until(() => backend.connected, 'the cluster is connected');
      const keys = Array.from({ length: 20 }, (_, i) => `old:${i}`);
      const commands: Command[] = keys.flatMap((key): Command[] => [
        ['SET', key, key],
        ['EVAL', "return redis.call('GET', KEYS[1])", '1', key],
        ['ZADD', `z:${key}`, '1', key],
        ['ZUNION', '1', `z:${key}`],
        ['XADD', `x:${key}`, '1-1', 'f', key],
        ['XREAD', 'COUNT', '1', 'STREAMS', `x:${key}`, '0'],
        ['OBJECT', 'ENCODING', key],
        ['NOSUCHCOMMAND', key],
      ]);
      const outcomes = await backend.run(commands, JSON_SHAPE);
      keys.forEach((key, i) => {
        const [set, get, , union, , read, encoding, unknown] = outcomes.slice(i * 8, i * 8 + 8);
        expect([String(set), String(get), String(union), String(encoding)]).toEqual(['OK', key, key, 'embstr']);
        expect(JSON.stringify((read as Reply[]).flat(9).map(String))).toContain(key);
        expect((unknown as Error).message).toMatch(/^ERR unknown command/);
      });
    } finally {
      await backend.close(0);
    }
  });
});
