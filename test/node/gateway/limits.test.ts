import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type Gateway, type GatewayOptions, startGateway } from '../../../src/gateway/gateway.ts';
import { hasRedisServer, REDIS_MISSING, startRedis, until } from '../../support/redisServers.ts';

const TOKEN = 't';
const headers = { authorization: `Bearer ${TOKEN}` };
const cleanup: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end();
});

async function start(options: Partial<GatewayOptions> = {}): Promise<Gateway> {
  const gateway = await startGateway({ token: TOKEN, port: 0, ...options });
  cleanup.push(() => gateway.close());
  return gateway;
}

async function post(gateway: Gateway, path: string, body: unknown) {
  const response = await fetch(gateway.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

async function metric(gateway: Gateway, name: string): Promise<number> {
  const text = await (await fetch(`${gateway.url}/metrics`, { headers })).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

describe.skipIf(!hasRedisServer)(`with redis-server${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  async function frozen(options: Partial<GatewayOptions> = {}) {
    const server = await startRedis();
    cleanup.push(() => server.stop());
    const gateway = await start({ redisUrl: server.url, ...options });
    server.freeze();
    cleanup.push(async () => server.resume());
    return { server, gateway };
  }

  it('responds 503 at once to commands over the limit in flight', async () => {
    const { server, gateway } = await frozen({ maxInFlight: 10 });
    const waiting = Array.from({ length: 5 }, () =>
      post(gateway, '/pipeline', [
        ['INCR', 'n'],
        ['INCR', 'n'],
      ]),
    );
    await until(async () => (await metric(gateway, 'gateway_commands_in_flight')) === 10, 'ten commands wait');
    const over = await post(gateway, '/', ['INCR', 'n']);
    expect(over).toMatchObject({ status: 503, body: { error: expect.stringContaining('10 commands are in flight') } });
    expect(over.headers.get('retry-after')).toBe('1');
    server.resume();
    for (const { status } of await Promise.all(waiting)) expect(status).toBe(200);
    expect(await post(gateway, '/', ['GET', 'n'])).toMatchObject({ body: { result: '10' } });
    expect(await metric(gateway, 'gateway_commands_in_flight')).toBe(0);
  });

  it('lets a pipeline that is larger than the limit through when nothing else is in flight', async () => {
    const gateway = await start({ maxInFlight: 10 });
    const reply = await post(
      gateway,
      '/pipeline',
      Array.from({ length: 50 }, () => ['PING']),
    );
    expect(reply.status).toBe(200);
  });

  it('bounds the bytes of requests that it holds', async () => {
    const { server, gateway } = await frozen({ maxBufferedBytes: 1_000_000 });
    const large = 'x'.repeat(400_000);
    const waiting = [1, 2].map((i) => post(gateway, '/', ['SET', `large:${i}`, large]));
    await until(async () => (await metric(gateway, 'gateway_commands_in_flight')) === 2, 'two requests wait');
    expect(await post(gateway, '/', ['SET', 'large:3', large])).toMatchObject({
      status: 503,
      body: { error: expect.stringContaining('bytes of requests') },
    });
    server.resume();
    for (const { status } of await Promise.all(waiting)) expect(status).toBe(200);
    expect(await post(gateway, '/', ['SET', 'large:3', large])).toMatchObject({ status: 200 });
  });

  it('runs a command once whose client has gone away, and goes on serving the others', async () => {
    const { server, gateway } = await frozen();
    for (let i = 0; i < 5; i++) {
      const abort = new AbortController();
      const gone = fetch(gateway.url, { method: 'POST', headers, body: '["INCR","gone"]', signal: abort.signal });
      gone.catch(() => {});
      await until(async () => (await metric(gateway, 'gateway_commands_in_flight')) === i + 1, 'the command is sent');
      abort.abort();
    }
    const other = post(gateway, '/', ['ECHO', 'mine']);
    server.resume();
    expect((await other).body).toEqual({ result: 'mine' });
    expect(await post(gateway, '/', ['GET', 'gone'])).toMatchObject({ body: { result: '5' } });
    expect(await metric(gateway, 'gateway_commands_in_flight')).toBe(0);
  });

  it('drains: requests in flight are finished, idle connections closed, new ones refused', async () => {
    const { server, gateway } = await frozen();
    const agent = new Agent({ keepAlive: true });
    cleanup.push(async () => agent.destroy());
    const idle = request(gateway.url, { agent, path: '/health' }).end();
    const [idleResponse] = await once(idle, 'response');
    idleResponse.resume();
    const silent = connect(gateway.port, '127.0.0.1');
    await once(silent, 'connect');
    const waiting = Array.from({ length: 8 }, () => post(gateway, '/', ['INCR', 'drained']));
    await until(async () => (await metric(gateway, 'gateway_commands_in_flight')) === 8, 'eight commands wait');
    const closing = gateway.close();
    await until(
      () =>
        fetch(`${gateway.url}/health`).then(
          () => false,
          () => true,
        ),
      'new connections are refused',
    );
    server.resume();
    for (const { status, headers } of await Promise.all(waiting)) {
      expect([status, headers.get('connection')]).toEqual([200, 'close']);
    }
    await closing;
    expect(await server.command('GET', 'drained')).toBe('8');
  });

  it('does not wait for a hanging Redis longer than the drain time', async () => {
    const { gateway } = await frozen({ drainTimeoutMs: 300 });
    const lost = post(gateway, '/', ['PING']).catch((error: Error) => error);
    await until(async () => (await metric(gateway, 'gateway_commands_in_flight')) === 1, 'a command waits');
    await gateway.close();
    expect(await lost).toBeInstanceOf(Error);
  });
});

describe('large responses that are not read', () => {
  it('count as buffered until their clients are gone', async () => {
    const gateway = await start({ maxBufferedBytes: 50_000_000 });
    const length = 20_000_000;
    expect(await post(gateway, '/', ['SET', 'large', 'x'.repeat(length)])).toMatchObject({ status: 200 });
    const body = '["GET","large"]';
    const lazy = [1, 2].map(() => {
      const socket = connect(gateway.port, '127.0.0.1').pause();
      socket.on('error', () => {});
      socket.write(
        `POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
      return socket;
    });
    await until(async () => {
      const { status, body } = await post(gateway, '/', ['GET', 'large']);
      return status === 503 && (body as { error: string }).error.includes('do not read');
    }, 'there is no room for a third');
    expect(await post(gateway, '/', ['PING'])).toMatchObject({ status: 200 });
    for (const socket of lazy) socket.destroy();
    await until(async () => (await post(gateway, '/', ['GET', 'large'])).status === 200, 'there is room again');
  });
});

describe('half a request', () => {
  it('is not run', async () => {
    const gateway = await start();
    const socket = connect(gateway.port, '127.0.0.1');
    await once(socket, 'connect');
    const body = '["SET","half","1"]';
    socket.write(
      `POST / HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-length: ${body.length + 5}\r\n\r\n${body}`,
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    await once(socket, 'close');
    expect(await post(gateway, '/', ['EXISTS', 'half'])).toMatchObject({ body: { result: 0 } });
  });
});

describe('GET /metrics', () => {
  it('counts requests, commands and errors in Prometheus’s format, for those with a token', async () => {
    const gateway = await start();
    expect((await fetch(`${gateway.url}/metrics`)).status).toBe(401);
    await post(gateway, '/', ['PING']);
    await post(gateway, '/', ['GET']);
    await post(gateway, '/pipeline', [['PING'], ['GET'], ['PING']]);
    expect(await metric(gateway, 'gateway_commands_total')).toBe(5);
    expect(await metric(gateway, 'gateway_command_errors_total')).toBe(2);
    expect(await metric(gateway, 'gateway_http_requests_total\\{status="400"\\}')).toBe(1);
    expect(await metric(gateway, 'gateway_http_requests_total\\{status="401"\\}')).toBe(1);
    expect(await metric(gateway, 'gateway_redis_connected')).toBe(1);
    const response = await fetch(`${gateway.url}/metrics`, { headers });
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const lines = (await response.text()).trimEnd().split('\n');
    for (const line of lines) {
      expect(line).toMatch(
        /^(?:# (?:HELP|TYPE) \w+ .+|\w+(?:\{\w+="[^"]*"(?:,\w+="[^"]*")*\})? -?\d+(?:\.\d+)?(?:e[+-]\d+)?)$/,
      );
    }
    const family = (name: string, what: string) =>
      Number(lines.find((line) => line.startsWith(`${what}{family="${name}"}`))?.split(' ')[1]);
    expect(family('server', 'gateway_command_duration_seconds_count')).toBe(3);
    expect(family('string', 'gateway_command_duration_seconds_count')).toBe(2);
    expect(family('string', 'gateway_family_errors_total')).toBe(2);
    expect(lines.filter((line) => line.includes('family="string",le=')).length).toBe(13);
    const buckets = lines.filter((line) => line.startsWith('gateway_request_duration_seconds_bucket'));
    const counts = buckets.map((line) => Number(line.split(' ')[1]));
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
  });
});
