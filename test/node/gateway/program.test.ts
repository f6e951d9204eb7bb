import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
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

  it('logs in one line of JSON that it is ready, responds, and drains on SIGTERM', async () => {
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

  it('prints its settings for --help, and the users to make in Redis', async () => {
    const child = spawn(process.execPath, [MAIN, '--help'], { env: { PATH: process.env['PATH'] } });
    children.push(child);
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
    for (const word of [
      'GATEWAY_TOKEN_FILE',
      'REDIS_READONLY_URL',
      'GATEWAY_SCRIPT_TIMEOUT_MS',
      'SIGHUP',
      'ACL SETUSER',
    ]) {
      expect(text).toContain(word);
    }
  });

  it('takes other tokens on SIGHUP, ends the streams of those that are gone, and keeps them when a file is wrong', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'gatehouse-tokens-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const file = join(directory, 'tokens');
    const [old, next] = ['the-old-token-of-this-test', 'the-next-token-of-this-test'];
    await writeFile(file, `${old}\n`);
    const { child, output } = run({ GATEWAY_TOKEN_FILE: file, GATEWAY_PORT: '0' });
    await until(() => output.stdout.endsWith('\n'), 'it is ready');
    const { url } = JSON.parse(output.stdout) as { url: string };
    const status = async (token: string) =>
      (await fetch(`${url}/ping`, { headers: { authorization: `Bearer ${token}` } })).status;
    const reload = async (text: string, event: string) => {
      await writeFile(file, text);
      const seen = output.stderr.length;
      child.kill('SIGHUP');
      await until(() => output.stderr.slice(seen).includes(event), event);
    };
    const stream = await fetch(`${url}/subscribe/c`, { headers: { authorization: `Bearer ${old}` } });
    expect([await status(old), await status(next)]).toEqual([200, 401]);
    await reload(`${old}\n${next}\n`, 'tokens_reloaded');
    expect([await status(old), await status(next)]).toEqual([200, 200]);
    await reload('short\n', 'tokens_not_reloaded');
    expect([await status(old), await status(next)]).toEqual([200, 200]);
    await reload(`${next}\n`, 'tokens_reloaded');
    expect([await status(old), await status(next)]).toEqual([401, 200]);
    expect(await stream.text()).toContain('data: subscribe,c,1'); // it ends
    for (const token of [old, next]) expect(output.stderr).not.toContain(token);
  });
});
