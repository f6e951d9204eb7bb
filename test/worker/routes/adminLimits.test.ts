import { env } from 'cloudflare:workers';
import { beforeAll, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { configOf } from '../../../src/config/env';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import { createRedisClient } from '../../../src/redis/client';
import type { Command, RedisClient } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { LimitOverrideService } from '../../../src/services/limitOverride.service';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

const AGE_MS = 20_000;
const bound = bindings({ LIMIT_OVERRIDES_SECONDS: '20', KEY_PREFIX: 'overrides' });
const password = 'a horse that staples batteries';

/** An isolate with a clock of its own, which notes what it sends to Redis. */
function newIsolate() {
  const state = { nowMs: Date.now(), away: false, pipelines: [] as Command[][] };
  const { url, token } = configOf(bound).redis;
  const real = createRedisClient({ url, token });
  const client: RedisClient = {
    execute: (commands) => {
      if (state.away) return Promise.reject(new RedisUnavailable('refused'));
      state.pipelines.push([...commands]);
      return real.execute(commands);
    },
  };
  const now = () => state.nowMs;
  const isolate = isolateFor(bound, { client, now });
  const app = createApp({ isolate, now });
  app.get('/own/:thing', rateLimiter({ maxRequests: 3, windowMs: 3_600_000 }), (c) => c.text('in'));
  app.get('/plans', rateLimiter({ name: 'plans', maxRequests: () => 2, windowMs: 3_600_000 }), (c) => c.text('in'));
  return { state, isolate, now, call: callerOf(app, bound) };
}

const one = newIsolate();
const { call } = one;
let admin = { id: '', access: '' };
let user = { id: '', email: '', access: '' };

async function register(name: string) {
  const email = `${name}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', { body: { email, password, name } });
  return { id: String(body.user.id), email, access: String(body.access_token) };
}

beforeAll(async () => {
  user = await register('limited');
  admin = await register('limiting');
  await env.DB.prepare(`update users set role = 'admin' where id = ?`).bind(admin.id).run();
  const { body } = await call('POST', '/v1/auth/login', { body: { email: 'limiting@example.com', password } });
  admin.access = body.access_token;
});

const post = (path: string, body: object, by = call) => by('POST', path, { token: admin.access, body });
const peek = (policy: string, identity: string) => post('/v1/admin/limits/peek', { policy, identity });
const reset = (policy: string, identity: string) => post('/v1/admin/limits/reset', { policy, identity });
const override = (policy: string, maxRequests: number, windowMs = 3_600_000) =>
  post('/v1/admin/limits/override', { policy, windows: [{ maxRequests, windowMs }] });
const restore = (policy: string) => post('/v1/admin/limits/restore', { policy });
const used = async (policy: string, identity: string) => {
  const { body } = await peek(policy, identity);
  return body.limits[0].maxRequests - body.limits[0].remaining;
};
const audited = async () => {
  const { body } = await call('GET', '/v1/admin/audit?limit=1', { token: admin.access });
  const [{ action, by, userId, detail }] = body.items;
  return { action, by, userId, detail };
};
const from = (address: string) => ({ 'CF-Connecting-IP': address });

describe('identities as people know them', () => {
  test('a login, by e-mail and address in any spelling and order', async () => {
    const headers = from('2001:db8::7');
    await call('POST', '/v1/auth/login', { body: { email: user.email, password: 'wrong' }, headers });
    for (const typed of [
      'limited@example.com 2001:db8::7',
      '2001:DB8:0:0:0::1  Limited@Example.com',
      'account:limited@example.com address:2001:db8::/64',
    ]) {
      expect(await used('login', typed)).toBe(1);
    }
    expect(await used('login-address', '2001:db8:0:0:ffff::')).toBe(1);
    expect(await used('login', 'limited@example.com 2001:db8:0:1::7')).toBe(0);
    expect((await reset('login', `${user.id} 2001:db8::9`)).status).toBe(204);
    expect(await used('login', 'limited@example.com 2001:db8::7')).toBe(0);
    const entry = { action: 'limit-reset', by: admin.id, userId: user.id, detail: { policy: 'login' } };
    expect(await audited()).toEqual(entry);
  });

  test('a user by e-mail or id, a client that is signed out by its address', async () => {
    await call('GET', '/v1/users/me', { token: user.access });
    await call('GET', '/v1/users/me', { headers: from('203.0.113.99') });
    expect(await used('api', 'Limited@example.com ')).toBe(1);
    expect(await used('api', user.id)).toBe(1);
    expect(await used('api', `user:${user.id}`)).toBe(1);
    expect(await used('api', '::ffff:203.0.113.99')).toBe(1);
    await reset('api', user.email);
    expect(await used('api', user.id)).toBe(0);
  });

  test('a limiter of the app’s own, which has no name', async () => {
    await call('GET', '/own/1', { headers: from('203.0.113.5') });
    expect(await used('GET /own/:thing', '203.0.113.5')).toBe(1);
  });

  test.each([
    ['login', 'limited@example.com'],
    ['login', '203.0.113.7'],
    ['login', 'limited@example.com other@example.com'],
    ['login', 'limited@example.com 203.0.113'],
    ['login-address', 'limited@example.com'],
    ['login-address', '203.0.113.7:80'],
    ['login-address', '203.0.113.7 203.0.113.8'],
    ['register', 'address:gggg::1'],
    ['api', 'nobody@example.com'],
    ['api', 'no-such-id'],
    ['api', 'limited@example.com 203.0.113.7'],
    ['recovery-account', '203.0.113.7'],
    ['refresh', 'limited@example.com'],
    ['none', 'limited@example.com'],
    ['GET /own', '203.0.113.7'],
  ])('%s %s is an error', async (policy, identity) => {
    const before = await audited();
    for (const ask of [peek, reset]) {
      expect(await ask(policy, identity)).toMatchObject({ status: 422, body: { code: 'VALIDATION_FAILED' } });
    }
    expect(await audited()).toEqual(before);
  });
});

test('every limiter is listed, with its places, its numbers and the identity that it counts', async () => {
  const { body } = await call('GET', '/v1/admin/limits', { token: admin.access });
  const listed = Object.fromEntries(body.limits.map((limit: { policy: string }) => [limit.policy, limit]));
  expect(listed['login']).toMatchObject({ counts: 'address-and-account', places: ['POST /v1/auth/login'] });
  expect(listed['api'].places).toContain('GET /v1/users/me');
  expect(listed['GET /own/:thing']).toEqual({
    policy: 'GET /own/:thing',
    counts: 'caller',
    algorithm: 'sliding-window',
    windows: [{ maxRequests: 3, windowMs: 3_600_000 }],
    ownWindows: [{ maxRequests: 3, windowMs: 3_600_000 }],
    overriddenBy: null,
    overriddenAt: null,
    places: ['GET /own/:thing'],
  });
  expect(listed['plans']).toMatchObject({ windows: [] });
  expect(await peek('plans', '203.0.113.5')).toMatchObject({ status: 422, body: { code: 'VALIDATION_FAILED' } });
});

describe('an override', () => {
  test('counts in another isolate within the stated age, without a call more; and back again', async () => {
    const other = newIsolate();
    let address = 0;
    const burst = async (times: number) => {
      address += 1;
      const statuses: number[] = [];
      for (let time = 0; time < times; time += 1) {
        statuses.push((await other.call('GET', '/own/1', { headers: from(`198.51.100.${address}`) })).status);
      }
      return statuses;
    };
    await burst(1);
    expect((await override('GET /own/:thing', 1)).body).toEqual({ pending: false });
    const detail = { policy: 'GET /own/:thing', windows: '1/3600s' };
    expect(await audited()).toEqual({ action: 'limit-overridden', by: admin.id, userId: null, detail });

    other.state.nowMs += AGE_MS - 1;
    other.state.pipelines = [];
    expect(await burst(2)).toEqual([200, 200]);
    expect(other.state.pipelines.map((commands) => commands.length)).toEqual([1, 1]);
    other.state.nowMs += 1;
    other.state.pipelines = [];
    expect(await burst(2)).toEqual([200, 429]);
    // The question travels with the limit's. Because the numbers have changed, the charge goes back, and once more is asked.
    expect(other.state.pipelines[0]?.map(([name]) => name)).toEqual(['HGET', 'EVALSHA']);

    other.state.nowMs += AGE_MS;
    other.state.pipelines = [];
    await burst(1);
    expect(other.state.pipelines.map((commands) => commands.length)).toEqual([2]);

    await restore('GET /own/:thing');
    other.state.nowMs += AGE_MS;
    expect(await burst(4)).toEqual([200, 200, 200, 429]);
    expect((await audited()).action).toBe('limit-restored');
  });

  test.each([
    ['that knows the former numbers', AGE_MS],
    ['that has served nothing yet', 0],
  ])('counts for all requests that meet it at once, in an isolate %s', async (_, laterMs) => {
    const other = newIsolate();
    if (laterMs > 0) await other.call('GET', '/own/1', { headers: from('192.0.2.40') });
    await override('GET /own/:thing', 1);
    other.state.nowMs += laterMs;
    const headers = from(`192.0.2.${laterMs > 0 ? 41 : 42}`);
    const responses = await Promise.all(Array.from({ length: 5 }, () => other.call('GET', '/own/1', { headers })));
    expect(responses.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 429, 429, 429, 429]);
    await restore('GET /own/:thing');
  });

  test('the charge of the first decision goes back', async () => {
    const other = newIsolate();
    await other.call('GET', '/own/1', { headers: from('192.0.2.1') });
    await override('GET /own/:thing', 2);
    other.state.nowMs += AGE_MS;
    const headers = from('192.0.2.2');
    const seen: number[] = [];
    for (let time = 0; time < 3; time += 1) seen.push((await other.call('GET', '/own/1', { headers })).status);
    expect(seen).toEqual([200, 200, 429]);
    expect(
      (await other.call('GET', '/own/1', { headers: from('192.0.2.3') })).headers.get('RateLimit-Policy'),
    ).toContain('q=2');
    await restore('GET /own/:thing');
  });

  test('that changes nothing costs limits that depend on the request no call', async () => {
    const other = newIsolate();
    await other.call('GET', '/plans', { headers: from('192.0.2.50') });
    other.state.nowMs += AGE_MS;
    other.state.pipelines = [];
    expect((await other.call('GET', '/plans', { headers: from('192.0.2.51') })).status).toBe(200);
    expect(other.state.pipelines.map((commands) => commands.map(([name]) => name))).toEqual([['HGET', 'EVALSHA']]);
  });

  test('also of numbers that depend on the request', async () => {
    await override('plans', 1);
    const headers = from('192.0.2.9');
    expect((await call('GET', '/plans', { headers })).status).toBe(200);
    expect((await call('GET', '/plans', { headers })).status).toBe(429);
    expect((await peek('plans', '192.0.2.9')).body.limits[0]).toMatchObject({ maxRequests: 1, remaining: 0 });
    await restore('plans');
    expect((await call('GET', '/plans', { headers })).status).toBe(200);
  });

  test('is read from D1 while Redis is away, and when it has no copy', async () => {
    await override('GET /own/:thing', 1);
    for (const lost of ['away', 'flushed'] as const) {
      const other = newIsolate();
      other.state.away = lost === 'away';
      if (lost === 'flushed') {
        await inRequest(({ batch }) => batch.send('UNLINK', other.isolate.keys.limitOverrides), {
          isolate: other.isolate,
        });
      }
      // The first request does not wait for it.
      await other.call('GET', '/own/1', { headers: from('192.0.2.20') });
      const headers = from(lost === 'away' ? '192.0.2.21' : '192.0.2.22');
      expect((await other.call('GET', '/own/1', { headers })).status).toBe(200);
      expect((await other.call('GET', '/own/1', { headers })).status).toBe(429);
    }
    await restore('GET /own/:thing');
  });

  test('that could not be delivered to Redis is delivered by the cron trigger, and an older one does not undo it', async () => {
    const key = one.isolate.keys.limitOverrides;
    const copy = () => inRequest(({ batch }) => batch.send('HGET', key, 'value'), { isolate: one.isolate });
    await override('GET /own/:thing', 2);
    const former = String(await copy());
    const version = (JSON.parse(former) as { version: number }).version;
    await env.DB.prepare(`update limit_overrides set windows = ?, version = version + 1 where policy = ?`)
      .bind(JSON.stringify([{ maxRequests: 1, windowMs: 3_600_000 }]), 'GET /own/:thing')
      .run();
    await inRequest(() => LimitOverrideService.publish(), { isolate: one.isolate });
    expect(JSON.parse(String(await copy()))).toMatchObject({ version: version + 1 });
    await restore('GET /own/:thing');
    const after = JSON.parse(String(await copy())) as { version: number; policies: object };
    expect(after.policies).toEqual({});
    expect(after.version).toBeGreaterThan(version + 1);
  });

  describe('that D1 has lost in a restore', () => {
    const key = one.isolate.keys.limitOverrides;
    const send = (...command: Command) =>
      inRequest(({ batch }) => batch.send(...command), { isolate: one.isolate }) as Promise<unknown>;

    async function lose(): Promise<void> {
      const { results } = await env.DB.prepare('select * from limit_overrides').all();
      await override('GET /own/:thing', 2);
      await env.DB.prepare('delete from limit_overrides').run();
      for (const row of results) {
        const names = Object.keys(row);
        const values = names.map(() => '?').join(', ');
        const insert = `insert into limit_overrides (${names.join(', ')}) values (${values})`;
        await env.DB.prepare(insert)
          .bind(...Object.values(row))
          .run();
      }
      one.state.nowMs += 1_000;
    }

    test('gives way to a new one within the stated age', async () => {
      const other = newIsolate();
      const calls = async (address: string) => {
        const statuses: number[] = [];
        for (let time = 0; time < 3; time += 1) {
          statuses.push((await other.call('GET', '/own/1', { headers: from(address) })).status);
        }
        return statuses;
      };
      await lose();
      expect(await calls('192.0.2.31')).toEqual([200, 200, 429]);
      expect((await override('GET /own/:thing', 1)).body).toEqual({ pending: false });
      other.state.nowMs += AGE_MS;
      expect(await calls('192.0.2.32')).toEqual([200, 429, 429]);
      await restore('GET /own/:thing');
    });

    test('stays in Redis no longer than the copy would without the cron trigger', async () => {
      await lose();
      await send('PEXPIRE', key, 60_000);
      await inRequest(() => LimitOverrideService.publish(), { isolate: one.isolate });
      expect(Number(await send('PTTL', key))).toBeLessThanOrEqual(60_000);
      await restore('GET /own/:thing');
    });
  });

  test.each<[string, object[]]>([
    ['none', [{ maxRequests: 1, windowMs: 60_000 }]],
    ['api', []],
    ['api', [{ maxRequests: 0, windowMs: 60_000 }]],
    ['api', [{ maxRequests: 1.5, windowMs: 60_000 }]],
    ['api', [{ maxRequests: 1, windowMs: 999 }]],
    ['api', [{ maxRequests: 1_000_001, windowMs: 60_000 }]],
    ['api', [{ maxRequests: 1_000_000, windowMs: 30 * 86_400_000 }]],
    ['api', [60_000, 60_000].map((windowMs) => ({ maxRequests: 1, windowMs }))],
    // No administrator could take it back.
    ['admin', [{ maxRequests: 1, windowMs: 60_000 }]],
    ['admin', [{ maxRequests: 1_000, windowMs: 86_400_000 }]],
  ])('of %s by %j is refused', async (policy, windows) => {
    const before = await audited();
    const { status, body } = await post('/v1/admin/limits/override', { policy, windows });
    expect({ status, code: body.code }).toEqual({ status: 422, code: 'VALIDATION_FAILED' });
    expect(await audited()).toEqual(before);
  });
});

test.each([
  [99, 900_000],
  [100, 900_001],
])(
  'the limit of administrators is not set to %d requests in %d ms: they could not take it back',
  async (most, windowMs) => {
    const answer = await override('admin', most, windowMs);
    expect(answer).toMatchObject({ status: 422, body: { errors: [{ pointer: '/windows' }] } });
    expect((await override('admin', 100, 900_000)).status).toBe(200);
    expect((await restore('admin')).status).toBe(200);
  },
);

describe('the state of the app', () => {
  test('every setting is listed, and no secret is in the response', async () => {
    const secret = 'sEcReTsEcReTsEcReT';
    const hidden = bindings({
      UPSTASH_REDIS_REST_TOKEN: secret,
      UPSTASH_REDIS_REST_URL: env.UPSTASH_REDIS_REST_URL.replace('://', `://${secret}:${secret}@`),
    });
    const app = callerOf(createApp({ isolate: one.isolate }), hidden);
    const response = await app('GET', '/v1/admin/settings', { token: admin.access });
    expect(response.status).toBe(200);
    const text = JSON.stringify(response.body);
    expect(text).not.toContain(secret);
    for (const set of [env.SIGNING_KEYS, env.REFRESH_KEYS]) {
      const { keys } = JSON.parse(set) as { keys: Record<string, string>[] };
      for (const { k, d, x } of keys) for (const part of [k, d, x]) if (part) expect(text).not.toContain(part);
    }
    const settings = response.body.settings as { name: string; value: string; isDefault: boolean; isSecret: boolean }[];
    const named = (name: string) => settings.find((setting) => setting.name === name);
    expect(named('LIMIT_RECOVERY_ACCOUNT')).toMatchObject({ value: '10000/1m', isDefault: false, isSecret: false });
    expect(named('REFRESH_IDLE_TTL_SECONDS')).toMatchObject({ value: '604800', isDefault: true });
    expect(named('LIMIT_ONE_TIME_TOKEN')).toMatchObject({ isSecret: false });
    expect(named('SIGNING_KEYS')).toMatchObject({ value: '(secret)', isSecret: true });
  });

  test('keys are listed with their ages and the next step, without material', async () => {
    const { body } = await call('GET', '/v1/admin/keys', { token: admin.access });
    expect(body.sets.map(({ name }: { name: string }) => name)).toEqual(['SIGNING_KEYS', 'REFRESH_KEYS']);
    expect(body.sets[0]).toMatchObject({ keys: [{ state: 'active' }], next: { step: 'publish', safeAt: null } });
    expect(Object.keys(body.sets[0].keys[0])).toEqual(['kid', 'state', 'since']);
  });

  test('namespaces, tags and users of the cache are invalidated', async () => {
    expect(await post('/v1/admin/cache/invalidate', { namespaces: ['users'], users: [user.id] })).toMatchObject({
      status: 200,
      body: { pending: false },
    });
    const detail = { namespaces: 'users', tags: '0', users: '1' };
    expect(await audited()).toEqual({ action: 'cache-invalidated', by: admin.id, userId: user.id, detail });
    expect(await post('/v1/admin/cache/invalidate', {})).toMatchObject({ status: 422 });
  });

  test.each([
    ['/v1/admin/cache/invalidate', { namespaces: ['users'] }],
    ['/v1/admin/limits/reset', { policy: 'api', identity: '203.0.113.9' }],
  ])('without its entry in the audit %s does nothing', async (path, body) => {
    let isAway = false;
    const DB = tappedD1((query) =>
      isAway ? Promise.reject(new Error('D1_ERROR: Network connection lost.')) : query(),
    );
    const { state, isolate, now } = newIsolate();
    const by = callerOf(createApp({ isolate, now }), { ...bound, DB });
    // The guard needs no database: Redis knows the administrator.
    await by('GET', '/v1/admin/limits', { token: admin.access });
    state.pipelines.length = 0;
    isAway = true;
    expect(await post(path, body, by)).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
    const writes = state.pipelines.flat().filter(([name]) => ['SET', 'DEL', 'UNLINK'].includes(name));
    expect(writes).toEqual([]);
    isAway = false;
    expect((await post(path, body, by)).status).toBeLessThan(300);
    expect(state.pipelines.flat().map(([name]) => name)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^(?:SET|DEL|UNLINK)$/)]),
    );
  });
});
