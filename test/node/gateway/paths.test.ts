import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gateway, startGateway } from '../../../src/gateway/gateway.ts';

const TOKEN = 'full-token';
const READ_ONLY = 'reader-token';
let gateway: Gateway;

beforeAll(async () => {
  gateway = await startGateway({ token: TOKEN, readOnlyToken: READ_ONLY, port: 0 });
});
afterAll(() => gateway.close());

async function call(path: string, init: RequestInit & { token?: string | null } = {}) {
  const { token = TOKEN, ...rest } = init;
  const headers = new Headers(init.headers);
  if (token !== null) headers.set('authorization', `Bearer ${token}`);
  return fetch(gateway.url + path, { ...rest, headers });
}
const json = async (path: string, init?: Parameters<typeof call>[1]) => (await call(path, init)).json();

describe('commands in the path', () => {
  it('takes arguments from segments, percent-decoded', async () => {
    expect(await json('/set/path%2Fkey/%E2%82%AC%20%25')).toEqual({ result: 'OK' });
    expect(await json('/GET/path%2Fkey')).toEqual({ result: '€ %' });
    expect(await json('/incrby/path-n/-5', { method: 'PUT' })).toEqual({ result: -5 });
  });

  it('appends the body as it is, then the query', async () => {
    const set = await json('/set/path-body?EX=100&NX', { method: 'POST', body: '{"a": "b/c"}' });
    expect(set).toEqual({ result: 'OK' });
    expect(await json('/get/path-body')).toEqual({ result: '{"a": "b/c"}' });
    expect(await json('/set/path-body/other?NX=')).toEqual({ result: null });
    const { result } = (await json('/ttl/path-body')) as { result: number };
    expect(result).toBeGreaterThan(90);
    expect(await json('/set/path-body?px=5&get', { method: 'POST', body: 'new' })).toEqual({ result: '{"a": "b/c"}' });
  });

  it('sends errors like all other paths', async () => {
    const response = await call('/get');
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({ error: "ERR wrong number of arguments for 'get' command" });
  });

  it('responds to HEAD without a body, and refuses other methods', async () => {
    const head = await call('/ping', { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
    for (const [path, method] of [
      ['/get/x', 'DELETE'],
      ['/', 'GET'],
      ['/pipeline', 'GET'],
      ['/health', 'POST'],
    ] as const) {
      const response = await call(path, { method });
      expect(response.status).toBe(405);
      expect(await response.json()).toEqual({ error: expect.stringMatching(/^ERR method/) });
    }
  });

  it('takes the token from _token, and never passes it on as an argument', async () => {
    expect(await json(`/set/by-query/v?_token=${TOKEN}&EX=10`, { token: null })).toEqual({ result: 'OK' });
    expect(await json(`/get/by-query?_token=${TOKEN}`, { token: null })).toEqual({ result: 'v' });
    expect((await call('/get/by-query?_token=wrong', { token: null })).status).toBe(401);
    expect((await call(`/pipeline?_token=${TOKEN}`, { token: null, method: 'POST', body: '[["PING"]]' })).status).toBe(
      200,
    );
  });
});

describe('the read-only token', () => {
  const as = (body: unknown, path = '/') =>
    json(path, { token: READ_ONLY, method: 'POST', body: JSON.stringify(body) });

  it('may read, and may not write, run scripts or see other clients’ commands', async () => {
    await json('/set/readable/yes');
    expect(await as(['GET', 'readable'])).toEqual({ result: 'yes' });
    expect(await as(['EVAL_RO', "return redis.call('GET', KEYS[1])", 1, 'readable'])).toEqual({ result: 'yes' });
    for (const command of [
      ['SET', 'readable', 'no'],
      ['EVAL', 'return 1', 0],
      ['GETDEL', 'readable'],
      ['FLUSHALL'],
      ['PUBLISH', 'a', 'b'],
      ['NOSUCH'],
    ]) {
      expect(await as(command)).toEqual({ error: expect.stringMatching(/^NOPERM /) });
    }
    expect(
      await as(
        [
          ['GET', 'readable'],
          ['DEL', 'readable'],
        ],
        '/pipeline',
      ),
    ).toEqual([{ result: 'yes' }, { error: expect.stringMatching(/^NOPERM .*'DEL'/) }]);
    expect(
      await as(
        [
          ['GET', 'readable'],
          ['DEL', 'readable'],
        ],
        '/multi-exec',
      ),
    ).toEqual({
      error: expect.stringMatching(/^NOPERM /),
    });
    expect((await call('/monitor', { token: READ_ONLY })).status).toBe(400);
    expect(await json('/get/readable')).toEqual({ result: 'yes' });
  });
});

describe('Upstash-Response-Format: resp2', () => {
  const raw = async (path: string, body: unknown) => {
    const response = await call(path, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'upstash-response-format': 'resp2' },
    });
    return [response.status, response.headers.get('content-type'), await response.text()];
  };

  it('returns raw RESP2', async () => {
    expect(await raw('/', ['SET', 'raw', 'OK'])).toEqual([200, 'application/octet-stream', '+OK\r\n']);
    expect(await raw('/', ['GET', 'raw'])).toEqual([200, 'application/octet-stream', '$2\r\nOK\r\n']);
    expect(await raw('/', ['GET', 'none'])).toEqual([200, 'application/octet-stream', '$-1\r\n']);
    expect(await raw('/', ['EVAL', "return {1, {'a'}, redis.status_reply('FINE')}", 0])).toEqual([
      200,
      'application/octet-stream',
      '*3\r\n:1\r\n*1\r\n$1\r\na\r\n+FINE\r\n',
    ]);
    expect(await raw('/pipeline', [['PING'], ['INCR', 'raw'], ['STRLEN', 'raw']])).toEqual([
      200,
      'application/octet-stream',
      '+PONG\r\n-ERR value is not an integer or out of range\r\n:2\r\n',
    ]);
  });

  it('keeps errors in JSON', async () => {
    const [status, type, text] = await raw('/', ['INCR', 'raw']);
    expect([status, type]).toEqual([400, 'application/json']);
    expect(JSON.parse(text as string)).toEqual({ error: 'ERR value is not an integer or out of range' });
  });
});

describe('upstash-sync-token', () => {
  it('is on every response, and never twice the same', async () => {
    const responses = await Promise.all([
      call('/ping'),
      call('/ping'),
      call('/nosuch'),
      call('/ping', { token: 'wrong' }),
    ]);
    const tokens = responses.map((response) => response.headers.get('upstash-sync-token'));
    expect(tokens).not.toContain(null);
    expect(new Set(tokens).size).toBe(4);
    await Promise.all(responses.map((response) => response.text()));
  });
});

describe('commands that are not available', () => {
  it.each([
    ['BLPOP', 'l', '0'],
    ['XREAD', 'BLOCK', '0', 'STREAMS', 's', '$'],
    ['XREADGROUP', 'GROUP', 'STREAMS', 'c', 'BLOCK', '0', 'STREAMS', 's', '>'],
    ['WATCH', 'k'],
    ['MULTI'],
    ['SELECT', '1'],
    ['client', 'kill', 'type', 'normal'],
    ['SHUTDOWN', 'NOSAVE'],
    ['CONFIG', 'GET', '*'],
    ['SCRIPT', 'DEBUG', 'YES'],
    ['DEBUG', 'SLEEP', '1'],
    ['SUBSCRIBE', 'c'],
    ['MONITOR'],
    ['RESET'],
  ])('%s is refused, in its own place of a pipeline', async (...command) => {
    const body = JSON.stringify([['ECHO', 'before'], command, ['ECHO', 'after']]);
    expect(await json('/pipeline', { method: 'POST', body })).toEqual([
      { result: 'before' },
      { error: expect.stringMatching(/^ERR Command is not available: '/) },
      { result: 'after' },
    ]);
  });

  it('does not take a stream named BLOCK for the option', async () => {
    const body = JSON.stringify(['XREAD', 'COUNT', '1', 'STREAMS', 'BLOCK', '0']);
    expect(await json('/', { method: 'POST', body })).toEqual({ result: null });
  });

  it('refuses a transaction that contains one, as a whole', async () => {
    const body = JSON.stringify([['SET', 'not-written', '1'], ['EXEC'], ['SET', 'not-written', '2']]);
    expect((await call('/multi-exec', { method: 'POST', body })).status).toBe(400);
    expect(await json('/exists/not-written')).toEqual({ result: 0 });
  });
});
