import { Hono } from 'hono';
import type { Context } from 'hono';
import { expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { configOf } from '../../../src/config/env';
import { foldAddress } from '../../../src/middlewares/clientAddress';
import { factsOf } from '../../../src/middlewares/contract';
import { onError } from '../../../src/middlewares/error.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { limitFrom } from '../../../src/middlewares/limiterOptions';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { RateLimiterOptions } from '../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import type { RedisClient } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { bindings, callerOf, isolateFor } from '../support/request';

let n = 0;
/** A limiter with a counter of its own, in front of a route that answers the status asked for. */
function limited(options: RateLimiterOptions, client?: RedisClient) {
  n += 1;
  const app = new Hono<AppEnv>().use(services({ isolate: isolateFor(bindings(), client ? { client } : {}) }));
  const answer = (c: Context) => c.body('answer', Number(c.req.query('status') ?? 200) as 200);
  app.get('/', rateLimiter({ name: `limited-${n}`, ...options }), answer);
  app.onError(onError);
  const call = callerOf(app, bindings());
  return (query = '', headers: Record<string, string> = {}) => call('GET', `/${query}`, { headers });
}

const HOUR = 3_600_000;
const statuses = async (calls: (() => Promise<{ status: number }>)[]) => {
  const seen: number[] = [];
  for (const call of calls) seen.push((await call()).status);
  return seen;
};

test('standard headers have policy and quota; a refusal is the draft’s problem type', async () => {
  const get = limited({ windowMs: 7 * HOUR * 1_000, maxRequests: 2, name: 'standard' });
  const first = await get();
  expect(first.headers.get('RateLimit-Policy')).toBe('"standard";q=2;w=25200000');
  expect(first.headers.get('RateLimit')).toMatch(/^"standard";r=1;t=\d+$/);
  expect(first.headers.get('X-RateLimit-Limit')).toBeNull();
  await get();
  const refused = await get();
  expect(refused.status).toBe(429);
  expect(refused.body).toMatchObject({
    type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
    code: 'RATE_LIMITED',
    'violated-policies': ['standard'],
  });
  const wait = Number(refused.headers.get('Retry-After'));
  expect(refused.headers.get('RateLimit')).toBe(`"standard";r=0;t=${wait}`);
});

test('headers have the quota of each window, and a refusal names the violated one', async () => {
  const get = limited({
    name: 'stack',
    windows: [
      { windowMs: HOUR, maxRequests: 1 },
      { windowMs: 24 * HOUR, maxRequests: 9 },
    ],
  });
  expect((await get()).headers.get('RateLimit-Policy')).toBe('"stack-1h";q=1;w=3600, "stack-1d";q=9;w=86400');
  // The second refusal comes from memory, and knows as much.
  for (let i = 0; i < 2; i += 1) expect((await get()).body['violated-policies']).toEqual(['stack-1h']);
});

test('stacked limiters merge their headers', async () => {
  const app = new Hono<AppEnv>().use(services({ isolate: isolateFor() }));
  const outer = rateLimiter({ name: 'outer', windowMs: HOUR, maxRequests: 5 });
  const inner = rateLimiter({ name: 'inner', windowMs: HOUR, maxRequests: 3 });
  app.get('/', guard(outer, inner), (c) => c.text('in'));
  const { headers } = await callerOf(app, bindings())('GET', '/');
  expect(headers.get('RateLimit-Policy')).toBe('"outer";q=5;w=3600, "inner";q=3;w=3600');
});

test('legacy headers on request', async () => {
  const { headers } = await limited({ windowMs: HOUR, maxRequests: 3, legacyHeaders: true })();
  expect(headers.get('X-RateLimit-Limit')).toBe('3');
  expect(headers.get('X-RateLimit-Remaining')).toBe('2');
  expect(Number(headers.get('X-RateLimit-Reset'))).toBeGreaterThan(0);
});

test('reset times are at most the window, also for a limit whose units are recorded at the end of their sub-window', async () => {
  // A sub-window is 70 hours long: Redis counts the unit for a window from its end.
  const get = limited({ windowMs: 7_000 * HOUR, maxRequests: 1_000, name: 'large', legacyHeaders: true });
  const { headers } = await get();
  expect(headers.get('RateLimit')).toBe('"large";r=999;t=25200000');
  expect(headers.get('X-RateLimit-Reset')).toBe('25200000');
});

test('skip, allow and deny', async () => {
  const get = limited({
    windowMs: HOUR,
    maxRequests: 1,
    skip: (c) => c.req.query('free') !== undefined,
    identity: (c) => `key:${c.req.query('key') ?? ''}`,
    allow: ['key:ours'],
    deny: ['key:theirs'],
  });
  expect(await statuses([() => get(), () => get(), () => get('?free'), () => get('?free')])).toEqual([
    200, 429, 200, 200,
  ]);
  expect(await statuses([() => get('?key=ours'), () => get('?key=ours')])).toEqual([200, 200]);
  expect(await statuses([() => get('?key=theirs')])).toEqual([403]);
});

test('a limit by a function of the request', async () => {
  const get = limited({
    windowMs: HOUR,
    maxRequests: (c) => (c.req.query('plan') === 'gold' ? 3 : 1),
    identity: (c) => `plan:${c.req.query('plan') ?? ''}`,
  });
  expect(await statuses(Array.from({ length: 4 }, () => () => get('?plan=gold')))).toEqual([200, 200, 200, 429]);
  expect(await statuses(Array.from({ length: 2 }, () => () => get()))).toEqual([200, 429]);
});

test('a request that is too expensive does not block a cheaper one', async () => {
  const get = limited({ windowMs: HOUR, maxRequests: 3, cost: (c) => Number(c.req.query('cost') ?? 1) });
  const dear = () => get('?cost=3');
  expect(await statuses([() => get(), dear, dear, () => get(), () => get(), () => get()])).toEqual([
    200, 429, 429, 200, 200, 429,
  ]);
});

test('a handler answers in place of the problem document', async () => {
  const get = limited({ windowMs: HOUR, maxRequests: 1, handler: (c) => c.text('slow down', 429) });
  await get();
  const refused = await get();
  expect([refused.status, refused.body]).toEqual([429, 'slow down']);
  expect(Number(refused.headers.get('Retry-After'))).toBeGreaterThan(0);
});

test('charging by outcome: failures cost more, faults of ours nothing', async () => {
  const charge = (c: Context) => (c.res.status === 401 ? 5 : c.res.status >= 500 ? 0 : 1);
  const get = limited({ windowMs: HOUR, maxRequests: 10, charge });
  for (let i = 0; i < 20; i += 1) expect((await get('?status=500')).status).toBe(500);
  expect(await statuses([() => get('?status=401'), () => get('?status=401'), () => get('?status=401')])).toEqual([
    401, 401, 429,
  ]);
});

test('only failures, or only successes, count', async () => {
  const failures = limited({ windowMs: HOUR, maxRequests: 2, charge: (c) => (c.res.status < 400 ? 0 : 1) });
  for (let i = 0; i < 10; i += 1) expect((await failures()).status).toBe(200);
  expect(await statuses(Array.from({ length: 3 }, () => () => failures('?status=404')))).toEqual([404, 404, 429]);
  const successes = limited({ windowMs: HOUR, maxRequests: 2, charge: (c) => (c.res.status >= 400 ? 0 : 1) });
  for (let i = 0; i < 10; i += 1) expect((await successes('?status=404')).status).toBe(404);
  expect(await statuses(Array.from({ length: 3 }, () => () => successes()))).toEqual([200, 200, 429]);
});

test.each([
  ['local', [200, 200, 429], true],
  ['open', [200, 200, 200], false],
  ['closed', [503, 503, 503], false],
] as const)('without Redis %s', async (whenUnavailable, expected, quota) => {
  const client: RedisClient = { execute: () => Promise.reject(new RedisUnavailable('refused')) };
  const get = limited({ windowMs: HOUR, maxRequests: 2, whenUnavailable }, client);
  const first = await get();
  expect(first.headers.get('Gatehouse-Degraded')).toBe(`limiter=${whenUnavailable}`);
  expect(first.headers.has('RateLimit')).toBe(quota);
  expect([first.status, ...(await statuses([() => get(), () => get()]))]).toEqual(expected);
});

test('an administrator looks into a counter, and resets it', async () => {
  const bound = bindings({ LIMIT_LOGIN: '2/1h' });
  const app = createApp({ isolate: isolateFor(bound) });
  const call = callerOf(app, bound);
  const boss = { email: 'limits-admin@example.com', password: 'correct horse battery', name: 'Boss' };
  const { body } = await call('POST', '/v1/auth/register', { body: boss });
  await bound.DB.prepare(`update users set role = 'admin' where id = ?`).bind(body.user.id).run();
  const login = () => call('POST', '/v1/auth/login', { body: { email: boss.email, password: boss.password } });
  const guess = () => call('POST', '/v1/auth/login', { body: { email: boss.email, password: 'wrong horse battery' } });
  const token = (await login()).body.access_token;
  expect(await statuses([guess, guess, guess])).toEqual([401, 401, 429]);

  const counter = { policy: 'login', identity: `address:203.0.113.9 account:${boss.email}` };
  const seen = await call('POST', '/v1/admin/limits/peek', { token, body: counter });
  expect(seen.body).toMatchObject({ limits: [{ name: 'login', maxRequests: 2, remaining: 0 }] });
  expect((await call('POST', '/v1/admin/limits/reset', { token, body: counter })).status).toBe(204);
  expect(await statuses([guess])).toEqual([401]);
  const spelled = { policy: 'login', identity: `address:::FFFF:203.0.113.9 account:${boss.email.toUpperCase()}` };
  expect((await call('POST', '/v1/admin/limits/peek', { token, body: spelled })).body.limits[0].remaining).toBe(1);
  const nobody = { policy: 'login', identity: 'address:203.0.113.9:443 account:x@example.com' };
  for (const path of ['peek', 'reset']) {
    const refused = await call('POST', `/v1/admin/limits/${path}`, { token, body: nobody });
    expect(refused.body).toMatchObject({ code: 'VALIDATION_FAILED', errors: [{ pointer: '/identity' }] });
  }
  expect((await call('POST', '/v1/admin/limits/peek', { token: body.access_token, body: counter })).status).toBe(403);
  expect((await call('POST', '/v1/admin/limits/peek', { token, body: { ...counter, policy: 'no' } })).status).toBe(422);
});

test('the numbers of a limiter come from a setting of one’s own, which is checked', async () => {
  const quotes = rateLimiter({ name: 'quotes', ...limitFrom('LIMIT_QUOTES', '10/1m') });
  const policyOf = async (settings: Record<string, unknown>) => {
    const bound = bindings(settings);
    const app = new Hono<AppEnv>().use(services({ isolate: isolateFor(bound) })).get('/', quotes, (c) => c.text('in'));
    app.onError(onError);
    return callerOf(app, bound)('GET', '/');
  };
  expect((await policyOf({})).headers.get('RateLimit-Policy')).toBe('"quotes";q=10;w=60');
  expect((await policyOf({ LIMIT_QUOTES: '3/2h' })).headers.get('RateLimit-Policy')).toBe('"quotes";q=3;w=7200');
  for (const LIMIT_QUOTES of ['3 an hour', '0/1m', 3]) {
    const { status, body } = await policyOf({ LIMIT_QUOTES });
    expect(status).toBe(503);
    expect(body).toMatchObject({ code: 'CONFIG_INVALID', detail: expect.stringContaining('LIMIT_QUOTES (') as string });
  }
  expect(() => limitFrom('LIMIT_QUOTES', 'ten')).toThrow('LIMIT_QUOTES (expected REQUESTS/WINDOW');
  // So that the console and the override of limits show it.
  const { limiter } = factsOf(quotes).checks?.[0] ?? {};
  expect(limiter?.limits(configOf(bindings({ LIMIT_QUOTES: '4/1d' })))).toMatchObject([
    { maxRequests: 4, windowMs: 24 * HOUR },
  ]);
});

test('numbers that make no sense are named with their limiter', async () => {
  const { body } = await limited({ name: 'by-plan', maxRequests: () => Number('ten') })();
  expect(body).toMatchObject({ code: 'CONFIG_INVALID' });
  expect(body['detail']).toContain('by-plan has maxRequests NaN, windowMs 60000');
});

test('a limiter with impossible options does not start', () => {
  expect(() => rateLimiter({ windows: [] })).toThrow('at least one window');
  expect(() =>
    rateLimiter({
      windows: [
        { windowMs: 1_000, maxRequests: 1 },
        { windowMs: 1_000, maxRequests: 2 },
      ],
    }),
  ).toThrow('two windows');
  const month = { windowMs: 30 * 86_400_000, maxRequests: 800_000 };
  expect(() => rateLimiter(month)).not.toThrow();
  expect(() => rateLimiter({ ...month, maxRequests: 1_000_000 })).toThrow('below 2^51');
  // A structured field's integers have 15 digits.
  expect(() => rateLimiter({ windowMs: 1, maxRequests: 1e15 })).toThrow('below 10^15');
});

test.each([
  [48, '2001:db8:1::/48'],
  [56, '2001:db8:1:200::/56'],
  [64, '2001:db8:1:2ff::/64'],
  [128, '2001:db8:1:2ff:3:4:5:6'],
])('an IPv6 address by its first %i bits', (bits, folded) => {
  expect(foldAddress('2001:db8:1:2ff:3:4:5:6', bits)).toBe(folded);
});
