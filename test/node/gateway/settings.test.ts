import { describe, expect, it } from 'vitest';
import { SettingsError } from '../../../src/gateway/errors.ts';
import { readSettings } from '../../../src/gateway/settings.ts';

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
    expect(readSettings({ GATEWAY_TOKEN: 't' })).toEqual({ token: 't', host: '127.0.0.1', port: 8079 });
  });

  it('takes the token by Upstash’s name too', () => {
    expect(readSettings({ UPSTASH_REDIS_REST_TOKEN: 'u' }).token).toBe('u');
    expect(readSettings({ UPSTASH_REDIS_REST_TOKEN: 'u', GATEWAY_TOKEN: 'g' }).token).toBe('g');
  });

  it('makes an address of REDIS_HOST, REDIS_PORT and REDIS_PASSWORD', () => {
    const env = { GATEWAY_TOKEN: 't', REDIS_HOST: 'db', REDIS_PORT: '6380', REDIS_PASSWORD: 'p@ss/word' };
    expect(readSettings(env).redisUrl).toBe('redis://:p%40ss%2Fword@db:6380');
    expect(readSettings({ GATEWAY_TOKEN: 't', REDIS_HOST: '::1' }).redisUrl).toBe('redis://[::1]:6379');
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
    expect(problemsOf({ GATEWAY_TOKEN: 't', GATEWAY_READONLY_TOKEN: 't' })).toHaveLength(1);
  });
});
