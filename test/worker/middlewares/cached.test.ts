import { Hono } from 'hono';
import type { MiddlewareHandler } from 'hono';
import { beforeAll, describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { AppError } from '../../../src/errors';
import { notifyingAfterResponse } from '../../../src/middlewares/afterResponse';
import { authenticate } from '../../../src/middlewares/auth.middleware';
import { noStore } from '../../../src/middlewares/noStore.middleware';
import { cached } from '../../../src/middlewares/cached.middleware';
import type { CachedOptions } from '../../../src/middlewares/cached.middleware';
import { onError } from '../../../src/middlewares/error.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';
import { sleep } from '../../../src/util/retry';
import { freshNamespace, gate, observedClient } from '../support/cache';
import { bindings, callerOf, isolateFor } from '../support/request';

const bound = bindings();
const tokens: string[] = [];
const userIds: string[] = [];

beforeAll(async () => {
  const call = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
  for (const name of ['Ada', 'Grace']) {
    const email = `${name}.${freshNamespace()}@example.com`;
    const { body } = await call('POST', '/v1/auth/register', {
      body: { email, password: 'correct horse battery', name },
    });
    tokens.push(body.access_token as string);
    userIds.push(body.user.id as string);
  }
});

/** An app whose Redis and clock the test holds in its hands. */
function appWith(mount: (app: Hono<AppEnv>) => void, around?: MiddlewareHandler) {
  const { client, state } = observedClient();
  const clock = { ms: Date.now() };
  const isolate = isolateFor(bound, { client });
  const app = new Hono<AppEnv>().use(noStore());
  if (around !== undefined) app.use(around);
  app.use(services({ isolate, now: () => clock.ms }));
  app.post('/invalidate/:tag', async (c) => c.json(await CacheService.invalidate({ tags: [c.req.param('tag')] })));
  app.post('/invalidate/user/:id', async (c) => c.json(await CacheService.invalidateUser(c.req.param('id'))));
  mount(app);
  app.onError(onError);
  if (around !== undefined) app.fetch = notifyingAfterResponse(app.fetch);
  return { call: callerOf(app, bound), state, clock };
}

/** GET /list, which counts how often it is made. */
function listed(options: Partial<CachedOptions> = {}, around?: MiddlewareHandler) {
  const made = { count: 0, answer: undefined as (() => Response | Promise<Response>) | undefined };
  const app = appWith(
    (routes) =>
      routes.get('/list', cached({ ttlSeconds: 60, namespace: freshNamespace(), ...options }), async (c) => {
        made.count += 1;
        return made.answer?.() ?? c.json({ made: made.count });
      }),
    around,
  );
  const get = (headers: Record<string, string> = {}, path = '/list') => app.call('GET', path, { headers });
  return { ...app, made, get };
}

const status = ({ headers }: { headers: Headers }) => headers.get('Cache-Status');

describe('a whole answer', () => {
  test('is made once, and its headers say whether it was stored', async () => {
    const { get, clock, made } = listed();
    const first = await get();
    expect(first).toMatchObject({ status: 200, body: { made: 1 } });
    expect(status(first)).toBe('Gatehouse; fwd=miss; stored');
    expect(first.headers.get('Cache-Control')).toBe('private, no-cache');
    clock.ms += 10_000;
    const second = await get();
    expect(second.body).toEqual({ made: 1 });
    expect(second.headers.get('Age')).toBe('10');
    expect(Number(/ttl=(\d+)$/.exec(status(second) ?? '')?.[1])).toBeGreaterThan(40);
    expect(second.headers.get('Content-Type')).toBe(first.headers.get('Content-Type'));
    expect(second.headers.get('ETag')).toBe(first.headers.get('ETag'));
    expect(made.count).toBe(1);
  });

  test('is not sent again to a client that has it', async () => {
    const { get } = listed();
    const etag = (await get()).headers.get('ETag') ?? '';
    expect(etag).toMatch(/^"[\w-]{27}"$/);
    for (const header of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const answer = await get({ 'If-None-Match': header });
      expect(answer).toMatchObject({ status: 304, body: '' });
      expect(answer.headers.get('ETag')).toBe(etag);
      expect(answer.headers.get('Cache-Control')).toBe('private, no-cache');
    }
    expect((await get({ 'If-None-Match': '"other"' })).status).toBe(200);
  });

  test('ends with its tags', async () => {
    const tag = freshNamespace();
    const { get, call } = listed({ tags: [tag] });
    await get();
    await call('POST', `/invalidate/${tag}`);
    expect((await get()).body).toEqual({ made: 2 });
  });

  test('is its path’s and its query string’s, as they were sent', async () => {
    const { get, made } = listed();
    const queries = ['?a=1&b=2', '?b=2&a=1', '?a=1', '?a=1&b=2&b=3', '?a=1&b=3&b=2', '?a=2&b=1', '', '?a=1&', '?a'];
    queries.push(
      '?q=%ff',
      '?q=%fe',
      '?q=%EF%BF%BD',
      '?q=%FF',
      '?q=+',
      '?q=%20',
      '?q=%2B',
      '?q=a',
      '?q=%61',
      '?q=',
      '?q',
    );
    queries.push('?q=%', '?q=%00', '?q=%c3%a9', '?q=e%cc%81', '?Q=a', '?q=a&q=', '?q[]=a');
    for (const [index, query] of queries.entries())
      expect((await get({}, `/list${query}`)).body).toEqual({ made: index + 1 });
    for (const [index, query] of queries.entries())
      expect((await get({}, `/list${query}`)).body).toEqual({ made: index + 1 });
    expect(made.count).toBe(queries.length);
  });

  test('is one for each value of the headers that it varies by', async () => {
    const { get, made } = listed({ vary: ['Accept-Language'] });
    const german = await get({ 'Accept-Language': 'de' });
    expect(german.headers.get('Vary')).toBe('Accept-Language, Authorization');
    await get({ 'Accept-Language': 'en' });
    expect((await get({ 'Accept-Language': 'de' })).body).toEqual({ made: 1 });
    expect(made.count).toBe(2);
  });

  test('of the handler’s headers keeps those that describe the body, and those that are named', async () => {
    const { get, made } = listed({ headers: ['X-Total'], clientSeconds: 30 });
    made.answer = () =>
      new Response('a,b', {
        headers: { 'Content-Type': 'text/csv', 'X-Total': '2', 'X-Request': 'mine', 'Content-Language': 'de' },
      });
    await get();
    const { headers, body } = await get();
    expect(body).toBe('a,b');
    expect(headers.get('Content-Type')).toBe('text/csv');
    expect(headers.get('Content-Language')).toBe('de');
    expect(headers.get('X-Total')).toBe('2');
    expect(headers.has('X-Request')).toBe(false);
    expect(headers.get('Cache-Control')).toBe('private, max-age=30');
  });

  test('has each header that was set before the handler once', async () => {
    const { call } = appWith((routes) =>
      routes.get(
        '/linked',
        async (c, next) => {
          c.header('Link', '</next>; rel="next"');
          c.header('Cache-Control', 'max-age=5');
          await next();
        },
        cached({ ttlSeconds: 60, namespace: freshNamespace() }),
        async (c) => c.json({}),
      ),
    );
    for (let reads = 0; reads < 2; reads += 1) {
      const { headers } = await call('GET', '/linked');
      expect(headers.get('Link')).toBe('</next>; rel="next"');
      expect(headers.get('Cache-Control')).toBe('max-age=5');
    }
  });

  test.each([
    ['HEAD', 'GET'],
    ['GET', 'HEAD'],
  ] as const)('is one for HEAD and GET, whole, when %s asks first', async (first, second) => {
    let made = 0;
    const { call } = appWith((routes) =>
      routes.get('/heads', cached({ ttlSeconds: 60, namespace: freshNamespace() }), async (c) => {
        made += 1;
        return c.req.method === 'HEAD' ? c.text('') : c.text('whole');
      }),
    );
    const answers = { [first]: await call(first, '/heads'), [second]: await call(second, '/heads') };
    expect(made).toBe(1);
    expect(status(answers[second]!)).toMatch(/^Gatehouse; hit; ttl=/);
    expect(answers['GET']!.body).toBe('whole');
    // RFC 9110, section 9.3.2: the header fields that a GET would have.
    expect(answers['HEAD']!.headers.get('ETag')).toBe(answers['GET']!.headers.get('ETag'));
    expect(
      (await call('HEAD', '/heads', { headers: { 'If-None-Match': answers['GET']!.headers.get('ETag')! } })).status,
    ).toBe(304);
  });

  test('is made once for twenty who ask at once', async () => {
    const { get, made } = listed();
    const { open, opened } = gate();
    made.answer = async () => {
      await opened;
      return Response.json({ shared: true });
    };
    const answers = Array.from({ length: 20 }, () => get());
    setTimeout(open, 300);
    const statuses = (await Promise.all(answers))
      .map((answer) => status(answer))
      .toSorted((a, b) => (String(a) < String(b) ? -1 : 1));
    expect(statuses.slice(0, 19)).toEqual(Array.from({ length: 19 }, () => 'Gatehouse; fwd=miss; collapsed'));
    expect(statuses[19]).toBe('Gatehouse; fwd=miss; stored');
    expect(made.count).toBe(1);
  });

  test('that is stale is answered at once, and really refreshed', async () => {
    const { get, clock, made } = listed({ staleSeconds: 30 });
    await get();
    clock.ms += 61_000;
    const stale = await get();
    expect(stale.body).toEqual({ made: 1 });
    expect(status(stale)).toMatch(/^Gatehouse; hit; ttl=-\d+$/);
    expect(made.count).toBe(2);
    const fresh = await get();
    expect(fresh.body).toEqual({ made: 2 });
    expect(status(fresh)).toMatch(/^Gatehouse; hit; ttl=\d+$/);
  });

  test.each([200, 500])(
    'is answered when what stands around it takes its time, whatever its refresh gives: %i',
    async (code) => {
      const slow: MiddlewareHandler = async (_, next) => {
        await next();
        await sleep(50);
      };
      const { get, clock, made } = listed({ staleSeconds: 30 }, slow);
      await get();
      clock.ms += 61_000;
      if (code === 500) made.answer = () => new Response('broken', { status: 500 });
      const log = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
      const stale = await get();
      log.mockRestore();
      expect(stale).toMatchObject({ status: 200, body: { made: 1 } });
      expect(status(stale)).toMatch(/^Gatehouse; hit; ttl=-/);
      expect(made.count).toBe(2);
      expect((await get()).body).toEqual({ made: code === 500 ? 1 : 2 });
    },
  );

  test('is served on when the handler fails, and replaced when it works', async () => {
    const { get, clock, made } = listed({ staleIfErrorSeconds: 600 });
    await get();
    clock.ms += 61_000;
    made.answer = () => {
      throw new Error('broken');
    };
    const log = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const kept = await get();
    log.mockRestore();
    expect(kept).toMatchObject({ status: 200, body: { made: 1 } });
    expect(status(kept)).toMatch(/^Gatehouse; hit; ttl=-\d+; detail=stale-if-error$/);
    expect(kept.headers.get('Gatehouse-Degraded')).toBe('cache=stale');
    made.answer = undefined;
    clock.ms += 1_001;
    const again = await get();
    expect(again.body).toEqual({ made: 3 });
    expect(status(again)).toBe('Gatehouse; fwd=stale; stored');
  });
});

describe('not cached', () => {
  test.each<[string, () => Response]>([
    ['another status', () => Response.json({ a: 1 }, { status: 201 })],
    ['a cookie', () => Response.json({ a: 1 }, { headers: { 'Set-Cookie': 'a=1' } })],
    ['no-store', () => Response.json({ a: 1 }, { headers: { 'Cache-Control': 'no-store' } })],
    ['another type', () => new Response('GIF89a', { headers: { 'Content-Type': 'image/gif' } })],
    ['an endless one', () => new Response('data: 1\n\n', { headers: { 'Content-Type': 'text/event-stream' } })],
    ['too long a one', () => Response.json('x'.repeat(2_000))],
    ['one that varies by what the key does not hold', () => Response.json(1, { headers: { Vary: 'X-Plan' } })],
    ['one that varies by anything', () => Response.json(1, { headers: { Vary: '*' } })],
    [
      'bytes that are no UTF-8',
      () => new Response(new Uint8Array([0xff, 0xfe]), { headers: { 'Content-Type': 'text/plain' } }),
    ],
    [
      'a refusal',
      () => {
        throw new AppError('FORBIDDEN');
      },
    ],
  ])('%s', async (_, answer) => {
    const { get, made } = listed({ maxBytes: 1_000 });
    made.answer = answer;
    const first = await get();
    const second = await get();
    expect(made.count).toBe(2);
    expect(second.status).toBe(first.status);
    expect(second.body).toEqual(first.body);
    expect(second.headers.get('ETag')).toBeNull();
    expect(status(second)).toBe('Gatehouse; fwd=miss');
  });

  test('a failure, nor its handler’s words', async () => {
    const { get, made } = listed();
    made.answer = () => {
      throw new AppError('SERVICE_UNAVAILABLE', { headers: { 'Retry-After': '7' } });
    };
    const failed = await get();
    expect(failed).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
    expect(failed.headers.get('Retry-After')).toBe('7');
    expect(failed.headers.get('Cache-Control')).toBe('no-store');
    made.answer = undefined;
    expect((await get()).body).toEqual({ made: 2 });
  });

  test.each([
    ['Authorization', 'Bearer of-somebody'],
    ['Cookie', 'session=1'],
  ])('for credentials that no check has verified (%s)', async (name, value) => {
    const { get, made } = listed();
    await get();
    const theirs = await get({ [name]: value });
    expect(theirs.body).toEqual({ made: 2 });
    expect(status(theirs)).toBe('Gatehouse; fwd=bypass');
    expect((await get()).body).toEqual({ made: 1 });
    expect(made.count).toBe(2);
  });

  test('while Redis is away', async () => {
    const { get, state, made } = listed();
    state.down = true;
    expect(status(await get())).toBe('Gatehouse; fwd=bypass');
    expect((await get()).body).toEqual({ made: 2 });
    expect(made.count).toBe(2);
  });
});

describe('in a guard', () => {
  const limit = () => rateLimiter({ name: freshNamespace(), windowMs: 60_000, maxRequests: 100 });
  const privateApp = (options: Partial<CachedOptions> = {}) =>
    appWith((app) => {
      let made = 0;
      app.get(
        '/mine',
        guard(limit(), authenticate(), cached({ ttlSeconds: 60, namespace: freshNamespace(), ...options })),
        async (c) => c.json({ of: c.var.auth.userId, made: (made += 1) }),
      );
    });

  test('a hit costs one trip together with the limiter and the revocation check', async () => {
    const { call, state } = privateApp({ tags: ['a', 'b'] });
    for (let warm = 0; warm < 2; warm += 1) await call('GET', '/mine', { token: tokens[0]! });
    state.sent = [];
    const hit = await call('GET', '/mine', { token: tokens[0]! });
    expect(status(hit)).toMatch(/hit/);
    expect(hit.headers.get('RateLimit')).toContain('r=97');
    expect(state.sent.map((commands) => commands.map(([name]) => name))).toEqual([['EVALSHA', 'HMGET', 'MGET']]);
  });

  test('two users never share an answer, and each ends with its user', async () => {
    const { call } = privateApp();
    const of = async (index: number) => (await call('GET', '/mine', { token: tokens[index]! })).body;
    expect(await of(0)).toEqual({ of: userIds[0], made: 1 });
    expect(await of(1)).toEqual({ of: userIds[1], made: 2 });
    expect(await of(0)).toEqual({ of: userIds[0], made: 1 });
    await call('POST', `/invalidate/user/${userIds[0]}`);
    expect(await of(0)).toEqual({ of: userIds[0], made: 3 });
    expect(await of(1)).toEqual({ of: userIds[1], made: 2 });
  });

  test('unless it says so', async () => {
    const { call } = privateApp({ shared: true });
    const first = await call('GET', '/mine', { token: tokens[0]! });
    expect(first.headers.get('Cache-Control')).toBe('public, no-cache');
    expect((await call('GET', '/mine', { token: tokens[1]! })).body).toEqual({ of: userIds[0], made: 1 });
  });

  test('who is refused gets no cached answer', async () => {
    const { call } = privateApp({ shared: true });
    await call('GET', '/mine', { token: tokens[0]! });
    for (const token of ['rubbish', undefined]) {
      const refused = await call('GET', '/mine', token === undefined ? {} : { token });
      expect(refused.status).toBe(401);
      expect(refused.headers.has('Cache-Status')).toBe(false);
    }
  });
});
