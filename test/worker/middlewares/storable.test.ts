import { Hono } from 'hono';
import { cors } from 'hono/cors';
import { describe, expect, test } from 'vitest';

import { cached } from '../../../src/middlewares/cached.middleware';
import type { CachedOptions } from '../../../src/middlewares/cached.middleware';
import { browserOrigins } from '../../../src/middlewares/cors.middleware';
import { onError } from '../../../src/middlewares/error.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { lifetimeMs } from '../../../src/middlewares/storable';
import { freshNamespace } from '../support/cache';
import { bindings, callerOf, isolateFor } from '../support/request';

type Headers_ = Record<string, string>;
type Make = (request: Request, count: number) => Response;

/** GET /list, which counts how often it is made, in an app with the CORS of these origins. */
function listed(make: Make, options: Partial<CachedOptions> = {}, origins = '') {
  const bound = bindings({ CORS_ORIGINS: origins });
  const clock = { ms: Date.now() };
  const made = { count: 0 };
  const app = new Hono<AppEnv>().use(browserOrigins());
  app.use(services({ isolate: isolateFor(bound), now: () => clock.ms }));
  app.get('/list', cached({ ttlSeconds: 600, shared: true, namespace: freshNamespace(), ...options }), (c) =>
    make(c.req.raw, (made.count += 1)),
  );
  app.onError(onError);
  const call = callerOf(app, bound);
  const get = (headers: Headers_ = {}) => call('GET', '/list', { headers });
  return { get, made, clock };
}

const saying =
  (headers: Headers_): Make =>
  (_, count) =>
    Response.json({ count }, { headers });

describe('a shared cache does not store', () => {
  test.each([
    ['no-store', 'no-store'],
    ['no-store beside others', 'public, max-age=60, no-store'],
    ['no-store in capitals', 'No-Store'],
    ['no-cache', 'no-cache'],
    ['no-cache of a field', 'no-cache="Set-Cookie"'],
    ['private', 'private, max-age=60'],
    ['private of a field', 'private="X-Secret"'],
    ['private behind a quoted comma', 'ext="a, b", private'],
    ['s-maxage=0', 's-maxage=0'],
    ['s-maxage=0 against max-age', 'max-age=600, s-maxage=0'],
    ['max-age=0', 'max-age=0'],
    ['max-age=0, must-revalidate', 'max-age=0, must-revalidate'],
    ['quoted, 0', 'max-age="0"'],
    ['two of them, the shorter', 'max-age=600, max-age=0'],
    ['what is no number', 's-maxage=soon'],
    ['a negative number', 'max-age=-1'],
    ['a fraction', 'max-age=1.5'],
    ['no argument', 'max-age'],
  ])('what says %s', async (_, control) => {
    const { get, made } = listed(saying({ 'Cache-Control': control }), { staleSeconds: 60, staleIfErrorSeconds: 60 });
    for (const count of [1, 2, 3]) {
      const answer = await get();
      expect(answer.body).toEqual({ count });
      expect(answer.headers.get('Cache-Control')).toBe(control);
      expect(answer.headers.get('Cache-Status')).toBe('Gatehouse; fwd=miss');
    }
    expect(made.count).toBe(3);
  });

  test.each<[string, Headers_]>([
    ['has expired', { Expires: 'Thu, 01 Jan 1970 00:00:00 GMT' }],
    ['has an Expires that is no date', { Expires: '0' }],
    ['is older than it may be', { 'Cache-Control': 's-maxage=60', Age: '60' }],
    ['sets a cookie', { 'Set-Cookie': 'a=1' }],
    ['is compressed by its handler', { 'Content-Encoding': 'gzip' }],
    ['is neither JSON nor text', { 'Content-Type': 'application/octet-stream' }],
    ['varies by anything', { Vary: '*' }],
    ['varies by a header that is no part of the key', { Vary: 'Accept-Language, X-Plan' }],
    ['varies by Origin', { Vary: 'Origin' }],
    ['varies by credentials', { Vary: 'Authorization' }],
  ])('what %s', async (_, headers) => {
    const { get, made } = listed(saying(headers), { vary: ['Accept-Language'] });
    for (const count of [1, 2]) {
      const { body } = await get();
      expect(typeof body === 'string' ? JSON.parse(body) : body).toEqual({ count });
    }
    expect(made.count).toBe(2);
  });

  test.each([201, 203, 206, 404])('the status %d', async (status) => {
    const { get, made } = listed((_, count) => Response.json({ count }, { status }));
    for (const count of [1, 2]) expect(await get()).toMatchObject({ status, body: { count } });
    expect(made.count).toBe(2);
  });
});

test('a request for a range gets the stored response whole', async () => {
  const { get, made } = listed(saying({}));
  await get();
  const answer = await get({ Range: 'bytes=0-3' });
  expect(answer).toMatchObject({ status: 200, body: { count: 1 } });
  expect(made.count).toBe(1);
});

describe('a shared cache stores', () => {
  test.each([
    ['what says nothing', {}],
    ['what is public', { 'Cache-Control': 'public' }],
    ['what varies by a part of the key', { Vary: 'Accept-Language' }],
    ['names in quotes that are no directives', { 'Cache-Control': 'ext="no-store, private, s-maxage=0"' }],
    ['extensions that begin like a directive', { 'Cache-Control': 'no-store-ext, private_x=1' }],
    ['an explicit time', { 'Cache-Control': 's-maxage=60, max-age=0' }],
  ])('%s', async (_, headers: Headers_) => {
    const { get, made } = listed(saying(headers), { vary: ['Accept-Language'] });
    for (let reads = 0; reads < 3; reads += 1) expect((await get()).body).toEqual({ count: 1 });
    expect(made.count).toBe(1);
  });

  test.each<[string, (nowMs: number) => Headers_]>([
    ['s-maxage', () => ({ 'Cache-Control': 'max-age=500, s-maxage=30' })],
    ['max-age', () => ({ 'Cache-Control': 'max-age=30' })],
    ['Expires', (nowMs) => ({ Expires: new Date(nowMs + 30_000).toUTCString() })],
    ['s-maxage less its Age', () => ({ 'Cache-Control': 's-maxage=100', Age: '70' })],
  ])('no longer than its %s says, stale windows or not', async (_, headersAt) => {
    const { get, made, clock } = listed(
      (_request, count) => Response.json({ count }, { headers: headersAt(clock.ms) }),
      {
        staleSeconds: 600,
        staleIfErrorSeconds: 600,
      },
    );
    clock.ms = Math.ceil(clock.ms / 1_000) * 1_000;
    await get();
    clock.ms += 29_999;
    expect((await get()).body).toEqual({ count: 1 });
    clock.ms += 1;
    expect((await get()).body).toEqual({ count: 2 });
    // And what has taken its place lives as long.
    clock.ms += 29_999;
    expect((await get()).body).toEqual({ count: 2 });
    expect(made.count).toBe(2);
  });

  test('no longer than its TTL, whatever it says', async () => {
    const { get, clock } = listed(saying({ 'Cache-Control': 's-maxage=86400' }), { ttlSeconds: 60 });
    await get();
    clock.ms += 60_000;
    expect((await get()).body).toEqual({ count: 2 });
  });

  test('a private response, for its user alone', async () => {
    const { get, made } = listed(saying({ 'Cache-Control': 'private, max-age=30' }), { shared: false });
    for (let reads = 0; reads < 2; reads += 1) expect((await get()).body).toEqual({ count: 1 });
    expect(made.count).toBe(1);
  });
});

describe('another origin', () => {
  const reflecting: Make = (request) => {
    const origin = request.headers.get('Origin') ?? '';
    return Response.json({ origin }, { headers: { Vary: 'Origin' } });
  };
  const origins = 'https://a.example,https://b.example';

  test.each([
    ['without CORS', ''],
    ['with CORS', origins],
  ])('gets no body that was made for the first one, %s', async (_, configured) => {
    const { get } = listed(reflecting, {}, configured);
    for (const origin of ['https://a.example', 'https://b.example', 'https://evil.example', 'https://a.example']) {
      expect((await get({ Origin: origin })).body).toEqual({ origin });
    }
    expect((await get()).body).toEqual({ origin: '' });
  });

  test('has entries of its own where the route says so', async () => {
    const { get, made } = listed(reflecting, { vary: ['Origin'] }, origins);
    for (const origin of ['https://a.example', 'https://b.example', 'https://a.example', 'https://b.example'])
      expect((await get({ Origin: origin })).body).toEqual({ origin });
    expect(made.count).toBe(2);
  });

  test('gets its own headers with a body that is the same for all', async () => {
    const { get, made } = listed((_, count) => Response.json({ count }), {}, origins);
    for (const origin of ['https://a.example', 'https://evil.example', undefined, 'https://b.example']) {
      const answer = await get(origin === undefined ? {} : { Origin: origin });
      expect(answer.body).toEqual({ count: 1 });
      const allowed = origins.includes(origin ?? '-') ? origin : null;
      expect(answer.headers.get('Access-Control-Allow-Origin')).toBe(allowed);
      expect(answer.headers.get('Vary')).toContain('Origin');
      // A 304 says the same as the answer that it stands for.
      const etag = { 'If-None-Match': answer.headers.get('ETag') ?? '' };
      const again = await get(origin === undefined ? etag : { ...etag, Origin: origin });
      expect([again.status, again.headers.get('Vary')?.includes('Origin')]).toEqual([304, true]);
    }
    expect(made.count).toBe(1);
  });

  test('is seen behind a CORS middleware of the route’s own, on both sides of the cache', async () => {
    const bound = bindings();
    const app = new Hono<AppEnv>().use(services({ isolate: isolateFor(bound) }));
    const own = cors({ origin: ['https://a.example', 'https://b.example'] });
    const options = { ttlSeconds: 60, shared: true, namespace: freshNamespace() };
    app.get('/inner', cached(options), own, (c) => c.json({ origin: c.req.header('Origin') ?? '' }));
    app.get('/outer', own, cached({ ...options, namespace: freshNamespace() }), (c) => c.json({}));
    const call = callerOf(app, bound);
    for (const origin of ['https://a.example', 'https://b.example', 'https://evil.example']) {
      const headers = { Origin: origin };
      const [inner, outer] = [await call('GET', '/inner', { headers }), await call('GET', '/outer', { headers })];
      const allowed = origin.includes('evil') ? null : origin;
      expect(inner.body).toEqual({ origin });
      expect(inner.headers.get('Access-Control-Allow-Origin')).toBe(allowed);
      expect(outer.headers.get('Access-Control-Allow-Origin')).toBe(allowed);
    }
  });
});

describe('a header that was set before the handler', () => {
  test('does not hide the handler’s, and is there where the answer is not cached', async () => {
    const bound = bindings();
    const app = new Hono<AppEnv>().use(services({ isolate: isolateFor(bound) }));
    let made = 0;
    app.get(
      '/list',
      async (c, next) => {
        c.header('Vary', 'X-Outer');
        c.header('Cache-Control', 'public, max-age=60');
        await next();
      },
      cached({ ttlSeconds: 60, shared: true, namespace: freshNamespace() }),
      () => Response.json({ made: (made += 1) }, { headers: { Vary: 'X-Plan', 'Cache-Control': 's-maxage=9' } }),
    );
    const call = callerOf(app, bound);
    for (const count of [1, 2]) {
      const { headers, body } = await call('GET', '/list');
      expect(body).toEqual({ made: count });
      expect(headers.get('Vary')).toBe('X-Plan, X-Outer');
      expect(headers.get('Cache-Control')).toBe('s-maxage=9');
    }
  });
});

test.each([
  ['s-maxage=10, max-age=20', true, 10_000],
  ['s-maxage=10, max-age=20', false, 20_000],
  ['S-MaxAge=10', true, 10_000],
  ['max-age = 7', false, 7_000],
  ['public', true, undefined],
  ['max-age=99999999999999999999', true, 0],
])('%s in a cache that is shared (%s) means %s ms', (control, shared, expected) => {
  const response = new Response('', { headers: { 'Cache-Control': control } });
  expect(lifetimeMs(response, shared, Date.now())).toBe(expected);
});
