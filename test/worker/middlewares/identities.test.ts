import { Hono } from 'hono';
import { describe, expect, test } from 'vitest';

import { Controller, Get, RateLimit, controllerRoutes } from '../../../src/decorators';
import { onError } from '../../../src/middlewares/error.middleware';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { RateLimiterOptions } from '../../../src/middlewares/rateLimiter.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { RateLimitService, slidingWindow } from '../../../src/services/rateLimit.service';
import { exactRatelimit } from '../../../src/services/rateLimit/upstash';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

const HOUR = 3_600_000;
let n = 0;
const freshName = () => `identities-${Date.now()}-${(n += 1)}`;

/** A limiter with a counter of its own. */
function limited(options: RateLimiterOptions) {
  const app = new Hono<AppEnv>().use(services({ isolate: isolateFor() }));
  app.get('/', rateLimiter({ name: freshName(), ...options }), (c) => c.text('in'));
  app.onError(onError);
  const call = callerOf(app, bindings());
  return (headers: Record<string, string> = {}) => call('GET', '/', { headers });
}

describe('configured identities', () => {
  const from = async (get: ReturnType<typeof limited>, ...addresses: string[]) => {
    const seen: number[] = [];
    for (const address of addresses) seen.push((await get({ 'CF-Connecting-IP': address })).status);
    return seen;
  };

  test.each([
    ['2001:db8::1', '2001:db8::1'],
    ['2001:db8::1', '2001:DB8:0:0:0:0:0:1'],
    ['2001:db8:0:0::/64', '2001:db8::1'],
    ['2001:db8::/64', '2001:db8::ffff'],
    ['2001:0DB8::/32', '2001:db8:ffff:1::1'],
    ['2001:db8::1%eth0', '2001:db8::2'],
    ['203.0.113.7', '::ffff:203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['64:ff9b::203.0.113.7', '203.0.113.7'],
    ['203.0.113.0/24', '203.0.113.255'],
    ['0.0.0.0/0', '198.51.100.1'],
    ['::/0', '2001:db8::1'],
  ])('a denied %s does not pass as %s', async (entry, address) => {
    expect(await from(limited({ maxRequests: 9, deny: [`address:${entry}`] }), address)).toEqual([403]);
    expect(await from(limited({ maxRequests: 1, allow: [`address:${entry}`] }), address, address)).toEqual([200, 200]);
  });

  test('neighbours are not meant', async () => {
    const deny = ['address:2001:db8::1', 'address:203.0.113.0/25', 'address:::/96', 'address:198.51.100.7'];
    const neighbours = ['2001:db8:0:1::1', '203.0.113.128', '::ffff:203.0.113.200', '198.51.100.8', '2001:db9::'];
    const get = limited({ maxRequests: 9, deny });
    expect(await from(get, ...neighbours)).toEqual(neighbours.map(() => 200));
  });

  test('identities of an app’s own are compared in one spelling, too', async () => {
    const identity = (c: { req: { header(name: string): string | undefined } }) => c.req.header('X-Who') ?? '';
    const deny = ['address:2001:db8::1 account:Ada@Example.com', 'team:A'];
    const get = limited({ maxRequests: 9, identity, deny });
    const asked = ['address:2001:DB8:0::9 account:ADA@example.com', 'team:A', 'team:a', 'address:1.2.3.4'];
    const seen: number[] = [];
    for (const who of asked) seen.push((await get({ 'X-Who': who })).status);
    expect(seen).toEqual([403, 403, 200, 200]);
  });

  test('count, look and forget in any spelling', async () => {
    const policy = { name: freshName(), limits: [slidingWindow(5, HOUR)] };
    const spellings = ['address:2001:db8::1', 'address:2001:DB8:0:0:0:0:0:2', 'address:2001:db8:0:0::/64'];
    await inRequest(async () => {
      for (const identity of spellings)
        expect((await RateLimitService.consume({ policy, identity })).allowed).toBe(true);
      for (const identity of spellings) {
        expect((await RateLimitService.peek(policy, identity))[0]?.remaining).toBe(2);
      }
      await RateLimitService.penalty(policy, spellings[1]!, 2);
      expect((await RateLimitService.peek(policy, spellings[0]!))[0]?.remaining).toBe(0);
      await RateLimitService.reset(policy, 'address:2001:db8::ffff');
      expect((await RateLimitService.peek(policy, spellings[2]!))[0]?.remaining).toBe(5);
    });
  });
});

test.each(['a"b', 'é', 'a\nb', 'a\rb', 'a\\b', 'a b', 'a,b', 'a;b', '', 'a:{b}', '\u0000', 'a'.repeat(101), '名'])(
  'a limiter named %j does not start: it would break every response’s headers',
  (name) => {
    const window = { windowMs: 1_000, maxRequests: 1 };
    expect(() => rateLimiter({ ...window, name })).toThrow('1 to 100 letters, digits');
    expect(() => rateLimiter({ name, limit: (limits) => limits.api })).toThrow('1 to 100 letters, digits');
    expect(() => rateLimiter({ name, windows: [window] })).toThrow('1 to 100 letters, digits');
    expect(() => exactRatelimit({ name, limits: [slidingWindow(1, 1_000)] })).toThrow('1 to 100 letters, digits');
    expect(() => {
      @Controller('/named')
      @RateLimit({ ...window, name })
      class Named {
        @Get('/')
        get() {
          return new Response();
        }
      }
      return controllerRoutes(new Named());
    }).toThrow('1 to 100 letters, digits');
  },
);

test.each(['address:1.2.3.4:80', 'address:gggg::1', 'address:', 'address:1.2.3.4/33', 'address:::/129', 'address:x'])(
  'a limiter that allows or denies %s does not start: it could match no caller',
  (entry) => {
    const window = { windowMs: 1_000, maxRequests: 1 };
    expect(() => rateLimiter({ ...window, deny: [entry] })).toThrow('deny has an entry that can match no identity');
    expect(() => rateLimiter({ ...window, allow: ['user:1', entry] })).toThrow('allow has an entry');
  },
);
