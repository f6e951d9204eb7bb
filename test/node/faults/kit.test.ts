import { describe, expect, it } from 'vitest';

import { FAULTS, command, startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';

async function pipeline(redis: FaultyRedis, commands: unknown[], timeoutMs = 400) {
  const response = await fetch(`${redis.url}/pipeline`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${redis.token}` },
    body: JSON.stringify(commands),
    signal: AbortSignal.timeout(timeoutMs),
  });
  return { status: response.status, text: await response.text() };
}

const SET = ['SET', 'k', 'v', 'EX', '60'];
const GET = ['GET', 'k'];

describe('the fault kit itself', () => {
  it('passes commands on to a real engine, and counts requests and commands', async () => {
    await using redis = await startFaultyRedis();
    expect(await pipeline(redis, [SET, GET])).toEqual({ status: 200, text: '[{"result":"OK"},{"result":"v"}]' });
    await pipeline(redis, [GET]);
    expect(redis.counts).toEqual({ requests: 2, answered: 2, commands: 3 });
    expect(redis.requests[1]?.commands).toEqual([GET]);
    redis.reset();
    expect(redis.counts).toEqual({ requests: 0, answered: 0, commands: 0 });
    expect(await redis.engine('GET', 'k')).toBe('v');
    await expect(redis.engine('NONSENSE')).rejects.toThrow('ERR unknown command');
  });

  it('refuses connections, and listens on the same port afterwards', async () => {
    await using redis = await startFaultyRedis();
    for (let round = 0; round < 3; round += 1) {
      redis.mode = { kind: 'refuse' };
      await expect(pipeline(redis, [GET])).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
      await redis.clear();
      expect((await pipeline(redis, [GET])).status).toBe(200);
    }
  });

  it('hangs without executing, and cuts hanging requests when it is cleared', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = FAULTS.hanging;
    await expect(pipeline(redis, [SET])).rejects.toMatchObject({ name: 'TimeoutError' });
    const hung = pipeline(redis, [SET], 10_000).then(
      () => 'answered',
      (error: Error) => error.message,
    );
    while (redis.counts.requests < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    await redis.clear();
    expect(await hung).toBe('fetch failed');
    expect(redis.counts).toMatchObject({ requests: 2, answered: 0 });
    expect(await redis.engine('EXISTS', 'k')).toBe(0);
  });

  it('stalls in the middle of an answer', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = FAULTS['hanging after half an answer'];
    await expect(pipeline(redis, [SET, GET])).rejects.toMatchObject({ name: 'TimeoutError' });
    expect(await redis.engine('GET', 'k')).toBe('v');
  });

  it('cuts the connection before executing, or after', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = { kind: 'drop-before' };
    await expect(pipeline(redis, [SET])).rejects.toThrow('fetch failed');
    expect(await redis.engine('EXISTS', 'k')).toBe(0);
    redis.mode = { kind: 'drop-after' };
    await expect(pipeline(redis, [SET])).rejects.toThrow('fetch failed');
    expect(await redis.engine('GET', 'k')).toBe('v');
    expect(redis.counts).toMatchObject({ requests: 2, answered: 0 });
  });

  it('answers late', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = { kind: 'delay', ms: 100 };
    const startMs = performance.now();
    expect((await pipeline(redis, [GET], 5_000)).status).toBe(200);
    expect(performance.now() - startMs).toBeGreaterThan(95);
  });

  it('meets only the commands, and as many requests, as the test asks for', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = { kind: 'answer', status: 500, body: '{}', when: command('GET', 'k'), times: 2 };
    const statuses: number[] = [];
    for (const sent of [[SET], [GET], [SET, GET], [GET]]) statuses.push((await pipeline(redis, sent)).status);
    expect(statuses).toEqual([200, 500, 500, 200]);
    expect(redis.mode).toEqual({ kind: 'none' });
  });

  it.each([
    ['status 502 with HTML', 502, /^<html>/],
    ['status 429', 429, /^\{"error":"ERR max/],
    ['status 401', 401, /^\{"error":"WRONGPASS/],
    ['null', 200, /^null$/],
    ['truncated JSON', 200, /^\[\{"result":"OK"\}$/],
    ['one object for all results', 200, /^\{"result":"OK"\}$/],
    ['results that are no objects', 200, /^\[1,1\]$/],
    ['too few results', 200, /^\[\{"result":"OK"\}\]$/],
    ['LOADING', 200, /^\[\{"error":"LOADING [^"]+"\},\{"error":"LOADING [^"]+"\}\]$/],
    ['READONLY', 200, /^\[\{"error":"READONLY [^"]+"\},\{"result":null\}\]$/],
    ['OOM', 200, /^\[\{"error":"OOM [^"]+"\},\{"result":null\}\]$/],
    ['MOVED', 200, /^\[\{"error":"MOVED 3999/],
  ] as const)('answers %s', async (name, status, text) => {
    await using redis = await startFaultyRedis();
    redis.mode = FAULTS[name];
    expect(await pipeline(redis, [SET, GET])).toEqual({ status, text: expect.stringMatching(text) });
  });

  it('knows no script by its SHA, but runs its text', async () => {
    await using redis = await startFaultyRedis();
    redis.mode = FAULTS.NOSCRIPT;
    const { text } = await pipeline(redis, [
      ['EVALSHA', 'a'.repeat(40), '0'],
      ['EVAL', 'return 1', '0'],
    ]);
    expect(JSON.parse(text)).toEqual([{ error: expect.stringMatching(/^NOSCRIPT /) }, { result: 1 }]);
  });
});
