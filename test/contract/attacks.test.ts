import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { aclLines, FULL_RULES, READ_ONLY_RULES } from '../../src/gateway/acl.ts';
import type { Gateway, GatewayOptions } from '../../src/gateway/gateway.ts';
import type { LogEntry } from '../../src/gateway/log.ts';
import { slotOf } from '../../src/gateway/slots.ts';
import {
  type Cluster,
  hasRedisServer,
  REDIS_MISSING,
  type RedisProcess,
  startCluster,
  until,
} from '../support/redisServers.ts';
import { gatewayFor, post, TOKEN } from './suite.ts';

const READ_ONLY = 'read-only-token';
const asReader = { authorization: `Bearer ${READ_ONLY}` };

/** A server that stands where an attacker wants the gateway to go; what it gets is kept. */
async function startTrap() {
  const received: string[] = [];
  const server = createServer((socket) => {
    received.push('');
    socket.on('data', (chunk: Buffer) => (received[received.length - 1] += chunk.toString()));
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as { port: number }).port, received, stop: () => server.close() };
}

describe.skipIf(!hasRedisServer)(`attacks on a cluster${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  let cluster: Cluster;
  /** The gateway as the documentation advises: two users with little more than they need. */
  let guarded: Gateway;
  /** The gateway with Redis's default user, who may do everything. */
  let trusting: Gateway;
  const logged: LogEntry[] = [];
  const guardedLog: LogEntry[] = [];
  const asFull = (gateway: Gateway, ...command: string[]) => post(gateway, '/', command);
  const asReaderOf = (gateway: Gateway, ...command: string[]) => post(gateway, '/', command, asReader);
  const urlOf = (user: string) => cluster.url.replace('://', `://${user}:pass@`);
  const start = (options: Partial<GatewayOptions>) => gatewayFor({ readOnlyToken: READ_ONLY, ...options });

  const prepare = async (node: RedisProcess) => {
    await node.command('ACL', 'SETUSER', 'gateway', 'on', '>pass', ...FULL_RULES);
    await node.command('ACL', 'SETUSER', 'gateway_ro', 'on', '>pass', ...READ_ONLY_RULES);
    await node.command('CONFIG', 'SET', 'busy-reply-threshold', '200');
    // On a busy machine a node that a script holds up would be taken for dead, and its replica would take over.
    await node.command('CONFIG', 'SET', 'cluster-node-timeout', '600000');
  };

  beforeAll(async () => {
    cluster = await startCluster();
    for (const node of cluster.nodes) await prepare(node);
    trusting = await start({ redisUrl: cluster.url, log: (entry) => logged.push(entry) });
    guarded = await start({
      redisUrl: urlOf('gateway'),
      readOnlyRedisUrl: urlOf('gateway_ro'),
      scriptTimeoutMs: 300,
      log: (entry) => guardedLog.push(entry),
    });
    await until(
      async () => (await asReaderOf(guarded, 'EVAL_RO', 'return 1', '0')).status === 200,
      'the read-only user is known to be one',
    );
  });
  afterAll(async () => {
    await trusting?.close();
    await guarded?.close();
    await cluster?.stop();
  });

  describe('a script that pretends to be a redirection', () => {
    let trap: Awaited<ReturnType<typeof startTrap>>;
    beforeAll(async () => {
      trap = await startTrap();
    });
    afterAll(() => trap.stop());
    const key = 'redirect:me';
    const slot = slotOf(key);
    const other = (slot + 8000) % 16_384;

    it.each([
      ['without keys', `MOVED ${slot}`, []],
      ['with its own slot', `MOVED ${slot}`, [key]],
      ['with another slot', `MOVED ${other}`, [key]],
      ['as ASK', `ASK ${slot}`, [key]],
      ['as ASK of another slot', `ASK ${other}`, [key]],
    ])('%s is data: nothing connects to its address, and no slot moves', async (_how, word, keys) => {
      const text = `${word} 127.0.0.1:${trap.port}`;
      const script = `return redis.error_reply('${text}')`;
      const owner = await cluster.masterOf(slot);
      for (const ask of [
        () => asReaderOf(guarded, 'EVAL_RO', script, String(keys.length), ...keys),
        () => asFull(guarded, 'EVAL', script, String(keys.length), ...keys),
        () => asFull(trusting, 'EVAL', script, String(keys.length), ...keys),
      ]) {
        expect(await ask()).toEqual({ status: 400, body: { error: text } });
      }
      const nested = await post(trusting, '/multi-exec', [['EVAL', script, String(keys.length), ...keys]]);
      expect(nested).toEqual({ status: 200, body: [{ error: text }] });
      expect(trap.received).toEqual([]);
      const gets = Number(
        /cmdstat_get:calls=(\d+)/.exec(String(await owner.command('INFO', 'commandstats')))?.[1] ?? 0,
      );
      expect(await asFull(trusting, 'GET', key)).toEqual({ status: 200, body: { result: null } });
      const after = /cmdstat_get:calls=(\d+)/.exec(String(await owner.command('INFO', 'commandstats')))?.[1];
      expect(Number(after)).toBe(gets + 1);
    });

    it('to a real node, or to wait, is run once', async () => {
      const owner = await cluster.masterOf(slot);
      const elsewhere = cluster.nodes.slice(0, 3).find((node) => node !== owner)!;
      for (const error of [
        `MOVED ${slot} 127.0.0.1:${elsewhere.port}`,
        `ASK ${slot} 127.0.0.1:${elsewhere.port}`,
        'TRYAGAIN later',
      ]) {
        await asFull(trusting, 'DEL', key);
        const script = `redis.call('INCR', KEYS[1]); return redis.error_reply('${error}')`;
        expect(await asFull(trusting, 'EVAL', script, '1', key)).toMatchObject({ body: { error } });
        expect(await asFull(trusting, 'GET', key)).toMatchObject({ body: { result: '1' } });
      }
    });

    it('in a function is data as well', async () => {
      const text = `MOVED ${slot} 127.0.0.1:${trap.port}`;
      const library = `#!lua name=trap\nredis.register_function('trap', function() return redis.error_reply('${text}') end)`;
      expect(await asFull(trusting, 'FUNCTION', 'LOAD', 'REPLACE', library)).toMatchObject({ status: 200 });
      expect(await asFull(trusting, 'FCALL', 'trap', '1', key)).toEqual({ status: 400, body: { error: text } });
      await asFull(trusting, 'FUNCTION', 'DELETE', 'trap');
      expect(trap.received).toEqual([]);
    });
  });

  describe('a script that administers', () => {
    const script = (...words: string[]) => `return redis.call(${words.map((word) => `'${word}'`).join(',')})`;
    const forbidden = [
      ['CLUSTER', 'DELSLOTSRANGE', '0', '1'],
      ['CLUSTER', 'MEET', '127.0.0.1', '1'],
      ['CLUSTER', 'ADDSLOTS', '1'],
      ['CLUSTER', 'FORGET', 'x'.repeat(40)],
      ['SLOWLOG', 'RESET'],
      ['SELECT', '0'],
      ['SWAPDB', '0', '1'],
      ['MIGRATE', '127.0.0.1', '1', 'k', '0', '100'],
      ['LATENCY', 'RESET'],
      ['CONFIG', 'GET', '*'],
    ];

    it.each(forbidden)('%s %s is refused by Redis to both tokens', async (...words) => {
      for (const outcome of [
        await asReaderOf(guarded, 'EVAL_RO', script(...words), '0'),
        await asFull(guarded, 'EVAL', script(...words), '0'),
      ]) {
        expect(outcome.status).toBe(400);
        expect(outcome.body).toMatchObject({ error: expect.stringMatching(/can't run this command|not allowed/) });
      }
      expect(await cluster.nodes[0]!.command('CLUSTER', 'INFO')).toContain('cluster_slots_assigned:16384');
    });

    it('does not run with the read-only token where that has no Redis user of its own', async () => {
      for (const command of [
        ['EVAL_RO', 'return 1', '0'],
        ['EVALSHA_RO', 'f'.repeat(40), '0'],
        ['FCALL_RO', 'f', '0'],
        ['EVAL', 'return 1', '0'],
      ]) {
        expect(await asReaderOf(trusting, ...command)).toMatchObject({
          status: 400,
          body: { error: expect.stringMatching(/^NOPERM .*REDIS_READONLY_URL/) },
        });
        expect(await post(trusting, '/multi-exec', [command], asReader)).toMatchObject({
          status: 400,
          body: { error: expect.stringMatching(/^NOPERM /) },
        });
      }
      expect(await asReaderOf(trusting, 'GET', 'k')).toMatchObject({ status: 200 });
    });

    it('does not run with the read-only token whose Redis user may write', async () => {
      const wrong = await start({ redisUrl: urlOf('gateway'), readOnlyRedisUrl: urlOf('gateway') });
      try {
        const errors = new Set<string>();
        const refused = async () => {
          const { body } = await asReaderOf(wrong, 'EVAL_RO', 'return 1', '0');
          const { error } = body as { error?: string };
          errors.add(String(error));
          return String(error).includes('may do more than read');
        };
        await until(refused, 'Redis has reported what its user may do');
        // Nor did it before.
        for (const error of errors) expect(error).toMatch(/^(NOPERM|UNAVAILABLE) /);
      } finally {
        await wrong.close();
      }
    });

    it('cannot write with the read-only token', async () => {
      for (const words of [['SET', 'k', 'v'], ['PUBLISH', 'c', 'm'], ['FLUSHALL']]) {
        const outcome = await asReaderOf(guarded, 'EVAL_RO', script(...words), '0');
        expect(outcome.status).toBe(400);
      }
      await asFull(guarded, 'SET', 'readable', 'value');
      expect(await asReaderOf(guarded, 'EVAL_RO', "return redis.call('GET', KEYS[1])", '1', 'readable')).toEqual({
        status: 200,
        body: { result: 'value' },
      });
    });

    it('is warned of at the start, with the lines to paste', () => {
      const warning = logged.find(({ event }) => event === 'redis_user_too_powerful')!;
      expect(warning).toMatchObject({ level: 'warn', user: 'default', aclLines: aclLines() });
      for (const name of ['CLUSTER MEET', 'CLUSTER DELSLOTSRANGE', 'SLOWLOG RESET', 'SELECT', 'MIGRATE', 'SWAPDB']) {
        expect(warning['beyondData']).toContain(name);
      }
      const users = guardedLog.filter(({ event }) => event === 'redis_user');
      expect(users.map(({ user, beyondData }) => [user, beyondData])).toEqual(
        expect.arrayContaining([
          ['gateway', []],
          ['gateway_ro', []],
        ]),
      );
      expect(guardedLog.filter(({ event }) => event === 'redis_user_too_powerful')).toEqual([]);
    });
  });

  describe('a script without an end', () => {
    const ENDLESS = 'while true do end';
    const killed = (what: string) => guardedLog.some(({ event, kind }) => event === 'script_killed' && kind === what);

    it('is killed after the time that is set, and the log says so', async () => {
      const outcome = await asReaderOf(guarded, 'EVAL_RO', ENDLESS, '0');
      expect(outcome).toMatchObject({ status: 400, body: { error: expect.stringMatching(/killed by user/i) } });
      await until(() => killed('SCRIPT'), 'the log has an entry for it');
      expect(await asFull(guarded, 'EVAL', 'return 1', '0')).toMatchObject({ status: 200 });
    });

    it('as a function is killed too', async () => {
      const library = `#!lua name=endless\nredis.register_function{function_name='endless', callback=function() ${ENDLESS} end, flags={'no-writes'}}`;
      expect(await asFull(guarded, 'FUNCTION', 'LOAD', 'REPLACE', library)).toMatchObject({ status: 200 });
      expect(await asReaderOf(guarded, 'FCALL_RO', 'endless', '0')).toMatchObject({
        status: 400,
        body: { error: expect.stringMatching(/killed by user/i) },
      });
      await until(() => killed('FUNCTION'), 'the log has an entry for it');
    });

    it('is BUSY for other clients, leaves other shards alone, and the full token can kill it', async () => {
      // Shard 0 runs scripts without keys.
      const keys = Array.from({ length: 30 }, (_, i) => `busy:${i}`);
      const onShard0 = (key: string) => slotOf(key) <= 5460;
      const running = asFull(trusting, 'EVAL', ENDLESS, '0');
      const others = keys.filter((key) => !onShard0(key));
      const blocked = keys.find(onShard0)!;
      for (const key of others) expect(await asFull(trusting, 'INCR', key)).toMatchObject({ status: 200 });
      await until(async () => {
        const { status, body } = await asFull(guarded, 'GET', blocked);
        return status === 503 && (body as { error: string }).error.startsWith('BUSY ');
      }, 'Redis says that it is busy');
      // Other programs get the same from Redis, and the token that may only read cannot end what others run.
      expect(await asReaderOf(trusting, 'SCRIPT', 'KILL')).toMatchObject({
        status: 400,
        body: { error: expect.stringMatching(/^NOPERM/) },
      });
      expect(await asFull(trusting, 'SCRIPT', 'KILL')).toEqual({ status: 200, body: { result: 'OK' } });
      expect(await running).toMatchObject({ body: { error: expect.stringMatching(/killed by user/i) } });
      expect(await asFull(trusting, 'SCRIPT', 'KILL')).toMatchObject({
        status: 400,
        body: { error: expect.stringMatching(/^NOTBUSY/) },
      });
      expect(await asFull(trusting, 'GET', blocked)).toMatchObject({ status: 200 });
    });

    it('is killed although the connection that ran it was given up before', async () => {
      const log: LogEntry[] = [];
      const impatient = await start({
        redisUrl: urlOf('gateway'),
        replyTimeoutMs: 100,
        scriptTimeoutMs: 600,
        log: (entry) => log.push(entry),
      });
      try {
        expect(await asFull(impatient, 'EVAL', ENDLESS, '0')).toMatchObject({ status: 503 });
        await until(() => log.some(({ event }) => event === 'script_killed'), 'the script is killed');
        await until(async () => (await asFull(impatient, 'EVAL', 'return 1', '0')).status === 200, 'all is well again');
      } finally {
        await impatient.close();
      }
    });

    it('that has written cannot be killed, which the log says', async () => {
      const log: LogEntry[] = [];
      const gateway = await start({
        redisUrl: urlOf('gateway'),
        replyTimeoutMs: 500,
        scriptTimeoutMs: 300,
        log: (entry) => log.push(entry),
      });
      const key = 'written';
      const script = `redis.call('SET', KEYS[1], 1); ${ENDLESS}`;
      const victim = await cluster.masterOf(slotOf(key));
      try {
        expect(await asFull(gateway, 'EVAL', script, '1', key)).toMatchObject({ status: 503 });
        await until(() => log.some(({ event }) => event === 'script_not_killed'), 'the attempt is logged');
        const { reason } = log.find(({ event }) => event === 'script_not_killed')!;
        expect(reason).toMatch(/^UNKILLABLE/);
      } finally {
        await victim.kill();
        await gateway.close();
        await victim.restart();
        await prepare(victim); // users are not kept
      }
    });
  });

  describe('strangers', () => {
    const cleanup: (() => Promise<void> | void)[] = [];
    afterEach(async () => {
      for (const end of cleanup.splice(0).reverse()) await end();
    });
    async function open(gateway: Gateway): Promise<Socket> {
      const socket = connect(gateway.port, '127.0.0.1');
      socket.on('error', () => {});
      cleanup.push(() => void socket.destroy());
      await once(socket, 'connect');
      return socket;
    }
    const closed = (sockets: Socket[]) => sockets.filter((socket) => socket.closed || socket.destroyed).length;

    it('learn from /health and /ready that the gateway is well, and nothing about Redis', async () => {
      await until(async () => (await fetch(`${guarded.url}/ready`)).status === 200, 'all masters are connected');
      for (const path of ['/health', '/ready']) {
        const response = await fetch(guarded.url + path);
        const text = await response.text();
        expect(response.status).toBe(200);
        for (const { port } of cluster.nodes) expect(text).not.toContain(String(port));
        expect(text).not.toContain('127.0.0.1');
      }
    });

    it('hold no more connections than allowed, and push no client out', async () => {
      const gateway = await start({ redisUrl: urlOf('gateway'), maxUnprovenConnections: 10 });
      cleanup.push(() => gateway.close());
      const client = await open(gateway);
      const body = '["PING"]';
      const request = `POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
      client.write(request);
      await once(client, 'data');
      const strangers: Socket[] = [];
      for (let i = 0; i < 40; i++) strangers.push(await open(gateway));
      for (const socket of strangers) socket.resume();
      await until(() => closed(strangers) === 30, 'thirty of forty are closed');
      expect(strangers.slice(0, 30).every((socket) => socket.destroyed || socket.closed)).toBe(true);
      expect(await asFull(gateway, 'PING')).toMatchObject({ status: 200 });
      client.write(request);
      const [answer] = await once(client, 'data');
      expect(String(answer)).toMatch(/^HTTP\/1.1 200 /);
    });

    it('are closed at once when the gateway has all the connections that it takes', async () => {
      const gateway = await start({ redisUrl: urlOf('gateway'), maxConnections: 5 });
      cleanup.push(() => gateway.close());
      const sockets: Socket[] = [];
      for (let i = 0; i < 12; i++) {
        sockets.push(await open(gateway));
        sockets[i]!.resume();
      }
      await until(() => closed(sockets) === 7, 'seven of twelve are closed');
      expect(sockets.slice(0, 5).every((socket) => !socket.destroyed)).toBe(true);
    });

    it('with wrong tokens get 429 after some a second, while valid tokens go on', async () => {
      const log: LogEntry[] = [];
      const gateway = await start({
        redisUrl: urlOf('gateway'),
        maxWrongTokensPerSecond: 5,
        log: (entry) => log.push(entry),
      });
      cleanup.push(() => gateway.close());
      const wrong = () => post(gateway, '/', ['PING'], { authorization: 'Bearer guessed-token-number-1' });
      for (const path of ['/health', '/ready']) {
        const probe = await fetch(gateway.url + path, { headers: { authorization: 'Bearer guessed-token-number-2' } });
        expect([401, 429]).toContain(probe.status);
      }
      // The count begins anew with the next second.
      await until(async () => (await wrong()).status === 401, 'another second has begun');
      const statuses: number[] = [];
      await until(async () => {
        const { status } = await wrong();
        statuses.push(status);
        expect([401, 429]).toContain(status);
        expect(await asFull(gateway, 'PING')).toMatchObject({ status: 200 });
        return status === 429;
      }, 'wrong tokens are refused');
      expect(statuses.length).toBeGreaterThan(1);
      await until(async () => {
        await wrong();
        return log.some(({ event }) => event === 'wrong_tokens');
      }, 'the log has an entry for them');
      expect(JSON.stringify(log)).not.toContain('guessed');
    });

    it('find no token in URLs where that is switched off', async () => {
      const gateway = await start({ redisUrl: urlOf('gateway'), tokenInUrl: false });
      cleanup.push(() => gateway.close());
      expect((await fetch(`${gateway.url}/ping?_token=${TOKEN}`)).status).toBe(401);
      expect((await fetch(`${guarded.url}/ping?_token=${TOKEN}`)).status).toBe(200);
      expect(await asFull(gateway, 'PING')).toMatchObject({ status: 200 });
    });
  });
});
