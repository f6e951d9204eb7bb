import { request } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gateway, startGateway } from '../../../src/gateway/gateway.ts';

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
  it('answers { result } for a command', async () => {
    expect(await post('/', ['SET', 'greeting', 'grüß dich 👋'])).toEqual({ status: 200, body: { result: 'OK' } });
    expect(await post('/', ['GET', 'greeting'])).toEqual({ status: 200, body: { result: 'grüß dich 👋' } });
    expect(await post('/', ['GET', 'nothing'])).toEqual({ status: 200, body: { result: null } });
  });

  it('answers 400 and Redis’s own text for an error', async () => {
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

  it('answers nested arrays', async () => {
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
  it('answers in order, and one bad command fails only its own place', async () => {
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

  it('answers an empty array for an empty pipeline', async () => {
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
  it('answers like a pipeline', async () => {
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

describe('what is not a request', () => {
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
  it('tells the state without a token, and where Redis is only with one', async () => {
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

describe('startGateway', () => {
  it('rejects with EADDRINUSE and one line for a port in use', async () => {
    const error = await startGateway({ token: TOKEN, port: gateway.port }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'EADDRINUSE', message: `gateway: 127.0.0.1:${gateway.port} is in use` });
  });
});
