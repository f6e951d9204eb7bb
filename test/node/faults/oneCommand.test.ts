import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import type { Gateway } from '../../../src/gateway/gateway.ts';
import { createRedisBatch } from '../../../src/redis/batch.ts';
import { createBreaker } from '../../../src/redis/breaker.ts';
import { createRedisClient } from '../../../src/redis/client.ts';
import type { Command } from '../../../src/redis/client.ts';
import { createShards } from '../../../src/redis/shards.ts';
import { startOtherServer } from '../../support/otherServer.ts';

const TOKEN = 'one-command';
const LARGE = 'x'.repeat(1_258_291);

/** An isolate with the breaker's default numbers, and one request's way to Redis. */
function isolateOf(url: string) {
  const client = createRedisClient({ url, token: TOKEN });
  const times = { probeMs: 1_000, probeMaxMs: 30_000 };
  const breaker = createBreaker({ windowMs: 10_000, minCalls: 10, failureRatio: 0.5, ...times });
  const shards = createShards({ client, ...times });
  const kept: Promise<unknown>[] = [];
  const open = () =>
    createRedisBatch({
      client,
      breaker,
      shards,
      waitUntil: (promise) => void kept.push(promise),
      deadlineMs: 20_000,
      callTimeoutMs: 20_000,
    });
  const ask = async (...commands: Command[]) => {
    const batch = open();
    return Promise.allSettled(commands.map((command) => batch.send(...command)));
  };
  return { breaker, ask, settled: () => Promise.all(kept) };
}

const value = (expected: unknown) => ({ status: 'fulfilled', value: expected });
const refused = { status: 'rejected', reason: { name: 'RedisReplyError', code: 'ERR' } };

describe('a command that is too large', () => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ token: TOKEN, port: 0, maxRequestBytes: 1024 * 1024 });
  });
  afterAll(() => gateway.close());

  test('a value of 1.2 MB is refused, its neighbours are not, and the breaker does not mind', async () => {
    const { ask, breaker } = isolateOf(gateway.url);
    for (let round = 0; round < 40; round += 1) {
      expect(await ask(['SET', 'a', round], ['SET', 'large', LARGE], ['GET', 'a'])).toMatchObject([
        value('OK'),
        refused,
        value(String(round)),
      ]);
      expect(breaker.state).toBe('closed');
    }
    expect(await ask(['GET', 'large'])).toMatchObject([value(null)]);
    for (let round = 0; round < 40; round += 1) expect(await ask(['SET', 'large', LARGE])).toMatchObject([refused]);
    expect(breaker.state).toBe('closed');
  });

  test('commands that are too large together are sent one part after the other, in order', async () => {
    const { ask } = isolateOf(gateway.url);
    const quarter = LARGE.slice(0, 300_000);
    const commands: Command[] = Array.from({ length: 12 }, (_, index) => ['SET', 'same', `${index}${quarter}`]);
    expect(await ask(...commands, ['GET', 'same'])).toMatchObject([
      ...commands.map(() => value('OK')),
      value(`11${quarter}`),
    ]);
  });

  test('wrong types and scripts that fail are their own concern', async () => {
    const { ask, breaker } = isolateOf(gateway.url);
    await ask(['RPUSH', 'list', 'x']);
    for (let round = 0; round < 40; round += 1) {
      expect(
        await ask(
          ['GET', 'list'],
          ['EVAL', "return redis.call('GET', KEYS[1])", 1, 'list'],
          ['EVAL', "error('READONLY or not')", 0],
          ['EVAL', 'return nonexistent', 0],
          ['GET', 'a'],
        ),
      ).toMatchObject([
        { reason: { name: 'RedisReplyError', code: 'WRONGTYPE' } },
        { reason: { name: 'RedisReplyError', code: 'WRONGTYPE' } },
        { reason: { name: 'RedisReplyError' } },
        { reason: { name: 'RedisReplyError' } },
        { status: 'fulfilled' },
      ]);
    }
    expect(breaker.state).toBe('closed');
  });
});

test.each([
  [
    'Upstash’s',
    400,
    'application/json',
    JSON.stringify({ error: 'ERR max request size exceeded. Limit: 1048576 bytes' }),
  ],
  ['a proxy’s', 413, 'text/html', '<html><head><title>413 Request Entity Too Large</title></head></html>'],
])('%s refusal of a large request', async (_, status, type, body) => {
  // It lets small requests through, and refuses large ones before anything is executed.
  await using server = await startOtherServer((text) =>
    text.includes(LARGE.slice(0, 1_000))
      ? { status, type, body }
      : {
          status: 200,
          type: 'application/json',
          body: JSON.stringify((JSON.parse(text) as []).map(() => ({ result: 1 }))),
        },
  );
  const { ask, breaker } = isolateOf(server.url);
  for (let round = 0; round < 40; round += 1) {
    expect(await ask(['GET', 'a'], ['SET', 'large', LARGE], ['GET', 'b'])).toMatchObject([value(1), refused, value(1)]);
  }
  expect(breaker.state).toBe('closed');
});

test.each([
  ['a spent quota', 429, 'ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.', 'state'],
  ['a wrong token', 401, 'WRONGPASS invalid or missing auth token', 'state'],
  ['a server that fails', 500, 'ERR internal error', 'status'],
  ['a gateway without Redis', 503, 'UNAVAILABLE Redis is not available', 'shard'],
])('%s, as the error of the whole request, counts against Redis', async (_, status, error, reason) => {
  await using server = await startOtherServer(() => ({
    status,
    type: 'application/json',
    body: JSON.stringify({ error }),
  }));
  const { ask, breaker, settled } = isolateOf(server.url);
  for (let round = 0; round < 10; round += 1) {
    expect(await ask(['GET', 'a'], ['GET', 'b'])).toMatchObject([{ reason: { reason } }, { reason: { reason } }]);
  }
  await settled();
  expect(breaker.state).toBe('open');
});
