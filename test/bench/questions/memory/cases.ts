import { load } from '../../support/measure.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { abandon, untilIdle } from './abandon.ts';
import type { AbandonOptions } from './abandon.ts';
import { PASSWORD, bearer } from './setUp.ts';
import type { Isolate, SetUp } from './setUp.ts';
import type { Load } from './rounds.ts';
import type { Target } from '../../support/load.ts';

/** One kind of request, over and over. */
export interface MemoryCase extends Load {
  /** Whose heap is read. */
  isolate: Isolate;
  /** Makes something fail before the load begins; all is made well again after the last reading. */
  setUp?: () => Promise<void>;
}

const CONNECTIONS = 32;
/** The bound of the largest map of an isolate, and more. */
const BEYOND_MAPS = 12_000;

/** Every kind of request that the app serves, with everything around it well, failing and hanging. */
export function casesOf(setUp: SetUp, redis: BenchRedis): MemoryCase[] {
  const { users, logins, target } = setUp;
  let n = 0;

  const loadCase = (
    name: string,
    path: string,
    more: Partial<Target> & Partial<Omit<MemoryCase, 'name' | 'run'>> & { connections?: number } = {},
  ): MemoryCase => {
    const { isolate = 'gatehouse', share, warmUp, settleMs, setUp: prepare, ...rest } = more;
    const { connections = CONNECTIONS, ...targetOptions } = rest;
    return {
      name,
      isolate,
      ...(share !== undefined && { share }),
      ...(warmUp !== undefined && { warmUp }),
      ...(settleMs !== undefined && { settleMs }),
      ...(prepare !== undefined && { setUp: prepare }),
      run: (requests) => load(name, target(isolate, path, targetOptions), connections, { requests }),
    };
  };

  const abandoned = (
    name: string,
    path: string,
    { share = 1, ...options }: Partial<AbandonOptions> & { share?: number } = {},
  ): MemoryCase => ({
    name,
    isolate: 'gatehouse',
    share,
    run: async (requests) => {
      await abandon(target('gatehouse', path), {
        connections: CONNECTIONS,
        requests,
        waitMs: (request) => request % 12,
        vary: (request) => ({ headers: bearer(users[request % users.length]) }),
        ...options,
      });
      // A request whose client has gone ends with its last call to Redis.
      await untilIdle(async () => Number(await (await fetch(target('gatehouse', '/bench/under-way').url)).text()));
    },
  });

  /** Each request with another path. */
  const distinct = (path: (n: number) => string): Partial<Target> => ({
    next: () => ({ path: path((n += 1)) }),
  });

  const refreshes = users.map(({ refreshToken }) => refreshToken);
  const anonymous: Partial<Target> = { next: () => ({}) };

  return [
    loadCase('bare-hono: hit', '/v1/users/me', { isolate: 'bare-hono' }),
    loadCase('documented-stack: hit', '/v1/users/me', { isolate: 'documented-stack' }),
    loadCase('documented-stack: 401', '/v1/users/me', { isolate: 'documented-stack', status: 401, ...anonymous }),

    loadCase('hit', '/v1/users/me'),
    loadCase(
      'miss',
      '/',
      distinct((key) => `/bench/query/miss-${key}`),
    ),
    loadCase('304', '/bench/cached', { status: 304, next: () => ({ headers: { 'If-None-Match': '*' } }) }),
    loadCase('401, no token', '/v1/users/me', { status: 401, ...anonymous }),
    loadCase('401, forged token', '/v1/users/me', {
      status: 401,
      next: () => ({ headers: bearer({ ...users[0]!, accessToken: forged(users[0]!.accessToken, (n += 1)) }) }),
    }),
    loadCase('403', '/v1/users', { status: 403 }),
    loadCase('404', '/', { status: 404, ...distinct((path) => `/nothing/${path}`) }),
    loadCase('422', '/v1/auth/register', { status: 422, next: () => ({ body: '{"email":"none"}' }) }),
    loadCase('429', '/bench/limited', {
      status: 429,
      next: () => ({}),
      // The first request passes.
      setUp: async () => void (await fetch(target('gatehouse', '/bench/limited').url, { headers: ADDRESS_HEADERS })),
    }),
    loadCase('500', '/bench/failing', { status: 500, ...anonymous }),
    loadCase('refresh', '/v1/auth/refresh', {
      warmUp: BEYOND_MAPS,
      connections: users.length,
      next: (connection) => ({ body: JSON.stringify({ refresh_token: refreshes[connection] }) }),
      answered: (body, connection) => {
        refreshes[connection] = (JSON.parse(body) as { refresh_token: string }).refresh_token;
      },
    }),
    {
      name: 'scheduled run',
      isolate: 'gatehouse',
      // Some 20 queries each.
      share: 0.5,
      warmUp: 1_000,
      run: (requests) => load('scheduled run', target('clock', '/', anonymous), 8, { requests }),
    },
    loadCase('login', '/v1/auth/login', {
      // The slowest by far.
      share: 0.5,
      warmUp: 4_000,
      // More would be refused: one hash at a time.
      connections: 4,
      next: (connection) => ({
        body: JSON.stringify({ email: logins[connection % logins.length]?.email, password: PASSWORD }),
      }),
    }),
    loadCase('cached(): hit', '/bench/cached', anonymous),
    loadCase(
      'cached(): miss',
      '/',
      distinct((key) => `/bench/cached?n=${key}`),
    ),
    loadCase('cached(): stale', '/bench/cached-stale', anonymous),
    loadCase('query with tags: hit', '/bench/query/hit', anonymous),
    loadCase('stale', '/bench/stale', anonymous),
    loadCase('invalidate', '/bench/invalidate', anonymous),
    loadCase(
      'lock',
      '/',
      distinct((name) => `/bench/lock?n=${name % 64}`),
    ),
    // On a busy machine the work of thousands of responses is still under way when the last one has arrived.
    loadCase('waitUntil of a handler', '/bench/wait-until', { ...anonymous, settleMs: 5_000 }),
    loadCase('detached promise of a handler', '/bench/detached', anonymous),
    loadCase('promise that never settles', '/bench/never', anonymous),

    abandoned('aborted: hit', '/v1/users/me'),
    abandoned('aborted: handler under way', '/bench/slow'),
    abandoned('aborted: miss', '/', { vary: () => ({ path: `/bench/query/aborted-${(n += 1)}` }) }),
    abandoned('aborted: cached() miss', '/', { vary: () => ({ path: `/bench/cached?n=aborted-${(n += 1)}` }) }),
    abandoned('aborted: login', '/v1/auth/login', {
      connections: 8,
      vary: (request) => ({
        body: JSON.stringify({ email: logins[request % logins.length]?.email, password: PASSWORD }),
      }),
    }),
    abandoned('aborted: stream', '/bench/stream', { share: 0.2, waitMs: () => 20 }),
    abandoned('slow reader', '/bench/stream', { share: 0.2, waitMs: () => 60, slow: true }),

    loadCase('Redis away', '/v1/users/me', { isolate: 'patient', setUp: () => redis.setState('away') }),
    loadCase('Redis away: miss', '/', {
      isolate: 'patient',
      setUp: () => redis.setState('away'),
      ...distinct((key) => `/bench/query/away-${key}`),
    }),
    loadCase('Redis away, breaker open', '/v1/users/me', { setUp: () => redis.setState('away') }),
    loadCase('Redis hanging', '/v1/users/me', {
      isolate: 'patient',
      connections: 64,
      setUp: () => redis.setState('hanging'),
    }),
    loadCase('Redis hanging: miss', '/', {
      isolate: 'patient',
      connections: 64,
      setUp: () => redis.setState('hanging'),
      ...distinct((key) => `/bench/query/hanging-${key}`),
    }),
    loadCase('D1 away', '/v1/users/me/events', {
      isolate: 'patient',
      status: 503,
      setUp: () => setUp.setDatabase('away'),
    }),
    loadCase('D1 hanging', '/v1/users/me/events', {
      isolate: 'hurried',
      // What a query needs stays until the database ends it: a binding cannot give one up.
      settleMs: 10_000,
      status: 503,
      connections: 64,
      share: 0.5,
      setUp: () => setUp.setDatabase('hanging'),
    }),
  ];
}

const ADDRESS_HEADERS = { 'CF-Connecting-IP': '203.0.113.7' };

/** The token with other claims, and its old signature. */
function forged(token: string, n: number): string {
  const [head, , signature] = token.split('.');
  return `${head}.${Buffer.from(JSON.stringify({ sub: `nobody-${n}` })).toString('base64url')}.${signature}`;
}
