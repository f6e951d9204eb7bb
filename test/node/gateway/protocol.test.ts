import { request } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gateway, startGateway } from '../../../src/gateway/gateway.ts';
import type { LogEntry } from '../../../src/gateway/log.ts';

const TOKEN = 'full-token';
let gateway: Gateway;

beforeAll(async () => {
  gateway = await startGateway({ token: TOKEN, port: 0, maxRequestBytes: 1024 * 1024 });
});
afterAll(() => gateway.close());

async function post(path: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(gateway.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}`, ...headers },
    body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

describe('POST /', () => {
  it('responds { result } to a command', async () => {
    expect(await post('/', ['SET', 'greeting', 'grüß dich 👋'])).toEqual({ status: 200, body: { result: 'OK' } });
    expect(await post('/', ['GET', 'greeting'])).toEqual({ status: 200, body: { result: 'grüß dich 👋' } });
    expect(await post('/', ['GET', 'nothing'])).toEqual({ status: 200, body: { result: null } });
  });

  it('responds 400 with Redis’s own text to an error', async () => {
    expect(await post('/', ['EVALSHA', 'f'.repeat(40), 0])).toEqual({
      status: 400,
      body: { error: expect.stringMatching(/^NOSCRIPT No matching script/) },
    });
    expect(await post('/', ['NOSUCH'])).toMatchObject({
      status: 400,
      body: { error: expect.stringMatching(/^ERR unknown/) },
    });
  });

  it('keeps 64-bit integers exact in both directions', async () => {
    const response = await fetch(gateway.url, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}` },
      body: '["SET","big",9007199254740993]',
    });
    expect(response.status).toBe(200);
    expect(await post('/', ['GET', 'big'])).toMatchObject({ body: { result: '9007199254740993' } });
    const raw = await fetch(gateway.url, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}` },
      body: '["INCR","big"]',
    });
    expect(await raw.text()).toBe('{"result":9007199254740994}');
  });

  it('takes numbers as they are written, and booleans as words', async () => {
    const body = '["RPUSH","args",1,-2,0.10,1e300,true,false]';
    expect(await post('/', body)).toMatchObject({ body: { result: 6 } });
    expect(await post('/', ['LRANGE', 'args', 0, -1])).toMatchObject({
      body: { result: ['1', '-2', '0.10', '1e300', 'true', 'false'] },
    });
  });

  it.each([
    ['1.0', '1'],
    ['60.0', '60'],
    ['6e1', '60'],
    ['-0', '0'],
    ['0.5', '0.5'],
    ['0.10', '0.10'],
    ['1e300', '1e300'],
    ['9007199254740993', '9007199254740993'],
    ['-9007199254740993.0', '-9007199254740993.0'],
  ])('takes the number %s for %s, whatever stands beside it', async (number, text) => {
    for (const neighbour of ['"x"', '1', '0.5', '1e300', '9007199254740993']) {
      await post('/', ['DEL', 'numbers']);
      expect(await post('/', `["RPUSH","numbers",${number},${neighbour}]`)).toMatchObject({ body: { result: 2 } });
      expect(await post('/', ['LINDEX', 'numbers', 0])).toEqual({ status: 200, body: { result: text } });
      await post('/pipeline', `[["SET","number",${number}],["SET","beside",${neighbour}]]`);
      expect(await post('/', ['GET', 'number'])).toEqual({ status: 200, body: { result: text } });
    }
  });

  it('takes EX 60.0 for 60 seconds', async () => {
    const { body } = await post('/pipeline', '[["SET","brief","x","EX",60.0],["TTL","brief"],["SET","b",0.5]]');
    expect(body).toMatchObject([{ result: 'OK' }, { result: 60 }, { result: 'OK' }]);
  });

  it.each([
    ['a lone byte', '\xff'],
    ['half a character', '\xc3'],
    ['a surrogate', '\xed\xa0\x80'],
    ['an overlong form', '\xc0\xaf'],
  ])('refuses %s in JSON, which is not UTF-8, and stores nothing', async (_what, bytes) => {
    const commands = { '/': `["SET","utf8","${bytes}"]`, '/pipeline': `[["SET","utf8","${bytes}"]]` };
    for (const [path, text] of Object.entries(commands)) {
      const reply = await post(path, Buffer.from(text, 'latin1'));
      expect(reply).toEqual({ status: 400, body: { error: expect.stringContaining('not valid UTF-8') } });
    }
    expect(await post('/', ['EXISTS', 'utf8'])).toMatchObject({ body: { result: 0 } });
  });

  it('returns nested arrays', async () => {
    const reply = await post('/', ['EVAL', "return {1, {'two', false, {3}}}", 0]);
    expect(reply).toEqual({ status: 200, body: { result: [1, ['two', null, [3]]] } });
  });

  it.each([
    ['an empty body', ''],
    ['something that is not JSON', '{'],
    ['an object', '{"a":1}'],
    ['an empty command', '[]'],
    ['a nested array', '["SET","k",["v"]]'],
    ['an object as argument', '["SET","k",{"v":1}]'],
    ['null as argument', '["SET","k",null]'],
  ])('refuses %s with 400 and a JSON error', async (_what, body) => {
    const reply = await post('/', body);
    expect(reply).toEqual({ status: 400, body: { error: expect.stringMatching(/^ERR /) } });
  });

  it('refuses a body over the limit with 413, announced or not', async () => {
    const huge = JSON.stringify(['SET', 'k', 'x'.repeat(1024 * 1024)]);
    expect(await post('/', huge)).toMatchObject({
      status: 413,
      body: { error: expect.stringMatching(/^ERR max request size exceeded/) },
    });
    const chunked = await new Promise<number>((resolve, reject) => {
      const call = request(
        gateway.url,
        { method: 'POST', headers: { authorization: `Bearer ${TOKEN}` } },
        (response) => {
          response.resume();
          resolve(response.statusCode!);
        },
      );
      call.on('error', reject);
      for (let sent = 0; sent < huge.length; sent += 65_536) call.write(huge.slice(sent, sent + 65_536));
      call.end();
    });
    expect(chunked).toBe(413);
  });
});

describe('POST /pipeline', () => {
  it('returns results in order, and one bad command fails only its own place', async () => {
    const reply = await post('/pipeline', [['SET', 'p', 'x'], ['INCR', 'p'], ['GET', 'p'], ['GET'], ['DEL', 'p']]);
    expect(reply).toEqual({
      status: 200,
      body: [
        { result: 'OK' },
        { error: 'ERR value is not an integer or out of range' },
        { result: 'x' },
        { error: "ERR wrong number of arguments for 'get' command" },
        { result: 1 },
      ],
    });
  });

  it('returns an empty array for an empty pipeline', async () => {
    expect(await post('/pipeline', [])).toEqual({ status: 200, body: [] });
  });

  it('runs nothing of a pipeline in which one entry is no command', async () => {
    expect(await post('/pipeline', [['SET', 'unwritten', '1'], 'GET'])).toMatchObject({
      status: 400,
      body: { error: expect.stringContaining('command 2') },
    });
    expect(await post('/', ['EXISTS', 'unwritten'])).toMatchObject({ body: { result: 0 } });
  });
});

describe('POST /multi-exec', () => {
  it('responds like a pipeline', async () => {
    expect(
      await post('/multi-exec', [
        ['SET', 't', '1'],
        ['INCR', 't'],
        ['LPOP', 't'],
      ]),
    ).toEqual({
      status: 200,
      body: [{ result: 'OK' }, { result: 2 }, { error: expect.stringMatching(/^WRONGTYPE /) }],
    });
  });

  it('is discarded as a whole when Redis refuses one of its commands', async () => {
    expect(await post('/multi-exec', [['SET', 'discarded', '1'], ['GET']])).toEqual({
      status: 400,
      body: { error: 'EXECABORT Transaction discarded because of previous errors.' },
    });
    expect(await post('/', ['EXISTS', 'discarded'])).toMatchObject({ body: { result: 0 } });
  });

  it('lets nothing of other clients in between', async () => {
    const transactions = Array.from({ length: 40 }, (_, n) =>
      post('/multi-exec', [['SET', 'owner', n], ...Array.from({ length: 20 }, () => ['GET', 'owner'])]),
    );
    const replies = await Promise.all(transactions);
    replies.forEach(({ body }, n) => {
      const seen = new Set((body as { result: string }[]).slice(1).map(({ result }) => result));
      expect([...seen]).toEqual([String(n)]);
    });
  });
});

describe('Upstash-Encoding: base64', () => {
  const headers = { 'upstash-encoding': 'base64' };
  const base64 = (text: string) => Buffer.from(text).toString('base64');

  it('encodes every string at every depth, and leaves OK, integers, null and errors as they are', async () => {
    const commands = [
      ['SET', 'b', 'wert'],
      ['GET', 'b'],
      ['TYPE', 'b'],
      ['STRLEN', 'b'],
      ['GET', 'nothing'],
      ['EVAL', "return {'a', {'b', 1, false}}", 0],
      ['LPOP', 'b'],
    ];
    expect((await post('/pipeline', commands, headers)).body).toEqual([
      { result: 'OK' },
      { result: base64('wert') },
      { result: base64('string') },
      { result: 4 },
      { result: null },
      { result: [base64('a'), [base64('b'), 1, null]] },
      { error: expect.stringMatching(/^WRONGTYPE /) },
    ]);
  });

  it('keeps bytes that are not UTF-8', async () => {
    const script = 'return string.char(0, 255, 254, 128, 10, 34)';
    const { body } = await post('/', ['EVAL', script, 0], headers);
    expect([...Buffer.from((body as { result: string }).result, 'base64')]).toEqual([0, 255, 254, 128, 10, 34]);
  });
});

describe('authentication', () => {
  it.each([
    ['no header', {}],
    ['another token', { authorization: 'Bearer full-tokem' }],
    ['a longer token', { authorization: 'Bearer full-token1' }],
    ['an empty token', { authorization: 'Bearer ' }],
    ['another scheme', { authorization: `Basic ${TOKEN}` }],
  ])('refuses %s with 401, and runs nothing', async (_what, headers: Record<string, string>) => {
    for (const path of ['/', '/pipeline', '/multi-exec']) {
      const body = path === '/' ? '["SET","intruder","1"]' : '[["SET","intruder","1"]]';
      const response = await fetch(gateway.url + path, { method: 'POST', headers, body });
      expect(response.status).toBe(401);
      expect(await response.json()).toEqual({ error: 'Unauthorized' });
    }
    expect(await post('/', ['EXISTS', 'intruder'])).toMatchObject({ body: { result: 0 } });
  });
});

describe('a body that is not a request', () => {
  it.each([
    ['not HTTP', 'HELLO\r\n\r\n', 400],
    ['a head that is too large', `GET /get/${'x'.repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, 431],
    ['two lengths', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n[]', 400],
  ])('%s gets an answer in JSON', async (_what, text, status) => {
    const socket = connect(gateway.port, '127.0.0.1');
    socket.end(text);
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))).toEqual({ error: expect.stringMatching(/^ERR /) });
  });
});

describe('GET /health', () => {
  it('shows the state without a token, and the address of Redis only with one', async () => {
    const response = await fetch(`${gateway.url}/health`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ status: 'ok', connected: true });
    const known = await fetch(`${gateway.url}/health`, { headers: { authorization: `Bearer ${TOKEN}` } });
    expect(await known.json()).toEqual({
      status: 'ok',
      backend: expect.stringMatching(/^embedded Valkey \d/),
      connected: true,
    });
  });
});

describe('GET /ready', () => {
  it('responds 200 while Redis is connected, and 503 while it is not', async () => {
    const response = await fetch(`${gateway.url}/ready`);
    expect([response.status, await response.json()]).toEqual([200, { ready: true }]);
    await using away = await startGateway({ token: TOKEN, port: 0, redisUrl: 'redis://127.0.0.1:1' });
    const notReady = await fetch(`${away.url}/ready`);
    expect([notReady.status, await notReady.json()]).toEqual([503, { ready: false }]);
    expect((await fetch(`${away.url}/health`)).status).toBe(200);
  });
});

describe('x-request-id', () => {
  const ask = async (id?: string) => {
    const init = { headers: { authorization: `Bearer ${TOKEN}`, ...(id !== undefined && { 'x-request-id': id }) } };
    return (await fetch(`${gateway.url}/ping`, init)).headers.get('x-request-id');
  };

  it('is the client’s own where it can stand in a log, and another for each request elsewhere', async () => {
    expect(await ask('4bf92f3577b34da6-a3ce929d0e0e4736')).toBe('4bf92f3577b34da6-a3ce929d0e0e4736');
    const longest = `a:b_C-1.${'x'.repeat(120)}`;
    expect(await ask(longest)).toBe(longest);
    const made = [await ask(), await ask(), await ask('with a space'), await ask(`${longest}x`)];
    expect(new Set(made).size).toBe(4);
    for (const id of made) expect(id).toMatch(/^[\w.-]{5,40}$/);
  });

  it('stands in the log line of a request that failed, without keys or values', async () => {
    const log: LogEntry[] = [];
    await using away = await startGateway({
      token: TOKEN,
      port: 0,
      redisUrl: 'redis://127.0.0.1:1',
      logRequests: 'failures',
      log: (entry) => log.push(entry),
    });
    const headers = { authorization: `Bearer ${TOKEN}`, 'x-request-id': 'the-failed-one' };
    const body = '[["SET","key-of-a-user","value-of-a-user"],["key-in-place-of-a-name"]]';
    expect((await fetch(`${away.url}/pipeline`, { method: 'POST', headers, body })).status).toBe(503);
    expect(log).toContainEqual(
      expect.objectContaining({
        level: 'warn',
        event: 'request',
        requestId: 'the-failed-one',
        kind: 'pipeline',
        status: 503,
        commands: ['SET', '?'],
        error: 'UNAVAILABLE',
      }),
    );
    expect(JSON.stringify(log)).not.toMatch(/of-a-user|in-place/);
  });
});

describe('startGateway', () => {
  it('rejects with EADDRINUSE and one line for a port in use', async () => {
    const error = await startGateway({ token: TOKEN, port: gateway.port }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'EADDRINUSE', message: `gateway: 127.0.0.1:${gateway.port} is in use` });
  });
});
