import { afterEach, describe, expect, it } from 'vitest';
import { type Gateway, type GatewayOptions, startGateway } from '../../../src/gateway/gateway.ts';
import { hasRedisServer, REDIS_MISSING, startRedis, until } from '../../support/redisServers.ts';

const TOKEN = 't';
const cleanup: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end();
});

async function start(options: Partial<GatewayOptions> = {}): Promise<Gateway> {
  const gateway = await startGateway({ token: TOKEN, readOnlyToken: 'r', port: 0, drainTimeoutMs: 2000, ...options });
  cleanup.push(() => gateway.close());
  return gateway;
}

const headers = { authorization: `Bearer ${TOKEN}` };

async function command(gateway: Gateway, ...args: (string | number)[]): Promise<unknown> {
  const response = await fetch(gateway.url, { method: 'POST', headers, body: JSON.stringify(args) });
  return ((await response.json()) as { result: unknown }).result;
}

/** Opens a stream, and collects its events until it ends. */
async function open(gateway: Gateway, path: string, init: RequestInit = {}) {
  const abort = new AbortController();
  const response = await fetch(gateway.url + path, { headers, signal: abort.signal, ...init });
  const events: string[] = [];
  let buffer = '';
  const ended = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of response.body!) {
      buffer += decoder.decode(chunk as Uint8Array, { stream: true });
      const parts = buffer.split('\n\n');
      buffer = parts.pop()!;
      events.push(...parts.filter((part) => !part.startsWith(':')));
    }
  })().catch(() => {}); // aborted by the test
  return { response, events, ended, abort: () => abort.abort() };
}

describe('/subscribe and /psubscribe', () => {
  it('are server-sent events: the confirmation, then the messages in order', async () => {
    const gateway = await start();
    const stream = await open(gateway, '/subscribe/a%2Fb', { method: 'POST' });
    expect(stream.response.headers.get('content-type')).toBe('text/event-stream');
    for (let i = 0; i < 50; i++) expect(await command(gateway, 'PUBLISH', 'a/b', `m,${i}`)).toBe(1);
    await until(() => stream.events.length === 51, 'all messages arrive');
    expect(stream.events[0]).toBe('data: subscribe,a/b,1');
    expect(stream.events.slice(1)).toEqual(Array.from({ length: 50 }, (_, i) => `data: message,a/b,m,${i}`));
  });

  it('keep line breaks of a message inside its event', async () => {
    const gateway = await start();
    const stream = await open(gateway, '/psubscribe/x*');
    await until(() => stream.events.length === 1, 'the subscription is confirmed');
    await command(gateway, 'PUBLISH', 'xy', 'one\ntwo\r\nthree');
    await until(() => stream.events.length === 2, 'the message arrives');
    expect(stream.events).toEqual(['data: psubscribe,x*,1', 'data: pmessage,x*,xy,one\ndata: two\ndata: three']);
  });

  it('are ended, and leave nothing behind, when the client goes away', async () => {
    const gateway = await start();
    const streams = await Promise.all(Array.from({ length: 20 }, (_, i) => open(gateway, `/subscribe/room:${i % 5}`)));
    await until(() => streams.every(({ events }) => events.length === 1), 'all are subscribed');
    expect(await command(gateway, 'PUBSUB', 'CHANNELS')).toHaveLength(5);
    for (const stream of streams) stream.abort();
    await until(
      async () => ((await command(gateway, 'PUBSUB', 'CHANNELS')) as string[]).length === 0,
      'no channel is left',
    );
  });

  it('are bounded in number, need a token, and allow the read-only one', async () => {
    const gateway = await start({ maxStreams: 1 });
    expect((await fetch(`${gateway.url}/subscribe/a`)).status).toBe(401);
    const stream = await open(gateway, '/subscribe/a?_token=r', { headers: {} });
    expect(stream.response.status).toBe(200);
    const refused = await fetch(`${gateway.url}/subscribe/b`, { headers });
    expect(refused.status).toBe(503);
    expect(await refused.json()).toEqual({ error: expect.stringContaining('open streams') });
    stream.abort();
    await until(async () => (await open(gateway, '/subscribe/b')).response.status === 200, 'there is room again');
  });

  it('end when the gateway closes', async () => {
    const gateway = await start();
    const stream = await open(gateway, '/subscribe/a');
    await until(() => stream.events.length === 1, 'it is subscribed');
    await gateway.close();
    await expect(stream.ended).resolves.toBeUndefined();
  });
});

describe.skipIf(!hasRedisServer)(`with redis-server${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  it('a lost connection ends the streams, and new ones work again', async () => {
    const server = await startRedis();
    cleanup.push(() => server.stop());
    const gateway = await start({ redisUrl: server.url });
    const stream = await open(gateway, '/subscribe/a');
    await until(() => stream.events.length === 1, 'it is subscribed');
    await server.kill();
    await stream.ended;
    const away = await fetch(`${gateway.url}/subscribe/a`, { headers });
    expect(away.status).toBe(503);
    expect(await away.json()).toEqual({ error: expect.stringContaining('Redis is not available') });
    await server.restart();
    await until(async () => (await command(gateway, 'PING')) === 'PONG', 'the gateway has recovered');
    const again = await open(gateway, '/subscribe/a');
    await until(() => again.events.length === 1, 'it is subscribed');
    expect(await command(gateway, 'PUBLISH', 'a', 'back')).toBe(1);
    await until(() => again.events.length === 2, 'the message arrives');
  });

  it('a subscriber that does not read is cut off, and costs the others nothing', async () => {
    const server = await startRedis();
    cleanup.push(() => server.stop());
    const gateway = await start({ redisUrl: server.url });
    const { connect } = await import('node:net');
    const lazy = connect(gateway.port, '127.0.0.1');
    lazy.on('error', () => {});
    lazy.write(`GET /subscribe/flood HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\n\r\n`);
    await new Promise((resolve) => lazy.once('readable', resolve)); // and reads no further
    const eager = await open(gateway, '/subscribe/flood');
    await until(
      async () => Number(await command(gateway, 'PUBLISH', 'flood', 'x')) > 0 && eager.events.length > 1,
      'it flows',
    );
    const message = 'x'.repeat(512 * 1024);
    for (let i = 0; i < 60; i++) await command(gateway, 'PUBLISH', 'flood', message);
    await until(() => eager.events.filter((event) => event.length > 1000).length === 60, 'the eager one has them all');
    const metrics = async () => (await fetch(`${gateway.url}/metrics`, { headers })).text();
    await expect.poll(metrics).toMatch(/^gateway_streams 1$/m); // the lazy one is cut off
    lazy.destroy();
  });
});

describe('/monitor', () => {
  it('shows commands as Redis does', async () => {
    const gateway = await start();
    const stream = await open(gateway, '/monitor', { method: 'POST' });
    await until(() => stream.events.length === 1, 'it has begun');
    await command(gateway, 'SET', 'seen', 'by monitor');
    await until(() => stream.events.some((event) => event.includes('"seen"')), 'the command is shown');
    expect(stream.events[0]).toBe('data: "OK"');
    expect(stream.events.find((event) => event.includes('"seen"'))).toMatch(
      /^data: \d+\.\d+ \[0 [^\]]*\] "SET" "seen" "by monitor"$/,
    );
    stream.abort();
  });
});
