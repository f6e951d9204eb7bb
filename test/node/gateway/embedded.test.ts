import net from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newClient } from '../../../src/gateway/client.ts';
import { type EmbeddedEngine, startEmbeddedEngine } from '../../../src/gateway/embedded.ts';

let engine: EmbeddedEngine;

beforeAll(async () => {
  engine = await startEmbeddedEngine();
});
afterAll(() => engine.stop());

async function connect() {
  const client = newClient(engine.endpoint);
  client.on('error', () => {});
  await client.connect();
  return client;
}

describe('the embedded engine', () => {
  it('answers at once rather than with its 100 ms timer', async () => {
    const client = await connect();
    const started = performance.now();
    for (let i = 0; i < 50; i++) await client.sendCommand(['INCR', 'sequential']);
    expect((performance.now() - started) / 50).toBeLessThan(10);
    client.destroy();
  });

  it('serves more connections than it has descriptors, one after the other', async () => {
    const { port } = engine.endpoint;
    for (let i = 0; i < 7000; i++) {
      await new Promise<void>((resolve, reject) => {
        const socket = net.connect(port, '127.0.0.1', () => socket.resetAndDestroy());
        socket.once('error', reject).once('close', () => resolve());
      });
    }
    const client = await connect();
    expect(await client.sendCommand(['PING'])).toBe('PONG');
    client.destroy();
  }, 30_000);

  it('keeps replies apart between clients that come and go', async () => {
    const rounds = Array.from({ length: 30 }, async (_, n) => {
      for (let i = 0; i < 10; i++) {
        const client = await connect();
        const echoes = await Promise.all([1, 2, 3].map((k) => client.sendCommand(['ECHO', `${n}/${i}/${k}`])));
        expect(echoes).toEqual([1, 2, 3].map((k) => `${n}/${i}/${k}`));
        client.destroy();
      }
    });
    await Promise.all(rounds);
  });

  it('wants its password', async () => {
    const client = newClient({ ...engine.endpoint, username: undefined, password: undefined });
    client.on('error', () => {});
    await client.connect();
    await expect(client.sendCommand(['GET', 'x'])).rejects.toThrow(/^NOAUTH/);
    client.destroy();
  });

  it('lets keys expire and runs Lua', async () => {
    const client = await connect();
    const script = "redis.call('SET', KEYS[1], ARGV[1], 'PX', 1); return redis.call('GET', KEYS[1])";
    expect(await client.sendCommand(['EVAL', script, '1', 'brief', 'v'])).toBe('v');
    await expect.poll(() => client.sendCommand(['EXISTS', 'brief'])).toBe(0);
    client.destroy();
  });
});
