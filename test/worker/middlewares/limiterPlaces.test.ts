import { Hono } from 'hono';
import type { Context } from 'hono';
import { describe, expect, test } from 'vitest';

import { Controller, Get, Post, RateLimit, controllerRoutes } from '../../../src/decorators';
import { check } from '../../../src/middlewares/check';
import { onError } from '../../../src/middlewares/error.middleware';
import { guard } from '../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { RateLimiterOptions } from '../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { bindings, callerOf, isolateFor } from '../support/request';

const WINDOW_MS = 36_000_000;
const limit = (maxRequests: number, options: Partial<RateLimiterOptions> = {}) =>
  rateLimiter({ windowMs: WINDOW_MS, maxRequests, ...options } as RateLimiterOptions);
const ok = (c: Context) => c.text('in');

let n = 0;
/** An app with counters of its own, in as many isolates as are asked for. */
function appWith(mount: (app: Hono<AppEnv>) => void) {
  n += 1;
  const settings = { KEY_PREFIX: `places-${n}-${Math.random().toString(36).slice(2, 8)}` };
  const start = () => {
    const app = new Hono<AppEnv>().use(services({ isolate: isolateFor(bindings(settings)) }));
    mount(app);
    app.onError(onError);
    return callerOf(app, bindings(settings));
  };
  const [first, second] = [start(), start()];
  const admitted = async (call: typeof first, method: string, path: string, times: number) => {
    let count = 0;
    for (let i = 0; i < times; i += 1) if ((await call(method, path)).status === 200) count += 1;
    return count;
  };
  return {
    call: first,
    admitted: (method: string, path: string, times = 12) => admitted(first, method, path, times),
    elsewhere: (method: string, path: string, times = 12) => admitted(second, method, path, times),
  };
}

describe('where no name is given, each place counts for itself', () => {
  test('methods of one path', async () => {
    const { admitted } = appWith((app) => app.get('/x', limit(10), ok).post('/x', limit(5), ok));
    expect([await admitted('POST', '/x'), await admitted('GET', '/x')]).toEqual([5, 10]);
  });

  test('paths that look alike', async () => {
    const paths = ['/x/a', '/x-a', '/x_a', '/x.a', '/X/a', '/x/a/'];
    const { admitted } = appWith((app) => {
      for (const path of paths) app.get(path, limit(2), ok);
    });
    const counts = [];
    for (const path of paths) counts.push(await admitted('GET', path));
    expect(counts).toEqual(paths.map(() => 2));
  });

  test('limiters stacked on one route, in one guard, or in both', async () => {
    const { call, admitted } = appWith((app) => {
      app.get('/row', limit(6), limit(6), ok);
      app.get('/guard', guard(limit(6), limit(6)), ok);
      app.get('/both', limit(6), guard(limit(6), limit(6)), limit(6), ok);
    });
    for (const [path, count] of [
      ['/row', 2],
      ['/guard', 2],
      ['/both', 4],
    ] as const) {
      const policies = (await call('GET', path)).headers.get('RateLimit-Policy')?.split(', ') ?? [];
      expect(new Set(policies).size).toBe(count);
      expect(await admitted('GET', path)).toBe(5);
    }
  });

  test('one limiter that is mounted in two places', async () => {
    const shared = limit(3);
    const { admitted } = appWith((app) => app.get('/a', shared, ok).get('/b', shared, ok));
    expect([await admitted('GET', '/a'), await admitted('GET', '/b')]).toEqual([3, 3]);
  });

  test('one limiter around a sub-app and on a route in it counts twice, and charges each once', async () => {
    const shared = limit(4, { charge: (c: Context) => (c.req.query('free') === undefined ? 1 : 0) });
    const { admitted } = appWith((app) => {
      app.use('/x/*', shared);
      app.get('/x/a', shared, ok).get('/x/b', ok);
    });
    expect(await admitted('GET', '/x/a?free', 9)).toBe(9);
    expect(await admitted('GET', '/x/a', 2)).toBe(2);
    expect(await admitted('GET', '/x/b')).toBe(2);
  });

  test('all routes of a pattern are one place', async () => {
    const { admitted } = appWith((app) => {
      app.use('/x/*', limit(5));
      app.get('/x/a', ok).post('/x/b', ok);
      app.get('/users/:id', limit(4), ok);
    });
    expect([await admitted('GET', '/x/a', 3), await admitted('POST', '/x/b')]).toEqual([3, 2]);
    expect([await admitted('GET', '/users/1', 3), await admitted('GET', '/users/2')]).toEqual([3, 1]);
  });

  test('a sub-app that is mounted at two paths', async () => {
    const sub = new Hono<AppEnv>().get('/a', limit(2), ok);
    const { admitted } = appWith((app) => app.route('/one', sub).route('/two', sub));
    expect([await admitted('GET', '/one/a'), await admitted('GET', '/two/a')]).toEqual([2, 2]);
  });

  test('patterns with braces, quotes and letters of any script', async () => {
    const { call, admitted } = appWith((app) => {
      app.get('/n/:id{[0-9]{1,3}}', limit(2), ok);
      app.get('/“ü”/:x', limit(2), ok);
    });
    expect((await call('GET', '/n/42')).headers.get('RateLimit-Policy')).toBe(
      '"GET /n/:id%7B%5B0-9%5D%7B1,3%7D%7D";q=2;w=36000',
    );
    expect(await admitted('GET', '/n/7')).toBe(1);
    expect(await admitted('GET', `/${encodeURIComponent('“ü”')}/1`)).toBe(2);
  });

  test('the names are the same in every isolate', async () => {
    const { admitted, elsewhere } = appWith((app) => {
      app.use(limit(100));
      app.get('/a', limit(9), guard(limit(100), limit(6)), ok);
    });
    expect([await admitted('GET', '/a', 4), await elsewhere('GET', '/a')]).toEqual([4, 2]);
  });

  test('a limiter that is not asked does not move the names of the others', async () => {
    const { admitted } = appWith((app) =>
      app.get('/a', guard(limit(100, { skip: (c) => c.req.query('skip') !== undefined }), limit(4)), ok),
    );
    expect([await admitted('GET', '/a?skip', 2), await admitted('GET', '/a')]).toEqual([2, 2]);
  });

  test('a name makes them one', async () => {
    const { admitted } = appWith((app) =>
      app.get('/a', limit(5, { name: 'one' }), ok).post('/a', limit(5, { name: 'one' }), ok),
    );
    expect([await admitted('GET', '/a', 3), await admitted('POST', '/a')]).toEqual([3, 2]);
  });
});

describe('controllers', () => {
  @Controller('/x/a')
  @RateLimit({ windowMs: WINDOW_MS, maxRequests: 5 })
  class First {
    @Get('/one')
    one(c: Context) {
      return c.text('in');
    }

    @Get('/two')
    two(c: Context) {
      return c.text('in');
    }
  }

  @Controller('/x/a')
  @RateLimit({ windowMs: WINDOW_MS, maxRequests: 5 })
  @RateLimit({ windowMs: WINDOW_MS, maxRequests: 3 })
  class SamePrefix {
    @Post('/three')
    @RateLimit({ windowMs: WINDOW_MS, maxRequests: 9 })
    three(c: Context) {
      return c.text('in');
    }
  }

  @Controller('/x-a')
  @RateLimit({ windowMs: WINDOW_MS, maxRequests: 5 })
  class LooksAlike {
    @Get('/one')
    one(c: Context) {
      return c.text('in');
    }
  }

  test('each class has a counter of its own for all its routes, and each of its limits one', async () => {
    const { admitted, elsewhere } = appWith((app) => {
      for (const controller of [new First(), new SamePrefix(), new LooksAlike()]) {
        app.route('/', controllerRoutes(controller));
      }
    });
    expect([await admitted('GET', '/x/a/one', 2), await admitted('GET', '/x/a/two')]).toEqual([2, 3]);
    expect(await admitted('POST', '/x/a/three')).toBe(3);
    expect(await admitted('GET', '/x-a/one')).toBe(5);
    expect(await elsewhere('POST', '/x/a/three')).toBe(0);
  });
});

describe('costs', () => {
  test.each([0.5, -1, Number.NaN, Infinity])('a cost of %d is refused when the limiter is built', (cost) => {
    expect(() => limit(10, { cost })).toThrow('cost must be a whole number');
  });

  test.each([0.5, -1, Number.NaN])('a cost of %d that a function gives is an error that says so', async (cost) => {
    const { call, admitted } = appWith((app) =>
      app.get('/', limit(3, { cost: (c) => (c.req.query('odd') === undefined ? 1 : cost) }), ok),
    );
    const { status, body } = await call('GET', '/?odd');
    expect({ status, code: body.code }).toEqual({ status: 503, code: 'CONFIG_INVALID' });
    expect(body.detail).toContain('cost must be a whole number');
    expect(await admitted('GET', '/')).toBe(3);
  });

  test.each([0.5, -1, Number.NaN])(
    'a charge of %d leaves the cost as it is, and the response alone',
    async (charge) => {
      const { admitted } = appWith((app) => app.get('/', limit(3, { charge: () => charge }), ok));
      expect(await admitted('GET', '/')).toBe(3);
    },
  );

  test('a cost of nothing is admitted, and charges nothing', async () => {
    const { admitted } = appWith((app) => app.get('/', limit(3, { cost: 0 }), ok));
    expect(await admitted('GET', '/', 9)).toBe(9);
  });
});

test.each(['', 'qu"ote', 'back\\slash', '{tag}', 'ümlaut', 'new\nline', 'x'.repeat(257)])(
  'a name that cannot stand in keys and headers (%j) does not start',
  (name) => {
    expect(() => limit(1, { name })).toThrow('name');
  },
);

test('one limiter twice in one guard does not start', () => {
  const twice = limit(1);
  expect(() => guard(twice, twice)).toThrow('twice');
});

test('a refusal by a limit is the response, also where another check stands before it, and nothing was charged', async () => {
  const no = check({ name: 'no', prepare: () => () => Promise.reject(new Error('not reached')) });
  const { call } = appWith((app) => {
    app.get('/', guard(limit(10, { name: 'wide' }), no, limit(1, { name: 'narrow', cost: 2 })), ok);
    app.get('/wide', limit(10, { name: 'wide' }), ok);
  });
  const refused = await call('GET', '/');
  expect([refused.status, refused.body['violated-policies']]).toEqual([429, ['narrow']]);
  expect((await call('GET', '/wide')).headers.get('RateLimit')).toMatch(/^"wide";r=9;/);
});
