import { afterEach, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { AppError } from '../../../src/errors';
import { freshNamespace, observedClient } from '../support/cache';
import { bindings, callerOf, isolateFor } from '../support/request';

afterEach(() => vi.restoreAllMocks());

interface Line extends Record<string, unknown> {
  event: string;
}

function scene(settings: Record<string, unknown> = {}) {
  const lines: Line[] = [];
  for (const level of ['info', 'warn', 'error'] as const) {
    vi.spyOn(console, level).mockImplementation((text: string) => void lines.push(JSON.parse(text) as Line));
  }
  const bound = bindings({ KEY_PREFIX: freshNamespace().replace('.', '-'), ...settings });
  const clock = { ms: Date.now() };
  const { client, state } = observedClient();
  const now = () => clock.ms;
  const isolate = isolateFor(bound, { client, now });
  const app = createApp({ isolate, now });
  app.get('/test/conflict', () => {
    throw new AppError('CONFLICT');
  });
  app.get('/test/bug', () => {
    throw new TypeError('secret');
  });
  const call = callerOf(app, bound);
  const of = (event: string) => lines.filter((line) => line.event === event);
  return { call, of, lines, clock, state, isolate };
}

const ID = { headers: { 'X-Request-Id': 'request-0001' } };

describe('refusals in the log', () => {
  test('401, with code, route and the client’s network', async () => {
    const { call, of } = scene();
    await call('GET', '/v1/users/me', { token: 'not.a.token', ...ID });
    expect(of('request.refused')).toEqual([
      {
        level: 'warn',
        event: 'request.refused',
        requestId: 'request-0001',
        status: 401,
        code: 'INVALID_TOKEN',
        method: 'GET',
        route: '/v1/users/me',
        address: '203.0.113.0/24',
      },
    ]);
  });

  test('403 and 409, with their codes', async () => {
    const { call, of } = scene();
    const body = { email: `${crypto.randomUUID()}@example.com`, password: 'correct horse', name: 'Grace' };
    const { body: registered } = await call('POST', '/v1/auth/register', { body });
    const { access_token: token } = registered as { access_token: string };
    await call('GET', '/v1/admin/metrics', { token });
    await call('GET', '/test/conflict', ID);
    expect(of('request.refused')).toMatchObject([
      { level: 'warn', status: 403, code: 'FORBIDDEN', route: '/v1/admin/metrics', address: '203.0.113.0/24' },
      { level: 'warn', status: 409, code: 'CONFLICT', route: '/test/conflict', requestId: 'request-0001' },
    ]);
  });

  test('READ_ONLY is no error', async () => {
    const { call, of } = scene({ READ_ONLY: 'true' });
    await call('POST', '/v1/auth/logout', ID);
    expect(of('request.refused')).toMatchObject([{ level: 'warn', status: 503, code: 'READ_ONLY' }]);
    expect(of('request.error')).toEqual([]);
  });

  test('5xx as errors: a bug, and a database that is away', async () => {
    const { call, of, lines } = scene();
    await call('GET', '/test/bug', ID);
    expect(of('request.error')).toMatchObject([
      { level: 'error', status: 500, code: 'INTERNAL', route: '/test/bug', requestId: 'request-0001' },
    ]);
    expect(of('request.failed')).toMatchObject([{ error: 'TypeError', path: '/test/bug' }]);
    expect(JSON.stringify(lines)).not.toContain('secret');
    const gone = () => {
      throw new Error('D1_ERROR: Network connection lost.');
    };
    const { call: without, of: written } = scene({ DB: { prepare: gone, batch: gone, withSession: gone } });
    await without('POST', '/v1/auth/login', { body: { email: 'a@example.com', password: 'correct horse' } });
    expect(written('request.error')).toMatchObject([{ level: 'error', status: 503, route: '/v1/auth/login' }]);
  });

  test('429, with the policy', async () => {
    const { call, of } = scene({ LIMIT_REGISTER: '1/15m' });
    const newcomer = () => ({ email: `${crypto.randomUUID()}@example.com`, password: 'correct horse', name: 'Grace' });
    await call('POST', '/v1/auth/register', { body: newcomer() });
    await call('POST', '/v1/auth/register', { body: newcomer() });
    expect(of('request.refused')).toMatchObject([{ status: 429, code: 'RATE_LIMITED', policy: 'register' }]);
  });

  test('a degraded response names its policies, and no line holds a token or an address', async () => {
    const { call, lines, of, state } = scene();
    state.down = true;
    await call('POST', '/v1/auth/login', { body: { email: 'grace@example.com', password: 'correct horse' }, ...ID });
    expect(of('request.refused')[0]).toMatchObject({ code: 'INVALID_CREDENTIALS', degraded: 'limiter=local' });
    expect(JSON.stringify(lines)).not.toMatch(/grace@|correct horse|203\.0\.113\.9/);
    expect(lines.every(({ requestId }) => requestId === 'request-0001')).toBe(true);
  });

  test('at most 50 lines in ten seconds, and a count of the rest', async () => {
    const { call, of, clock, isolate } = scene();
    for (let i = 0; i < 60; i += 1) await call('GET', '/v1/users/me', { token: 'not.a.token' });
    expect(of('request.refused')).toHaveLength(50);
    clock.ms += 10_000;
    await call('GET', '/v1/users/me', { token: 'not.a.token' });
    expect(of('log.left_out')).toMatchObject([{ of: 'request.refused', lines: 10 }]);
    expect(of('request.refused')).toHaveLength(51);
    expect(isolate.metrics.instruments.logsLeftOut.series('request.refused').values).toEqual([10]);
  });
});
