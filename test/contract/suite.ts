import { createHash } from 'node:crypto';
import { MultiRegionRatelimit, Ratelimit } from '@upstash/ratelimit';
import { Redis } from '@upstash/redis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gateway, type GatewayOptions, startGateway } from '../../src/gateway/gateway.ts';
import { until } from '../support/redisServers.ts';

/** The token of every gateway in the contract tests. */
export const TOKEN = 'contract-token';

/** Starts a gateway for a test, on any free port. */
export function gatewayFor(options: Partial<GatewayOptions>): Promise<Gateway> {
  return startGateway({ token: TOKEN, port: 0, replyTimeoutMs: 2000, ...options });
}

/** One POST; the answer's status and JSON. Network errors reject. */
export async function post(
  gateway: Gateway,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(gateway.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}`, ...headers },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

/**
 * What every backend has to do alike, asked through the published @upstash/redis and @upstash/ratelimit. Keys that one
 * command uses together share a hash tag, as an application's keys have to on a cluster.
 */
export function contract(backend: () => Promise<{ redisUrl?: string; stop?: () => Promise<void> }>): void {
  let gateway: Gateway;
  let stop: (() => Promise<void>) | undefined;
  let redis: Redis;
  /** Without the SDK's own conversions: what the server said, as text. */
  let plain: Redis;

  beforeAll(async () => {
    const { redisUrl, stop: stopBackend } = await backend();
    stop = stopBackend;
    gateway = await gatewayFor(redisUrl === undefined ? {} : { redisUrl });
    redis = new Redis({ url: gateway.url, token: TOKEN, retry: false });
    plain = new Redis({ url: gateway.url, token: TOKEN, retry: false, automaticDeserialization: false });
    await until(async () => (await post(gateway, '/', ['PING'])).status === 200, 'the backend is connected');
  }, 60_000);
  afterAll(async () => {
    await gateway?.close();
    await stop?.();
  });

  describe('data types', () => {
    it('strings', async () => {
      expect(await redis.set('s:1', 'value')).toBe('OK');
      expect(await redis.get('s:1')).toBe('value');
      expect(await redis.set('s:1', 'other', { nx: true })).toBeNull();
      expect(await redis.set('s:1', 'other', { xx: true, get: true })).toBe('value');
      expect(await redis.append('s:1', '+')).toBe(6);
      expect(await redis.getrange('s:1', 0, 4)).toBe('other');
      expect(await redis.strlen('s:1')).toBe(6);
      expect(await redis.set('s:ttl', '1', { ex: 100 })).toBe('OK');
      expect(await redis.ttl('s:ttl')).toBeGreaterThan(90);
      expect(await redis.getdel('s:ttl')).toBe(1);
      expect(await redis.exists('s:ttl')).toBe(0);
    });

    it('JSON values, and texts that look like something else', async () => {
      const value = { a: [1, 'ü', null, { b: true }] };
      await redis.set('json', value);
      expect(await redis.get('json')).toEqual(value);
      for (const text of ['OK', 'null', 'true', '', ' ', '"quoted"', '{', 'T0s=', '\u2028', 'a\u0000b', '\r\n\t\\']) {
        await plain.set('text', text);
        expect(await plain.get('text')).toBe(text);
      }
    });

    it('keys of several slots in one command', async () => {
      const keys = Array.from({ length: 20 }, (_, i) => `many:${i}`);
      await redis.mset(Object.fromEntries(keys.map((key, i) => [key, i])));
      expect(await redis.mget(...keys, 'many:none', ...keys)).toEqual([...keys.keys(), null, ...keys.keys()]);
      expect(await redis.exists(...keys, 'many:none')).toBe(20);
      expect(await redis.touch(...keys)).toBe(20);
      expect(await redis.del(...keys.slice(0, 10))).toBe(10);
      expect(await redis.unlink(...keys)).toBe(10);
    });

    it('hashes', async () => {
      expect(await redis.hset('h', { f1: 'a', f2: 2, ключ: 'значение' })).toBe(3);
      expect(await redis.hgetall('h')).toEqual({ f1: 'a', f2: 2, ключ: 'значение' });
      expect(await redis.hmget('h', 'f1', 'none')).toEqual({ f1: 'a', none: null });
      expect(await redis.hincrby('h', 'f2', 40)).toBe(42);
      expect(await redis.hdel('h', 'f1', 'none')).toBe(1);
      expect((await redis.hkeys('h')).toSorted()).toEqual(['f2', 'ключ']);
      expect(await redis.hgetall('h:none')).toBeNull();
    });

    it('lists', async () => {
      expect(await redis.rpush('l', 'a', 'b', 'c')).toBe(3);
      expect(await redis.lpush('l', 'z')).toBe(4);
      expect(await redis.lrange('l', 0, -1)).toEqual(['z', 'a', 'b', 'c']);
      expect(await redis.lpop('l', 2)).toEqual(['z', 'a']);
      expect(await redis.linsert('l', 'before', 'c', 'x')).toBe(3);
      expect(await redis.lpos('l', 'c')).toBe(2);
      await redis.rpush('{l}:from', 1, 2);
      expect(await redis.lmove('{l}:from', '{l}:to', 'left', 'right')).toBe(1);
    });

    it('sets', async () => {
      expect(await redis.sadd('{set}:a', 'x', 'y', 'z')).toBe(3);
      await redis.sadd('{set}:b', 'y', 'z', 'w');
      expect((await redis.sinter('{set}:a', '{set}:b')).toSorted()).toEqual(['y', 'z']);
      expect(await redis.sunionstore('{set}:c', '{set}:a', '{set}:b')).toBe(4);
      expect(await redis.smismember('{set}:a', ['x', 'w'])).toEqual([1, 0]);
      expect(await redis.smove('{set}:a', '{set}:b', 'x')).toBe(1);
    });

    it('sorted sets', async () => {
      expect(await redis.zadd('{z}:1', { score: 1, member: 'a' }, { score: 2.5, member: 'b' })).toBe(2);
      expect(await redis.zrange('{z}:1', 0, -1, { withScores: true })).toEqual(['a', 1, 'b', 2.5]);
      expect(await redis.zincrby('{z}:1', 10, 'a')).toBe(11);
      await redis.zadd('{z}:2', { score: 1, member: 'a' });
      expect(await redis.zunionstore('{z}:3', 2, ['{z}:1', '{z}:2'])).toBe(2);
      expect(await redis.zscore('{z}:3', 'a')).toBe(12);
      expect(await redis.zrange('{z}:1', '(2.5', '+inf', { byScore: true })).toEqual(['a']);
      expect(await redis.zpopmax('{z}:1')).toEqual(['a', 11]);
    });

    it('streams', async () => {
      const id = await redis.xadd('stream', '*', { field: 'value', n: 1 });
      expect(id).toMatch(/^\d+-0$/);
      await redis.xadd('stream', '*', { field: 'second' });
      expect(await redis.xlen('stream')).toBe(2);
      expect(await redis.xrange('stream', '-', '+', 1)).toEqual({ [id]: { field: 'value', n: 1 } });
      expect(await redis.xgroup('stream', { type: 'CREATE', group: 'g', id: '0' })).toBe('OK');
      expect(await redis.xreadgroup('g', 'me', 'stream', '>')).toEqual([
        ['stream', [[id, ['field', 'value', 'n', 1]], expect.anything()]],
      ]);
      expect(await redis.xack('stream', 'g', id)).toBe(1);
    });

    it('bitmaps, HyperLogLog, geo', async () => {
      expect(await redis.setbit('bits', 7, 1)).toBe(0);
      expect(await redis.bitcount('bits', 0, -1)).toBe(1);
      expect(await redis.pfadd('pf', 'a', 'b', 'a')).toBe(1);
      expect(await redis.pfcount('pf')).toBe(2);
      await redis.geoadd('geo', { longitude: 13.361389, latitude: 38.115556, member: 'Palermo' });
      await redis.geoadd('geo', { longitude: 15.087269, latitude: 37.502669, member: 'Catania' });
      expect(await redis.geodist('geo', 'Palermo', 'Catania', 'KM')).toBe(166.2742);
    });

    it('integers of 64 bits, exactly', async () => {
      await plain.set('int', '9223372036854775806');
      const response = await fetch(gateway.url, {
        method: 'POST',
        headers: { authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify(['INCR', 'int']),
      });
      expect(await response.text()).toBe('{"result":9223372036854775807}');
      const over = await post(gateway, '/', ['INCR', 'int']);
      expect(over).toEqual({ status: 400, body: { error: 'ERR increment or decrement would overflow' } });
    });

    it('bytes that are not UTF-8, by path, base64 and raw', async () => {
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => 255 - i);
      const headers = { authorization: `Bearer ${TOKEN}` };
      const set = await fetch(`${gateway.url}/set/bytes%FF`, { method: 'POST', headers, body: bytes });
      expect(await set.json()).toEqual({ result: 'OK' });
      const base64 = await fetch(`${gateway.url}/get/bytes%FF`, {
        headers: { ...headers, 'upstash-encoding': 'base64' },
      });
      const { result } = (await base64.json()) as { result: string };
      expect(new Uint8Array(Buffer.from(result, 'base64'))).toEqual(bytes);
      const raw = await fetch(`${gateway.url}/get/bytes%FF`, {
        headers: { ...headers, 'upstash-response-format': 'resp2' },
      });
      expect(Buffer.from(await raw.arrayBuffer())).toEqual(
        Buffer.concat([Buffer.from('$256\r\n'), bytes, Buffer.from('\r\n')]),
      );
    });

    it('values of 10 MB', async () => {
      const value = 'ä€x'.repeat((10 * 1024 * 1024) / 6);
      expect(await plain.set('large', value)).toBe('OK');
      expect((await plain.get<string>('large')) === value).toBe(true);
      expect(await redis.del('large')).toBe(1);
    });
  });

  describe('several commands', () => {
    it('a pipeline keeps its order, over all slots, and each its own error', async () => {
      const commands: string[][] = [];
      for (let i = 0; i < 100; i++) commands.push(['SET', `p:${i % 10}`, String(i)], ['GET', `p:${i % 10}`]);
      const { status, body } = await post(gateway, '/pipeline', [...commands, ['LPOP', 'p:0'], ['ECHO', 'end']]);
      expect(status).toBe(200);
      const expected = Array.from({ length: 100 }, (_, i) => [{ result: 'OK' }, { result: String(i) }]).flat();
      expect(body).toEqual([...expected, { error: expect.stringMatching(/^WRONGTYPE/) }, { result: 'end' }]);
    });

    it('a command over several slots sees the writes before it in the pipeline', async () => {
      const { body } = await post(gateway, '/pipeline', [
        ['MSET', 'o:1', 'a', 'o:2', 'b', 'o:3', 'c'],
        ['SET', 'o:2', 'B'],
        ['MGET', 'o:1', 'o:2', 'o:3'],
        ['DEL', 'o:1', 'o:2', 'o:3'],
        ['EXISTS', 'o:1', 'o:2', 'o:3'],
      ]);
      expect(body).toEqual([
        { result: 'OK' },
        { result: 'OK' },
        { result: ['a', 'B', 'c'] },
        { result: 3 },
        { result: 0 },
      ]);
    });

    it('a transaction is atomic and isolated', async () => {
      const rounds = Array.from({ length: 50 }, () =>
        redis
          .multi()
          .incr('{tx}:n')
          .get('{tx}:n')
          .incr('{tx}:n')
          .get('{tx}:n')
          .exec<[number, number, number, number]>(),
      );
      for (const [first, seen, second, seenAgain] of await Promise.all(rounds)) {
        expect([seen, second, seenAgain]).toEqual([first, first + 1, first + 1]);
      }
      expect(await redis.get('{tx}:n')).toBe(100);
    });

    it('a transaction that Redis refuses leaves nothing behind', async () => {
      const refused = await post(gateway, '/multi-exec', [
        ['SET', '{tx}:x', '1'],
        ['NOSUCHCOMMAND', '{tx}:x'],
      ]);
      expect(refused).toEqual({ status: 400, body: { error: expect.stringMatching(/^EXECABORT/) } });
      expect(await redis.exists('{tx}:x')).toBe(0);
    });

    it('scripts by text and by SHA, with an error that clients recognise', async () => {
      const script = "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}";
      expect(await redis.eval(script, ['script:n'], ['arg'])).toEqual(['script:n', 'arg', 1]);
      const sha = await redis.scriptLoad(script);
      expect(await redis.scriptExists(sha, 'f'.repeat(40))).toEqual([1, 0]);
      for (let i = 0; i < 8; i++)
        expect(await redis.evalsha(sha, [`script:${i}`], ['x'])).toEqual([`script:${i}`, 'x', 1]);
      await expect(redis.evalsha('0'.repeat(40), ['k'], [])).rejects.toThrow(/NOSCRIPT/);
      expect(await redis.scriptFlush()).toBe('OK');
      await expect(redis.evalsha(sha, ['script:0'], [])).rejects.toThrow(/NOSCRIPT/);
    });

    it('functions, on whichever shard a key is', async () => {
      const library =
        "#!lua name=contract\nredis.register_function('add', function(keys, args) return redis.call('INCRBY', keys[1], args[1]) end)";
      expect(await post(gateway, '/', ['FUNCTION', 'LOAD', 'REPLACE', library])).toMatchObject({
        body: { result: 'contract' },
      });
      for (let i = 0; i < 8; i++) {
        expect(await post(gateway, '/', ['FCALL', 'add', 1, `function:${i}`, i])).toMatchObject({
          body: { result: i },
        });
      }
      expect(await post(gateway, '/', ['FUNCTION', 'DELETE', 'contract'])).toMatchObject({ body: { result: 'OK' } });
    });

    it('scripts that ask for key locking, by either name', async () => {
      const script = "#!lua flags=allow-key-locking\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])";
      const { body } = await post(gateway, '/', ['SCRIPT', 'LOAD', script]);
      const sha = createHash('sha1').update(script).digest('hex');
      expect(body).toEqual({ result: sha });
      expect(await redis.evalsha(sha, ['lock:n'], [5])).toBe(5);
      expect(await redis.eval(script, ['lock:n'], [5])).toBe(10);
      expect(await redis.scriptExists(sha)).toEqual([1]);
    });
  });

  describe('the whole keyspace', () => {
    it('FLUSHDB, DBSIZE, KEYS, SCAN and RANDOMKEY concern every shard', async () => {
      await redis.flushdb();
      expect(await redis.dbsize()).toBe(0);
      expect(await redis.randomkey()).toBeNull();
      const names = Array.from({ length: 500 }, (_, i) => `scan:${i}`);
      await Promise.all(names.map((name) => redis.set(name, '1')));
      expect(await redis.dbsize()).toBe(500);
      expect((await redis.keys('scan:*')).toSorted()).toEqual(names.toSorted());
      expect(names).toContain(await redis.randomkey());
      const seen = new Set<string>();
      let cursor = '0';
      let pages = 0;
      do {
        const [next, keys] = await redis.scan(cursor, { match: 'scan:*', count: 50 });
        for (const key of keys) seen.add(key);
        cursor = next;
        pages++;
      } while (cursor !== '0');
      expect(seen.size).toBe(500);
      expect(pages).toBeGreaterThan(5);
    });
  });

  describe('subscriptions', () => {
    it('delivers messages to channels and patterns, in order', async () => {
      const received: unknown[] = [];
      const channel = redis.subscribe<unknown>('news');
      const pattern = redis.psubscribe<unknown>('new*');
      let subscribed = 0;
      for (const subscriber of [channel, pattern]) {
        subscriber.on('subscribe', () => subscribed++);
        subscriber.on('psubscribe', () => subscribed++);
      }
      channel.on('message', ({ message }) => received.push(message));
      pattern.on('pmessage', ({ message, channel: name }) => received.push(`${name}:${JSON.stringify(message)}`));
      await until(() => subscribed === 2, 'both subscriptions are confirmed');
      for (const message of [{ n: 1 }, { n: 2 }]) await redis.publish('news', message);
      await until(() => received.length === 4, 'the messages arrive');
      expect(received.filter((message) => typeof message !== 'string' || !message.startsWith('news:'))).toEqual([
        { n: 1 },
        { n: 2 },
      ]);
      expect(received).toContain('news:{"n":2}');
      await channel.unsubscribe();
      await pattern.unsubscribe();
      await until(async () => (await redis.publish('news', 'x')) === 0, 'no client is subscribed any more');
    });
  });

  // The identifier is in braces, so that a limiter's keys share a slot: its scripts use two at a time.
  describe('@upstash/ratelimit', () => {
    const admitted = async (limiter: Ratelimit, calls: number) => {
      const results = await Promise.all(Array.from({ length: calls }, () => limiter.limit('{someone}')));
      return results.filter(({ success }) => success).length;
    };
    it.each([
      ['fixed window', () => Ratelimit.fixedWindow(5, '1 h')],
      ['sliding window', () => Ratelimit.slidingWindow(5, '1 h')],
      ['token bucket', () => Ratelimit.tokenBucket(5, '1 h', 5)],
      ['cached fixed window', () => Ratelimit.cachedFixedWindow(5, '1 h')],
    ])('%s admits the limit and no more', async (name, algorithm) => {
      const options = { redis, limiter: algorithm(), prefix: `rl:${name}` };
      const limiter = new Ratelimit({ ...options, ephemeralCache: name.startsWith('cached') ? new Map() : false });
      expect(await limiter.limit('{someone}')).toMatchObject({ success: true, limit: 5 });
      expect(await admitted(limiter, 10)).toBe(4);
      expect(await limiter.limit('{someone}')).toMatchObject({ success: false });
      await limiter.resetUsedTokens('{someone}');
      expect(await limiter.limit('{someone}')).toMatchObject({ success: true });
      // The cached algorithm writes to Redis after it has answered, and may be asked before or after that.
      const { remaining } = await limiter.getRemaining('{someone}');
      expect(name.startsWith('cached') ? [0, 4] : [4]).toContain(remaining);
    });

    it.each([
      ['fixed window', () => MultiRegionRatelimit.fixedWindow(5, '1 h')],
      ['sliding window', () => MultiRegionRatelimit.slidingWindow(5, '1 h')],
    ])('%s over regions admits the limit and no more', async (name, algorithm) => {
      const options = { redis: [redis], prefix: `rl:regions:${name}`, ephemeralCache: false } as const;
      const limiter = new MultiRegionRatelimit({ ...options, redis: [redis], limiter: algorithm() });
      const outcomes: boolean[] = [];
      for (let i = 0; i < 8; i++) {
        const { success, pending } = await limiter.limit('{someone}');
        outcomes.push(success);
        await pending;
      }
      expect(outcomes).toEqual([true, true, true, true, true, false, false, false]);
    });
  });
}
