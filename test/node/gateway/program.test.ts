import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { freePort, until } from '../../support/redisServers.ts';

const MAIN = fileURLToPath(new URL('../../../src/gateway/main.ts', import.meta.url));
const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

function run(env: Record<string, string>) {
  const child = spawn(process.execPath, [MAIN], { env: { PATH: process.env['PATH'], ...env } });
  children.push(child);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  const exit = once(child, 'exit').then(([code]) => code as number | null);
  return { child, output, exit };
}

describe('the gateway as a program', () => {
  it('names every wrong setting in one line, and ends with 1', async () => {
    const { output, exit } = run({ GATEWAY_PORT: 'x', REDIS_URL: 'ftp://:hunter2@h', GATEWAY_MAX_STREAMS: '-1' });
    expect(await exit).toBe(1);
    expect(output.stdout).toBe('');
    expect(output.stderr.trim().split('\n')).toHaveLength(1);
    for (const name of ['GATEWAY_TOKEN', 'GATEWAY_PORT', 'REDIS_URL', 'GATEWAY_MAX_STREAMS']) {
      expect(output.stderr).toContain(name);
    }
    expect(output.stderr).not.toContain('hunter2');
  });

  it('says in one line of JSON that it is ready, answers, and drains on SIGTERM', async () => {
    const { child, output, exit } = run({ GATEWAY_TOKEN: 'tok3n-of-this-test', GATEWAY_PORT: '0' });
    await until(() => output.stdout.endsWith('\n'), 'it is ready');
    const ready = JSON.parse(output.stdout) as { event: string; url: string; backend: string };
    expect(ready).toEqual({
      event: 'ready',
      url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
      backend: expect.stringMatching(/^embedded Valkey/),
    });
    const response = await fetch(`${ready.url}/ping?_token=tok3n-of-this-test`);
    expect(await response.json()).toEqual({ result: 'PONG' });
    const again = run({ GATEWAY_TOKEN: 'another-token-of-this-test', GATEWAY_PORT: new URL(ready.url).port });
    expect(await again.exit).toBe(1);
    expect(again.output.stderr).toMatch(/^gateway: 127\.0\.0\.1:\d+ is in use\n$/);
    child.kill('SIGTERM');
    expect(await exit).toBe(0);
    const logged = output.stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string });
    expect([...new Set(logged.map(({ event }) => event))]).toEqual(['redis_connected', 'draining']);
  });

  it('logs without secrets, and stays up while Redis is away', async () => {
    const port = await freePort();
    const { child, output, exit } = run({
      GATEWAY_TOKEN: 'tok3n-of-this-test',
      GATEWAY_PORT: '0',
      REDIS_HOST: '127.0.0.1',
      REDIS_PORT: String(port),
      REDIS_PASSWORD: 'hunter2',
    });
    await until(() => output.stdout.endsWith('\n'), 'it is ready');
    const { url, backend } = JSON.parse(output.stdout) as { url: string; backend: string };
    expect(backend).toBe(`redis://127.0.0.1:${port}`);
    const response = await fetch(`${url}/set/key-secret/value-secret?_token=tok3n-of-this-test`);
    expect(response.status).toBe(503);
    const answer = await response.text();
    child.kill('SIGINT');
    expect(await exit).toBe(0);
    for (const secret of ['tok3n-of-this-test', 'hunter2', 'key-secret', 'value-secret']) {
      expect(output.stdout + output.stderr + answer).not.toContain(secret);
    }
  });
});
