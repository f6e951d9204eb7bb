import { Hono } from 'hono';
import type { Context } from 'hono';
import { beforeAll, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { configOf } from '../../../src/config/env';
import { AppError } from '../../../src/errors';
import { authenticate, requireRole } from '../../../src/middlewares/auth.middleware';
import { reads } from '../../../src/middlewares/reads.middleware';
import { check } from '../../../src/middlewares/check';
import { foldAddress } from '../../../src/middlewares/clientAddress';
import { onError } from '../../../src/middlewares/error.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { idempotent } from '../../../src/middlewares/idempotent.middleware';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { createRedisClient } from '../../../src/redis/client';
import type { Command, RedisClient } from '../../../src/redis/client';
import { UserService } from '../../../src/services/user.service';
import { bindings, callerOf, isolateFor } from '../support/request';

const bound = bindings();

/** The real client, with a record of the pipelines that it sent. */
function recording() {
  const { url, token } = configOf(bound).redis;
  const real = createRedisClient({ url, token });
  const sent: Command[][] = [];
  const client: RedisClient = {
    execute(commands) {
      sent.push([...commands]);
      return real.execute(commands);
    },
  };
  return { sent, isolate: isolateFor(bound, { client }) };
}

let token = '';
beforeAll(async () => {
  const call = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
  const body = { email: 'guarded@example.com', password: 'correct horse battery', name: 'Guarded' };
  token = (await call('POST', '/v1/auth/register', { body })).body.access_token;
});

function appWith(mount: (app: Hono<AppEnv>) => void) {
  const { sent, isolate } = recording();
  const app = new Hono<AppEnv>().use(services({ isolate }));
  mount(app);
  app.onError(onError);
  return { sent, call: callerOf(app, bound) };
}

const names = (commands: readonly Command[] | undefined) => commands?.map(([name]) => name);

test('all checks and the handler’s read are one pipeline; the same holds for checks that stand alone', async () => {
  const limiter = () => rateLimiter({ maxRequests: 1_000, name: 'merged' });
  const { sent, call } = appWith((app) => {
    const read = reads((c) => UserService.keyOf(c.var.auth.userId));
    app.get('/merged', guard(limiter(), authenticate(), read), async (c) =>
      c.json(await UserService.getUser(c.var.auth.userId)),
    );
    app.get('/alone', limiter(), authenticate(), async (c) => c.json(await UserService.getUser(c.var.auth.userId)));
  });
  // Scripts, tag versions, the entry and the flush sentinel are there after this.
  for (let warm = 0; warm < 2; warm += 1) await call('GET', '/merged', { token });
  sent.length = 0;
  expect((await call('GET', '/merged', { token })).status).toBe(200);
  expect(sent.map(names)).toEqual([['EVALSHA', 'HMGET', 'MGET']]);
  sent.length = 0;
  expect((await call('GET', '/alone', { token })).status).toBe(200);
  expect(sent.map(names)).toEqual([['EVALSHA'], ['HMGET'], ['MGET']]);
});

describe('the order written decides', () => {
  const tight = () => rateLimiter({ maxRequests: 1, windowMs: 60_000_000, name: `tight${Math.random()}` });

  test('a limiter before a broken token counts it, one after it does not', async () => {
    const { sent, call } = appWith((app) => {
      app.get('/limit-first', guard(tight(), authenticate()), (c) => c.text('in'));
      app.get('/auth-first', guard(authenticate(), tight()), (c) => c.text('in'));
    });
    expect((await call('GET', '/limit-first', { token: 'broken' })).status).toBe(401);
    expect((await call('GET', '/limit-first', { token: 'broken' })).status).toBe(429);
    sent.length = 0;
    for (let i = 0; i < 3; i += 1) expect((await call('GET', '/auth-first', { token: 'broken' })).status).toBe(401);
    expect(sent).toEqual([]);
  });

  test('a limit that a later limit makes pointless is given back', async () => {
    const wide = { maxRequests: 2, windowMs: 60_000_000 };
    const { call } = appWith((app) => {
      app.get(
        '/both',
        guard(rateLimiter({ ...wide, name: 'wide' }), rateLimiter({ ...wide, maxRequests: 1, name: 'narrow' })),
        (c) => c.text('in'),
      );
      app.get('/wide', rateLimiter({ ...wide, name: 'wide' }), (c) => c.text('in'));
    });
    expect((await call('GET', '/both')).status).toBe(200);
    for (let i = 0; i < 3; i += 1) {
      const refused = await call('GET', '/both');
      expect(refused.status).toBe(429);
      expect(refused.body['violated-policies']).toEqual(['narrow']);
    }
    expect((await call('GET', '/wide')).status).toBe(200);
    expect((await call('GET', '/wide')).status).toBe(429);
  });

  test('a limit after a refusing check is given back, one before it counts', async () => {
    const no = check({ name: 'no', prepare: () => () => Promise.reject(new AppError('FORBIDDEN')) });
    const two = (name: string) => rateLimiter({ maxRequests: 2, windowMs: 60_000_000, name });
    const { call } = appWith((app) => {
      app.get('/', guard(two('before'), no, two('after')), (c) => c.text('in'));
      app.get('/before', two('before'), (c) => c.text('in'));
      app.get('/after', two('after'), (c) => c.text('in'));
    });
    expect((await call('GET', '/')).status).toBe(403);
    expect((await call('GET', '/')).status).toBe(403);
    expect((await call('GET', '/before')).status).toBe(429);
    expect((await call('GET', '/after')).status).toBe(200);
  });
});

test('a charge by outcome counts refusals by another check of the same guard', async () => {
  const charge = (c: Context) => (c.res.status === 401 ? 3 : 1);
  const limiter = rateLimiter({ maxRequests: 5, windowMs: 60_000_000, name: `charged${Math.random()}`, charge });
  const { call } = appWith((app) => app.get('/', guard(limiter, authenticate()), (c) => c.text('in')));
  const statuses = [];
  for (let i = 0; i < 3; i += 1) statuses.push((await call('GET', '/', { token: 'broken' })).status);
  expect(statuses).toEqual([401, 401, 429]);
});

test('a limiter before authenticate() sees who is authenticated', async () => {
  const limiter = rateLimiter({
    maxRequests: (c) => (c.var.auth?.role === 'user' ? 2 : 100),
    windowMs: 60_000_000,
    name: `roles${Math.random()}`,
    identity: (c) => `id:${c.var.auth?.userId ?? 'nobody'}`,
  });
  const { call } = appWith((app) => app.get('/', guard(limiter, authenticate()), (c) => c.text('in')));
  const statuses = [];
  for (let i = 0; i < 3; i += 1) statuses.push((await call('GET', '/', { token })).status);
  expect(statuses).toEqual([200, 200, 429]);
});

test('a caller known to be limited costs no round trip, and learns when to come back', async () => {
  const { sent, call } = appWith((app) =>
    app.get('/', rateLimiter({ maxRequests: 1, windowMs: 600_000, name: `known${Math.random()}` }), (c) =>
      c.text('in'),
    ),
  );
  await call('GET', '/');
  const first = await call('GET', '/');
  sent.length = 0;
  const second = await call('GET', '/');
  expect([first.status, second.status]).toEqual([429, 429]);
  expect(sent).toEqual([]);
  expect(
    Math.abs(Number(second.headers.get('Retry-After')) - Number(first.headers.get('Retry-After'))),
  ).toBeLessThanOrEqual(2);
});

describe('two limits of one guard that both refuse', () => {
  const hour = 3_600_000;
  const limiters = () => [
    rateLimiter({ maxRequests: 1, windowMs: hour, name: `short${Math.random()}`, message: 'short' }),
    rateLimiter({ maxRequests: 1, windowMs: 24 * hour, name: `long${Math.random()}`, message: 'long' }),
  ];

  test.each([
    ['the short one first', limiters()],
    ['the long one first', limiters().toReversed()],
  ])('a refusal names both, and the time at which both admit: %s', async (_, [first, second]) => {
    const { sent, call } = appWith((app) => app.get('/', guard(first!, second!), (c) => c.text('in')));
    expect((await call('GET', '/')).status).toBe(200);
    sent.length = 0;
    // By Redis, then from memory.
    for (const pipelines of [1, 1]) {
      const { status, headers, body } = await call('GET', '/');
      expect([status, sent.length]).toEqual([429, pipelines]);
      expect(Number(headers.get('Retry-After'))).toBeGreaterThan((24 * hour) / 1_000 - 60);
      const waits = headers.get('RateLimit')!.split(', ');
      expect(body['violated-policies']).toHaveLength(2);
      expect(waits).toHaveLength(2);
      for (const [index, name] of (body['violated-policies'] as string[]).entries()) {
        expect(waits[index]).toContain(`"${name}";r=0;t=`);
      }
      expect(headers.get('RateLimit-Policy')!.split(', ')).toHaveLength(2);
    }
  });

  test('a request that the other one never admits has no Retry-After', async () => {
    const narrow = rateLimiter({ maxRequests: 1, windowMs: hour, name: `narrow${Math.random()}` });
    const small = rateLimiter({ maxRequests: 2, windowMs: hour, name: `small${Math.random()}`, cost: 3 });
    const { call } = appWith((app) => {
      app.get('/narrow', narrow, (c) => c.text('in'));
      app.get('/', guard(narrow, small), (c) => c.text('in'));
    });
    expect((await call('GET', '/narrow')).status).toBe(200);
    const refused = await call('GET', '/');
    expect([refused.status, refused.headers.get('Retry-After')]).toEqual([429, null]);
  });
});

describe('a revoked token on a route that repeats', () => {
  const limiter = (name: string) => rateLimiter({ maxRequests: 2, windowMs: 60_000_000, name });
  const repeating = () => authenticate({ revoked: 'repeat' });

  test('never reaches the handler, and does not use up the quota of its owner', async () => {
    const name = `revoked${Math.random()}`;
    let handled = 0;
    const { call } = appWith((app) => {
      const handler = (c: Context) => {
        handled += 1;
        return c.text('in');
      };
      app.post('/alone', repeating(), handler);
      app.post('/without', guard(repeating()), handler);
      app.post('/keyed', guard(limiter(name), repeating(), idempotent()), handler);
      // The lookup is over when the token turns out to be revoked.
      app.post('/early', guard(limiter(name), idempotent(), repeating()), handler);
      app.post('/apart', idempotent(), repeating(), handler);
      app.post('/renewed', guard(limiter(name), authenticate({ revoked: 'renewed' })), handler);
    });
    const all = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
    const body = { email: `${name}@example.com`, password: 'correct horse battery', name: 'Owner' };
    const revoked = (await all('POST', '/v1/auth/register', { body })).body.access_token as string;
    const own = (await all('POST', '/v1/auth/login', { body: { email: body.email, password: body.password } })).body;
    expect((await all('POST', '/v1/auth/logout', { token: revoked })).status).toBe(204);

    const key = () => ({ 'Idempotency-Key': `"${crypto.randomUUID()}"` });
    for (const path of ['/alone', '/without', '/early', '/apart', '/keyed', '/renewed', '/keyed', '/renewed']) {
      for (const headers of [{}, key()]) {
        const answer = await call('POST', path, { token: revoked, headers });
        expect({ path, status: answer.status, code: answer.body.code }).toEqual({
          path,
          status: 401,
          code: 'TOKEN_REVOKED',
        });
      }
    }
    expect(handled).toBe(0);
    const { status } = await call('POST', '/keyed', { token: own.access_token, headers: key() });
    expect(status).toBe(200);
    expect(handled).toBe(1);
  });
});

describe('a request that ends without having been executed gives its Idempotency-Key back', () => {
  /** Refuses requests that ask for it, in one of its phases. */
  const refusing = (phase: 'local' | 'prepare' | 'decide' | 'around') => {
    const refuse = (c: Context) => {
      if (c.req.header('X-Refuse') !== undefined) throw new AppError('FORBIDDEN');
    };
    const phases = {
      local: { local: refuse },
      prepare: { prepare: (c: Context) => (refuse(c), undefined) },
      decide: { prepare: (c: Context) => () => refuse(c) },
      around: { around: async (c: Context, next: () => Promise<void>) => (refuse(c), next()) },
    };
    return check({ name: `${phase}()`, ...phases[phase] });
  };
  const handler = (c: Context) => c.text('in');

  test.each<[string, number, (app: Hono<AppEnv>) => void, 'lasting'?]>([
    ['a later check refuses', 403, (app) => app.post('/', guard(idempotent(), refusing('decide')), handler)],
    [
      'a later check refuses without Redis',
      403,
      (app) => app.post('/', guard(idempotent(), refusing('local')), handler),
    ],
    ['a later check fails to ask', 403, (app) => app.post('/', guard(idempotent(), refusing('prepare')), handler)],
    ['a check around it refuses', 403, (app) => app.post('/', guard(refusing('around'), idempotent()), handler)],
    [
      'the role is another one',
      403,
      (app) => app.post('/', guard(authenticate(), idempotent(), requireRole('admin')), handler),
      'lasting',
    ],
    [
      'a later limiter refuses',
      429,
      (app) => app.post('/', guard(idempotent(), rateLimiter({ maxRequests: 1, cost: 2, name: 'small' })), handler),
      'lasting',
    ],
    [
      'the handler fails',
      500,
      (app) =>
        app.post('/', idempotent(), () => {
          throw new Error('a bug');
        }),
      'lasting',
    ],
    [
      'the handler asks to come again',
      429,
      (app) => app.post('/', idempotent(), (c) => c.json({ code: 'RATE_LIMITED' }, 429)),
      'lasting',
    ],
  ])('%s', async (_, status, mount, lasting) => {
    const isLasting = lasting === 'lasting';
    const { sent, call } = appWith(mount);
    const headers = { 'Idempotency-Key': `"${crypto.randomUUID()}"` };
    // With the same key it is refused for the same reason, not for the key.
    const refused = { ...headers, 'X-Refuse': '1' };
    for (let time = 0; time < 3; time += 1) {
      expect((await call('POST', '/', { token, headers: refused })).status).toBe(status);
    }
    const after = await call('POST', '/', { token, headers });
    expect(after.status).toBe(isLasting ? status : 200);
    const keys = sent.flat().flatMap((command) => command.filter((part) => String(part).includes(':idempotency:')));
    expect(new Set(keys).size).toBe(1);
  });
});

test('a guard with impossible options does not start', () => {
  expect(() => idempotent({ ttlSeconds: 86_401 })).toThrow('1 to 86400');
  const read = reads((c) => UserService.keyOf(c.var.auth.userId));
  expect(() => guard()).toThrow(TypeError);
  expect(() => guard(read, authenticate())).toThrow('reads() needs authenticate() before it');
  expect(() => guard(requireRole('admin'))).toThrow('needs authenticate()');
  expect(() => guard(authenticate(), authenticate())).toThrow('twice');
  expect(() => guard((async () => undefined) as never)).toThrow('takes checks only');
  expect(() => rateLimiter({ maxRequests: 0 })).toThrow('positive integers');
  expect(() => rateLimiter({ maxRequests: 1.5 })).toThrow('positive integers');
});

test.each([
  ['203.0.113.7', '203.0.113.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:DB8:1:2::9', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8::/64'],
  ['::1', '::/64'],
  ['::', '::/64'],
  ['1:0:0:2::3', '1:0:0:2::/64'],
  ['1:0:2:3::4', '1:0:2:3::/64'],
  ['fe80::1%eth0', 'fe80::/64'],
  ['::1.2.3.4', '1.2.3.4'],
  ['::102:304', '1.2.3.4'],
  ['::ffff:0:1.2.3.4', '1.2.3.4'],
  ['64:ff9b::1.2.3.4', '1.2.3.4'],
  ['64:FF9B::102:304', '1.2.3.4'],
  ['64:ff9b:1::1.2.3.4', '1.2.3.4'],
  ['64:ff9b:2::1.2.3.4', '64:ff9b:2::/64'],
  ['2002:102:304:ffff::9', '1.2.3.4'],
  ['2001:0:53aa:64c::fefd:fcfb', '1.2.3.4'],
  ['1.2.3.4:80', 'unknown'],
  ['[2001:db8::1]:80', 'unknown'],
  ['gggg::1', 'unknown'],
  ['1::2::3', 'unknown'],
  ['1:2:3:4:5:6:7:8:9', 'unknown'],
  ['1:2:3:4:5:6:7', 'unknown'],
  ['12345::', 'unknown'],
  ['::1.2.3.256', 'unknown'],
  ['010.0.0.1', 'unknown'],
  ['1.2.3', 'unknown'],
  ['0x1.2.3.4', 'unknown'],
  ['１.2.3.4', 'unknown'],
  ['2001:db8::/64', 'unknown'],
  [`${'1:'.repeat(50_000)}1`, 'unknown'],
  ['::ffff:203.0.113.7', '203.0.113.7'],
  ['::ffff:cb00:7107', '203.0.113.7'],
  ['0:0:0:0:0:ffff:cb00:7107', '203.0.113.7'],
  ['', 'unknown'],
])('the address %s counts as %s', (address, identity) => {
  expect(foldAddress(address)).toBe(identity);
});
