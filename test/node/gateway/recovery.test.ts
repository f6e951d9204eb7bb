import { afterEach, describe, expect, it } from 'vitest';
import { type Gateway, startGateway } from '../../../src/gateway/gateway.ts';
import {
  freePort,
  hasRedisServer,
  REDIS_MISSING,
  type RedisProcess,
  startRedis,
  until,
} from '../../support/redisServers.ts';

const TOKEN = 't';
const cleanup: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end();
});

/** Far less than the gateway waits for a reply, and enough for a slow machine. */
const AT_ONCE_MS = 20_000;

async function gatewayTo(redisUrl: string, replyTimeoutMs = 60_000): Promise<Gateway> {
  const gateway = await startGateway({ token: TOKEN, port: 0, redisUrl, replyTimeoutMs });
  cleanup.push(() => gateway.close());
  return gateway;
}

async function redis(...args: string[]): Promise<RedisProcess> {
  const server = await startRedis(...args);
  cleanup.push(() => server.stop());
  return server;
}

async function call(gateway: Gateway, path: string, body: unknown) {
  const started = performance.now();
  const response = await fetch(gateway.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}` },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json(), tookMs: performance.now() - started };
}

const answers = (gateway: Gateway) => async () => (await call(gateway, '/', ['PING'])).status === 200;

describe('without its Redis', () => {
  it('starts, and responds 503 at once on every path', async () => {
    const gateway = await gatewayTo(`redis://127.0.0.1:${await freePort()}`);
    for (const [path, body] of [
      ['/', ['PING']],
      ['/pipeline', [['PING'], ['PING']]],
      ['/multi-exec', [['PING']]],
    ] as const) {
      const reply = await call(gateway, path, body);
      expect(reply).toMatchObject({
        status: 503,
        body: { error: expect.stringMatching(/^UNAVAILABLE Redis is not available/) },
      });
      expect(reply.tookMs).toBeLessThan(AT_ONCE_MS);
    }
    const health = await fetch(`${gateway.url}/health`);
    expect(await health.json()).toMatchObject({ status: 'degraded', connected: false });
  });
});

describe.skipIf(!hasRedisServer)(`with redis-server${hasRedisServer ? '' : ` (${REDIS_MISSING})`}`, () => {
  it('says 503 at once after a crash, recovers by itself, and never runs a command twice', async () => {
    const server = await redis('--appendonly', 'yes', '--appendfsync', 'always');
    const gateway = await gatewayTo(server.url);
    let acknowledged = 0;
    let unknown = 0;
    const stop = new AbortController();
    const traffic = Array.from({ length: 8 }, async () => {
      while (!stop.signal.aborted) {
        const { status } = await call(gateway, '/', ['INCR', 'count']);
        if (status === 200) acknowledged++;
        else unknown++;
        if (status === 503) await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
    await until(() => acknowledged > 200, '200 commands are answered');
    await server.kill();
    await until(() => unknown > 0, 'a command fails');
    const whileAway = await call(gateway, '/', ['PING']);
    expect(whileAway).toMatchObject({ status: 503 });
    expect(whileAway.tookMs).toBeLessThan(AT_ONCE_MS);
    await server.restart();
    await until(answers(gateway), 'the gateway has recovered');
    const before = acknowledged;
    await until(() => acknowledged > before + 200, 'commands are answered again');
    stop.abort();
    await Promise.all(traffic);

    const { body } = await call(gateway, '/', ['GET', 'count']);
    const count = Number((body as { result: string }).result);
    // Every acknowledged INCR is there; a failed one may have run, once.
    expect(count).toBeGreaterThanOrEqual(acknowledged);
    expect(count).toBeLessThanOrEqual(acknowledged + unknown);
  });

  it('bounds the wait for a Redis that hangs, then refuses at once, then recovers', async () => {
    const server = await redis();
    const gateway = await gatewayTo(server.url, 400);
    server.freeze();
    const hung = await call(gateway, '/', ['INCR', 'n']);
    expect(hung).toMatchObject({ status: 503, body: { error: expect.stringContaining('may have run') } });
    const next = await call(gateway, '/', ['INCR', 'n']);
    expect(next).toMatchObject({ status: 503, body: { error: expect.stringContaining('not available') } });
    server.resume();
    await until(answers(gateway), 'the gateway has recovered');
  });

  it('signs in with the password of its address, and does not show it', async () => {
    const server = await redis('--requirepass', 's3cret:/@');
    const gateway = await gatewayTo(server.url);
    expect(await call(gateway, '/', ['PING'])).toMatchObject({ status: 200, body: { result: 'PONG' } });
    expect(gateway.backend).toBe(`redis://127.0.0.1:${server.port}`);

    const wrong = await gatewayTo(server.url.replace(/:[^:]*@/, ':wrong@'));
    const refused = await call(wrong, '/', ['PING']);
    expect(refused).toMatchObject({ status: 503, body: { error: expect.stringContaining('WRONGPASS') } });
    expect(JSON.stringify(refused.body)).not.toContain('s3cret');
  });

  it('uses the database of its address', async () => {
    const server = await redis();
    const gateway = await gatewayTo(`${server.url}/3`);
    await call(gateway, '/', ['SET', 'k', 'in three']);
    expect(await server.command('GET', 'k')).toBeNull();
    expect(await call(gateway, '/', ['GET', 'k'])).toMatchObject({ body: { result: 'in three' } });
  });
});
