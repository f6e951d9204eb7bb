import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { SettingsError } from '../../../src/gateway/errors.ts';
import { readSettings } from '../../../src/gateway/settings.ts';

const TOKEN = 'a-token-of-this-test';
const OTHER = 'another-token-of-this-test';

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    readSettings(env);
  } catch (error) {
    if (error instanceof SettingsError) return error.problems;
    throw error;
  }
  return [];
}

describe('readSettings', () => {
  it('defaults to the embedded engine on 127.0.0.1:8079', () => {
    expect(readSettings({ GATEWAY_TOKEN: TOKEN })).toEqual({ token: TOKEN, host: '127.0.0.1', port: 8079 });
  });

  it('takes the token by Upstash’s name too', () => {
    expect(readSettings({ UPSTASH_REDIS_REST_TOKEN: OTHER }).token).toBe(OTHER);
    expect(readSettings({ UPSTASH_REDIS_REST_TOKEN: OTHER, GATEWAY_TOKEN: TOKEN }).token).toBe(TOKEN);
  });

  it('makes an address of REDIS_HOST, REDIS_PORT and REDIS_PASSWORD', () => {
    const env = { GATEWAY_TOKEN: TOKEN, REDIS_HOST: 'db', REDIS_PORT: '6380', REDIS_PASSWORD: 'p@ss/word' };
    expect(readSettings(env).redisUrl).toBe('redis://:p%40ss%2Fword@db:6380');
    expect(readSettings({ GATEWAY_TOKEN: TOKEN, REDIS_HOST: '::1' }).redisUrl).toBe('redis://[::1]:6379');
    expect(readSettings({ ...env, REDIS_URL: 'redis://other' }).redisUrl).toBe('redis://other');
  });

  it('names every wrong setting at once, and no secret', () => {
    const problems = problemsOf({ GATEWAY_PORT: '70000', REDIS_URL: 'http://:hunter2@db', REDIS_PORT: 'x' });
    expect(problems).toHaveLength(4);
    const text = problems.join('\n');
    for (const name of ['GATEWAY_TOKEN', 'GATEWAY_PORT', 'REDIS_URL', 'REDIS_PORT']) expect(text).toContain(name);
    expect(text).not.toContain('hunter2');
  });

  it('refuses a read-only token that is the token', () => {
    expect(problemsOf({ GATEWAY_TOKEN: TOKEN, GATEWAY_READONLY_TOKEN: TOKEN })).toHaveLength(1);
  });

  it.each(['short', 'fifteen-letters', 'has a space inside it', 'äöü-but-long-enough'])(
    'refuses the token "%s"',
    (token) => {
      expect(problemsOf({ GATEWAY_TOKEN: token }).length).toBeGreaterThan(0);
      expect(problemsOf({ GATEWAY_TOKEN: TOKEN, GATEWAY_READONLY_TOKEN: token }).length).toBeGreaterThan(0);
      expect(problemsOf({ GATEWAY_TOKEN: token }).join()).not.toContain(token);
    },
  );

  it('takes tokens from files, one a line', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'gatehouse-tokens-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const file = join(directory, 'tokens');
    await writeFile(file, `${TOKEN}\n${OTHER}\n\n`);
    expect(readSettings({ GATEWAY_TOKEN_FILE: file }).token).toEqual([TOKEN, OTHER]);
    expect(problemsOf({ GATEWAY_TOKEN_FILE: join(directory, 'none') })).toEqual([
      'GATEWAY_TOKEN_FILE cannot be read (ENOENT)',
    ]);
  });

  it('names the address that is wrong, and wants one for both tokens', () => {
    const env = { GATEWAY_TOKEN: TOKEN, REDIS_URL: 'redis://h' };
    expect(problemsOf({ ...env, REDIS_READONLY_URL: 'http://:hunter2@h' })[0]).toMatch(/^REDIS_READONLY_URL /);
    expect(problemsOf({ GATEWAY_TOKEN: TOKEN, REDIS_READONLY_URL: 'redis://h' })).toHaveLength(1);
    expect(readSettings({ ...env, REDIS_READONLY_URL: 'redis://r' }).readOnlyRedisUrl).toBe('redis://r');
  });
});
