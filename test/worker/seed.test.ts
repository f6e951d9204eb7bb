import type { Context } from 'hono';
import { Hono } from 'hono';
import { expect, test } from 'vitest';

import { isRedisAvailable } from '../../src/config/redis';
import { Controller, Get, RateLimit, controllerRoutes } from '../../src/decorators';
import { onError } from '../../src/middlewares/error.middleware';
import { rateLimiter } from '../../src/middlewares/rateLimiter.middleware';
import { services } from '../../src/middlewares/services.middleware';
import type { AppEnv } from '../../src/middlewares/services.middleware';
import { CacheService } from '../../src/services/cache.service';
import { RedisNamespace, RedisService } from '../../src/services/redis.service';
import { SessionService } from '../../src/services/session.service';
import { UserService } from '../../src/services/user.service';
import { bindings, callerOf, inRequest, isolateFor } from './support/request';

// The calls of these tests are the product's interface, word for word.

interface MyType {
  data: string;
}

test('RedisService sets and gets strings and JSON with a TTL', async () => {
  const isolate = isolateFor();
  await inRequest(
    async ({ batch }) => {
      await RedisService.set('namespace', 'key', 'value', 3600);
      const value = await RedisService.get('namespace', 'key');
      expect(value).toBe('value');

      await RedisService.setJSON('namespace', 'key', { data: 'value' }, 3600);
      const data = await RedisService.getJSON<MyType>('namespace', 'key');
      expect(data).toEqual({ data: 'value' });

      const userId = '42';
      const token = 'opaque';
      const expiry = 600;
      await RedisService.set(RedisNamespace.AUTH, `refresh_token:${userId}`, token, expiry);
      const key = isolate.keys.plain('auth', 'refresh_token:42');
      expect(key).toMatch(/^t[0-9a-f]{8}:auth:refresh_token:42$/);
      expect(await batch.send('GET', key)).toBe('opaque');
      expect(await batch.send('TTL', key)).toBe(600);
    },
    { isolate },
  );
});

test('RedisService deletes a key, and keys by pattern within their namespace', async () => {
  await inRequest(async () => {
    await RedisService.set('zoo', 'cat:1', 'a');
    await RedisService.set('zoo', 'cat:2', 'b');
    await RedisService.set('zoo', 'dog:1', 'c');
    await RedisService.set('zoo2', 'cat:1', 'd');
    expect(await RedisService.delete('zoo', 'cat:1')).toBe(true);
    expect(await RedisService.delete('zoo', 'cat:1')).toBe(false);
    expect(await RedisService.deletePattern('zoo', 'cat:*')).toBe(1);
    expect(await RedisService.get('zoo', 'dog:1')).toBe('c');
    expect(await RedisService.get('zoo2', 'cat:1')).toBe('d');
  });
});

test('a key without a TTL of its own gets its namespace’s', async () => {
  const isolate = isolateFor();
  await inRequest(
    async ({ batch }) => {
      for (const namespace of Object.values(RedisNamespace)) {
        await RedisService.set(namespace, 'k', 'v');
        expect(Number(await batch.send('TTL', isolate.keys.plain(namespace, 'k')))).toBeGreaterThan(0);
      }
    },
    { isolate },
  );
});

test('CacheService caches, reads and invalidates a user', async () => {
  const userId = 'seed-user';
  const userData = { id: userId, name: 'Ada' };
  await inRequest(async () => {
    await CacheService.cacheUser(userId, userData, 600);
    const user = await CacheService.getCachedUser<typeof userData>(userId);
    expect(user).toEqual(userData);
  });
  await inRequest(async () => {
    expect(await CacheService.getCachedUser(userId)).toEqual(userData);
    await CacheService.invalidateUser(userId);
    expect(await CacheService.getCachedUser(userId)).toBeNull();
  });
  await inRequest(async () => expect(await CacheService.getCachedUser(userId)).toBeNull());
});

test('SessionService creates, reads and deletes a session', async () => {
  const sessionId = '123.seed-session';
  await inRequest(async () => {
    await SessionService.createSession(sessionId, { userId: '123', email: 'user@example.com', role: 'user' });
    const session = await SessionService.getSession(sessionId);
    expect(session).toEqual({ userId: '123', email: 'user@example.com', role: 'user' });
    await SessionService.deleteSession(sessionId);
    expect(await SessionService.getSession(sessionId)).toBeNull();
  });
});

test('a session outlives a flush of Redis, its end too', async () => {
  const [alive, ended] = ['124.alive', '124.ended'];
  await inRequest(async ({ batch }) => {
    for (const id of [alive, ended]) await SessionService.createSession(id, { userId: '124' });
    await SessionService.deleteSession(ended);
    await batch.send('UNLINK', isolateFor().keys.session(alive));
    await batch.send('UNLINK', isolateFor().keys.session(ended));
    await batch.send('UNLINK', isolateFor().keys.blacklist('124'));
  });
  await inRequest(async () => {
    expect(await SessionService.getSession(alive)).toEqual({ userId: '124' });
    expect(await SessionService.getSession(ended)).toBeNull();
  });
});

test('a session that is stored again lives as long as the new data say', async () => {
  const sessionId = '125.shorter';
  await inRequest(async ({ batch }) => {
    await SessionService.createSession(sessionId, { userId: '125' }, 3_600);
    await SessionService.createSession(sessionId, { userId: '125', step: 2 }, 60);
    const left = await batch.send('PTTL', isolateFor().keys.session(sessionId));
    expect(Number(left)).toBeGreaterThan(50_000);
    expect(Number(left)).toBeLessThanOrEqual(60_000);
  });
});

test('a session id of any form works, and ends with its user’s other sessions', async () => {
  await inRequest(async () => {
    await SessionService.createSession('session-42', { userId: 'somebody', role: 'user' });
    expect(await SessionService.getSession('session-42')).toEqual({ userId: 'somebody', role: 'user' });
    await SessionService.createSession('session-42', { userId: 'somebody', role: 'admin' });
    expect(await SessionService.getSession('session-42')).toEqual({ userId: 'somebody', role: 'admin' });
    expect(await SessionService.deleteSession('session-42')).toBe(true);
    expect(await SessionService.getSession('session-42')).toBeNull();
  });
});

function appWith(mount: (app: Hono<AppEnv>) => void) {
  const app = new Hono<AppEnv>().use(services({ isolate: isolateFor() }));
  mount(app);
  app.onError(onError);
  return callerOf(app, bindings());
}

test('rateLimiter admits maxRequests a window and says so', async () => {
  const limiter = rateLimiter({ windowMs: 60 * 1000, maxRequests: 10, message: 'Too many requests' });
  const call = appWith((app) => app.get('/limited', limiter, (c) => c.text('in')));
  for (let i = 0; i < 10; i += 1) expect((await call('GET', '/limited')).status).toBe(200);
  const refused = await call('GET', '/limited');
  expect(refused.status).toBe(429);
  expect(refused.body).toMatchObject({ code: 'RATE_LIMITED', detail: 'Too many requests' });
  expect(Number(refused.headers.get('Retry-After'))).toBeGreaterThan(0);
});

@Controller('/api')
@RateLimit({ windowMs: 60000, maxRequests: 100 })
class ApiController {
  readonly #greeting = 'hello';

  @Get('/greeting')
  greeting(c: Context) {
    return c.json({ greeting: this.#greeting });
  }

  @Get('/rare')
  @RateLimit({ windowMs: 60000, maxRequests: 2 })
  rare(c: Context) {
    return c.text('rare');
  }
}

test('@Controller and @RateLimit serve and limit, by class and by method', async () => {
  const call = appWith((app) => app.route('/', controllerRoutes(new ApiController())));
  const first = await call('GET', '/api/greeting');
  expect(first.body).toEqual({ greeting: 'hello' });
  expect(first.headers.get('RateLimit-Policy')).toBe('"controller-api";q=100;w=60');
  expect((await call('GET', '/api/rare')).status).toBe(200);
  expect((await call('GET', '/api/rare')).status).toBe(200);
  expect((await call('GET', '/api/rare')).status).toBe(429);
  // The class's counter has seen three admitted calls; the refused one was given back.
  expect((await call('GET', '/api/greeting')).headers.get('RateLimit')).toMatch(/^"controller-api";r=96;/);
});

test('UserService reads the database first, then the cache', async () => {
  let queries = 0;
  const counted = (db: D1Database): D1Database =>
    new Proxy(db, {
      get(target, name) {
        if (name === 'withSession') return (mode: string) => counted(target.withSession(mode) as unknown as D1Database);
        if (name === 'prepare' || name === 'batch') queries += 1;
        const member: unknown = Reflect.get(target, name);
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
  const isolate = isolateFor();
  const bound = bindings();
  const first = await inRequest(
    async () => {
      const users = await UserService.getUsers({ page: 1, limit: 10 });
      return users;
    },
    { isolate, db: counted(bound.DB) },
  );
  expect(queries).toBeGreaterThan(0);
  queries = 0;
  const next = await inRequest(() => UserService.getUsers({ page: 1, limit: 10 }), { isolate, db: counted(bound.DB) });
  expect(queries).toBe(0);
  expect(next).toEqual(first);
});

test('isRedisAvailable is true while Redis answers', () => {
  expect(isRedisAvailable()).toBe(true);
});

test('outside a request the static calls say what is missing', () => {
  expect(() => RedisService.get('a', 'b')).toThrow(/inside a request/);
});
