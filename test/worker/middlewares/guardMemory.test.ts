import type { Hono } from 'hono';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { authenticate, requireRole } from '../../../src/middlewares/auth.middleware';
import { reads } from '../../../src/middlewares/reads.middleware';
import { check } from '../../../src/middlewares/check';
import { guard } from '../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../src/middlewares/rateLimiter.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { RateLimitService, slidingWindow } from '../../../src/services/rateLimit.service';
import { UserService } from '../../../src/services/user.service';
import { memoryIsolate, namesOf } from '../support/memory';
import type { Clock } from '../support/memory';
import { bindings, inRequest } from '../support/request';

const WITHIN_MS = 1_000;
const clock: Clock = { nowMs: Date.now() };
/** The app with the setting for its own reads. */
const isolateOf = () => memoryIsolate(clock, { READS_WITHIN_MS: String(WITHIN_MS) });
type IsolateUnderTest = ReturnType<typeof isolateOf>;

let people = 0;
async function register({ visit }: IsolateUnderTest) {
  people += 1;
  const [email, password] = [`busy${people}@example.com`, 'correct horse battery'];
  const body = { email, password, name: `Person ${people}` };
  const { body: made } = await visit('/v1/auth/register', { body });
  return { id: made.user.id as string, email, password, token: made.access_token as string, name: body.name };
}

/** Long enough ago that nothing is remembered. */
const later = (ms = 10_000) => (clock.nowMs += ms);

// Scripts, the sentinel and the server's time are known after this.
beforeAll(async () => {
  const isolate = isolateOf();
  const { token } = await register(isolate);
  await isolate.visit('/v1/users/me', { token });
});

beforeEach(() => {
  later();
});

describe('counts', () => {
  test.each([5, 95])('10 requests within a second, %d ms apart: 1 blocking trip, 2 in all', async (apartMs) => {
    const isolate = isolateOf();
    const { token, name } = await register(isolate);
    await isolate.visit('/v1/users/me', { token });
    later();
    const visits = [];
    for (let i = 0; i < 10; i += 1) {
      visits.push(await isolate.visit('/v1/users/me', { token }));
      clock.nowMs += apartMs;
    }
    expect(visits.map(({ status, body }) => [status, body.name])).toEqual(visits.map(() => [200, name]));
    expect(visits.flatMap(({ blocking }) => blocking)).toHaveLength(1);
    expect(visits.flatMap(({ blocking, after }) => [...blocking, ...after]).length).toBeLessThanOrEqual(2);
    expect(visits.map(({ fromMemory }) => fromMemory)).toEqual(visits.map((_, index) => index > 0));
    // What was leased before goes back; the limit of this request, units for the next ones; the token, the entry.
    expect(namesOf(visits[0]!.blocking)).toEqual([['EVALSHA', 'EVALSHA', 'EVALSHA', 'HMGET', 'MGET']]);
  });

  test('a cold isolate: the value that the first request has loaded serves the next ones', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    const visits = [];
    for (let i = 0; i < 10; i += 1) visits.push(await isolate.visit('/v1/users/me', { token }));
    expect(visits.map(({ fromMemory }) => fromMemory)).toEqual(visits.map((_, index) => index > 0));
  });

  test('10 requests a second for 20 s: one blocking trip, at most half a command a request', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    await isolate.visit('/v1/users/me', { token });
    later();
    let [blocking, commands, requests] = [0, 0, 0];
    for (; requests < 200; requests += 1) {
      const visit = await isolate.visit('/v1/users/me', { token });
      expect(visit.status).toBe(200);
      blocking += visit.blocking.length;
      commands += [...visit.blocking, ...visit.after].flat().length;
      clock.nowMs += 100;
    }
    expect(blocking).toBe(1);
    expect(commands / requests).toBeLessThanOrEqual(0.5);
  });

  test('the questions of several callers that are due leave as one pipeline, after a response', async () => {
    const isolate = isolateOf();
    const callers = [];
    for (let i = 0; i < 4; i += 1) callers.push(await register(isolate));
    for (const { token } of callers) await isolate.visit('/v1/users/me', { token });
    clock.nowMs += 800;
    // All four find their memory due while the pipeline of the first is under way, or before it left.
    const visits = await Promise.all(callers.map(({ token }) => isolate.visit('/v1/users/me', { token })));
    expect(visits.every(({ fromMemory }) => fromMemory)).toBe(true);
    const last = await isolate.visit('/v1/users/me', { token: callers[0]!.token });
    const pipelines = [...visits.flatMap(({ after }) => after), ...last.after];
    expect(new Set(pipelines).size).toBeLessThanOrEqual(2);
    clock.nowMs += 500;
    for (const { token } of callers) expect((await isolate.visit('/v1/users/me', { token })).fromMemory).toBe(true);
  });
});

describe('bounds', () => {
  test('a revocation by another isolate counts after the bound, for busy callers too', async () => {
    const [here, elsewhere] = [isolateOf(), isolateOf()];
    const { token } = await register(here);
    expect((await here.visit('/v1/users/me', { token })).status).toBe(200);
    clock.nowMs += 300;
    expect((await elsewhere.visit('/v1/auth/logout', { token, method: 'POST' })).status).toBe(204);
    const revokedAtMs = clock.nowMs;
    const accepted: number[] = [];
    for (let i = 0; i < 30; i += 1) {
      if ((await here.visit('/v1/users/me', { token })).status === 200) accepted.push(clock.nowMs - revokedAtMs);
      clock.nowMs += 100;
    }
    expect(accepted.length).toBeGreaterThan(0);
    expect(Math.max(...accepted)).toBeLessThan(WITHIN_MS);
  });

  test('a revocation by this isolate counts at once', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    for (let i = 0; i < 3; i += 1) expect((await isolate.visit('/v1/users/me', { token })).status).toBe(200);
    expect((await isolate.visit('/v1/auth/logout', { token, method: 'POST' })).status).toBe(204);
    expect((await isolate.visit('/v1/users/me', { token })).body.code).toBe('TOKEN_REVOKED');
  });

  test('a change counts at once in the isolate that made it, and after the bound in others', async () => {
    const [here, elsewhere] = [isolateOf(), isolateOf()];
    const { token } = await register(here);
    for (const isolate of [here, elsewhere]) {
      for (let i = 0; i < 3; i += 1) await isolate.visit('/v1/users/me', { token });
    }
    await here.visit('/v1/users/me', { token, method: 'PATCH', body: { name: 'Changed' } });
    expect((await here.visit('/v1/users/me', { token })).body.name).toBe('Changed');
    clock.nowMs += WITHIN_MS;
    expect((await elsewhere.visit('/v1/users/me', { token })).body.name).toBe('Changed');
  });

  test('a changed role counts at once here, after the bound elsewhere', async () => {
    const [here, elsewhere] = [isolateOf(), isolateOf()];
    const { id, token } = await register(here);
    for (const isolate of [here, elsewhere]) expect((await isolate.visit('/v1/users/me', { token })).status).toBe(200);
    await inRequest(() => UserService.updateUser(id, { role: 'admin' }), {
      isolate: here.isolate,
      now: () => clock.nowMs,
    });
    expect((await here.visit('/v1/users/me', { token })).body.code).toBe('TOKEN_SUPERSEDED');
    clock.nowMs += WITHIN_MS;
    expect((await elsewhere.visit('/v1/users/me', { token })).body.code).toBe('TOKEN_SUPERSEDED');
  });

  test('with Redis away memory is used up to its bound, and a fallback is not remembered', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    expect((await isolate.visit('/v1/users/me', { token })).status).toBe(200);
    isolate.redis.isAway = true;
    clock.nowMs += WITHIN_MS - 1;
    const inside = await isolate.visit('/v1/users/me', { token });
    expect([inside.status, inside.fromMemory, inside.headers.get('Gatehouse-Degraded')]).toEqual([200, true, null]);
    clock.nowMs += 1;
    for (let i = 0; i < 3; i += 1) {
      const outside = await isolate.visit('/v1/users/me', { token });
      expect([outside.status, outside.fromMemory]).toEqual([200, false]);
      expect(outside.headers.get('Gatehouse-Degraded')).toContain('revocation=d1');
    }
  });

  test('a flushed Redis: after the bound D1 is asked', async () => {
    const isolate = isolateOf();
    const { id, token } = await register(isolate);
    for (let i = 0; i < 2; i += 1) await isolate.visit('/v1/users/me', { token });
    await inRequest(async ({ batch }) => batch.send('UNLINK', isolate.isolate.keys.blacklist(id)));
    expect((await isolate.visit('/v1/users/me', { token })).fromMemory).toBe(true);
    clock.nowMs += WITHIN_MS;
    const asked = await isolate.visit('/v1/users/me', { token });
    expect([asked.status, asked.headers.get('Gatehouse-Degraded')]).toEqual([200, 'revocation=unknown']);
    // What D1 said is not remembered as if Redis had said it.
    expect((await isolate.visit('/v1/users/me', { token })).blocking).toHaveLength(1);
  });

  test('a clock that was set back ends the memory', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    await isolate.visit('/v1/users/me', { token });
    clock.nowMs -= 1;
    expect((await isolate.visit('/v1/users/me', { token })).fromMemory).toBe(false);
  });
});

describe('nothing of one user reaches another', () => {
  test('two users, interleaved', async () => {
    const isolate = isolateOf();
    const people = [await register(isolate), await register(isolate)];
    for (let i = 0; i < 8; i += 1) {
      const { token, id, name } = people[i % 2]!;
      const { body } = await isolate.visit('/v1/users/me', { token });
      expect([body.id, body.name]).toEqual([id, name]);
    }
  });

  test('another token, session or user is asked about by itself', async () => {
    const isolate = isolateOf();
    const one = await register(isolate);
    for (let i = 0; i < 2; i += 1) await isolate.visit('/v1/users/me', { token: one.token });
    const login = { email: one.email, password: one.password };
    const other = (await isolate.visit('/v1/auth/login', { body: login })).body.access_token as string;
    const first = await isolate.visit('/v1/users/me', { token: other });
    expect([first.body.id, first.fromMemory]).toEqual([one.id, false]);
    expect((await isolate.visit('/v1/users/me', { token: other })).fromMemory).toBe(true);
    // One of the two ends; the other goes on.
    expect((await isolate.visit('/v1/auth/logout', { token: other, method: 'POST' })).status).toBe(204);
    expect((await isolate.visit('/v1/users/me', { token: other })).status).toBe(401);
    expect((await isolate.visit('/v1/users/me', { token: one.token })).body.id).toBe(one.id);
    const at = one.token.length - 20;
    const broken = one.token.slice(0, at) + (one.token[at] === 'A' ? 'B' : 'A') + one.token.slice(at + 1);
    expect((await isolate.visit('/v1/users/me', { token: broken })).status).toBe(401);
  });

  test('a user without the role is refused, also where one with it is remembered', async () => {
    const isolate = isolateOf();
    const { token } = await register(isolate);
    await isolate.visit('/v1/users/me', { token });
    for (let i = 0; i < 3; i += 1) expect((await isolate.visit('/v1/users', { token })).status).toBe(403);
  });
});

describe('limits', () => {
  const limited = (maxRequests: number, name: string) =>
    memoryIsolate(clock, {}, (app) =>
      app
        .get('/', guard({ within: WITHIN_MS }, rateLimiter({ maxRequests, windowMs: 60_000, name })), (c) =>
          c.text('in'),
        )
        .get('/strict', rateLimiter({ maxRequests, windowMs: 60_000, name }), (c) => c.text('in')),
    );
  let names = 0;
  const fresh = () => `memory${(names += 1)}.${Date.now()}`;
  const peek = (name: string, maxRequests: number) =>
    inRequest(
      () => RateLimitService.peek({ name, limits: [slidingWindow(maxRequests, 60_000)] }, 'address:203.0.113.9'),
      {
        isolate: limited(maxRequests, name).isolate,
        now: () => clock.nowMs,
      },
    );

  test('a caller near the limit asks for each request, and exactly the limit is admitted', async () => {
    const name = fresh();
    const isolate = limited(40, name);
    const statuses: number[] = [];
    let lastFromMemory = 0;
    for (let i = 0; i < 45; i += 1) {
      const visit = await isolate.visit('/');
      statuses.push(visit.status);
      if (visit.fromMemory) lastFromMemory = i;
    }
    expect(statuses.filter((status) => status === 200)).toHaveLength(40);
    expect(statuses.slice(40)).toEqual([429, 429, 429, 429, 429]);
    expect(lastFromMemory).toBeGreaterThan(10);
    expect(lastFromMemory).toBeLessThanOrEqual(33);
  });

  test('RateLimit never promises more than there is', async () => {
    const name = fresh();
    const isolate = limited(100, name);
    for (let i = 0; i < 30; i += 1) {
      const { headers } = await isolate.visit('/');
      const [, promised] = /;r=(\d+)/.exec(headers.get('RateLimit') ?? '') ?? [];
      const [quota] = await peek(name, 100);
      expect(Number(promised)).toBeLessThanOrEqual(Math.max(quota!.remaining, 0) + 10);
      expect(Number(promised)).toBeLessThanOrEqual(99 - i);
      clock.nowMs += 40;
    }
  });

  test('RateLimit’s time is at most the window, though Redis counts leased units from the end of their lease', async () => {
    const name = fresh();
    const isolate = limited(100, name);
    const { headers } = await isolate.visit('/');
    expect(headers.get('RateLimit')).toBe(`"${name}";r=90;t=60`);
  });

  test('units that were not used go back, with another caller’s response', async () => {
    const name = fresh();
    const isolate = limited(100, name);
    await isolate.visit('/');
    expect((await peek(name, 100))[0]!.remaining).toBe(90);
    clock.nowMs += WITHIN_MS + 2_000;
    await isolate.visit('/strict', { address: '203.0.113.77' });
    expect((await peek(name, 100))[0]!.remaining).toBe(99);
  });

  test('units go back before the counter is asked again', async () => {
    const name = fresh();
    const isolate = limited(100, name);
    await isolate.visit('/');
    clock.nowMs += WITHIN_MS;
    const again = await isolate.visit('/');
    expect(namesOf(again.blocking)).toEqual([['EVALSHA', 'EVALSHA', 'EVALSHA']]);
    // Two requests, and the next lease.
    expect((await peek(name, 100))[0]!.remaining).toBe(89);
  });

  test('a caller who comes slowly gets no leases', async () => {
    const isolate = limited(100, fresh());
    let commands: (string | undefined)[][] = [];
    for (let i = 0; i < 8; i += 1) {
      commands = namesOf((await isolate.visit('/')).blocking);
      clock.nowMs += 3_000;
    }
    expect(commands).toEqual([['EVALSHA']]);
  });

  test('a reset, a penalty and a refusal by this isolate count at once', async () => {
    const name = fresh();
    const isolate = limited(100, name);
    const policy = { name, limits: [slidingWindow(100, 60_000)] };
    const here = { isolate: isolate.isolate, now: () => clock.nowMs };
    for (let i = 0; i < 3; i += 1) await isolate.visit('/');
    await inRequest(() => RateLimitService.penalty(policy, 'address:203.0.113.9', 100), here);
    expect((await isolate.visit('/')).status).toBe(429);
    expect((await isolate.visit('/')).status).toBe(429);
    await inRequest(() => RateLimitService.reset(policy, 'address:203.0.113.9'), here);
    const first = await isolate.visit('/');
    expect([first.status, first.fromMemory]).toEqual([200, false]);
  });

  test('a charge by outcome and a refusal by a later check give leased units back', async () => {
    const name = fresh();
    const no = check({
      name: 'no',
      requires: 'auth' as const,
      prepare: () => () => undefined,
      recall: () => undefined,
    });
    const isolate = memoryIsolate(clock, {}, (app) => {
      const free = rateLimiter({
        maxRequests: 100,
        windowMs: 60_000,
        name,
        charge: (c) => (c.res.status === 404 ? 0 : 1),
      });
      app.get('/free', guard({ within: WITHIN_MS }, free), (c) => c.text('gone', 404));
      const counted = rateLimiter({ maxRequests: 100, windowMs: 60_000, name: `${name}.2` });
      app.get('/later', guard({ within: WITHIN_MS }, authenticate(), requireRole('admin'), counted), (c) =>
        c.text('in'),
      );
    });
    expect(() => guard(no)).toThrow('needs authenticate()');
    for (let i = 0; i < 30; i += 1) expect((await isolate.visit('/free')).status).toBe(404);
    const { token } = await register(isolateOf());
    for (let i = 0; i < 30; i += 1) expect((await isolate.visit('/later', { token })).status).toBe(403);
    clock.nowMs += 4_000;
    await isolate.visit('/free', { address: '203.0.113.78' });
    expect((await peek(name, 100))[0]!.remaining).toBe(100);
  });

  test('a charge after the lease that paid for the request was given back counts in full', async () => {
    const name = fresh();
    const { visit, isolate: here } = memoryIsolate(clock, {}, (app) => {
      const charge = (c: { res: Response }) => (c.res.status === 401 ? 5 : 1);
      const limiter = rateLimiter({ maxRequests: 100, windowMs: 60_000, name, charge });
      app.get('/', guard({ within: WITHIN_MS }, limiter), (c) => {
        if (c.req.query('wrong') === undefined) return c.text('in');
        // As a refusal or an outage beside this request would.
        const key = RateLimitService.keyOf({ name, limits: [slidingWindow(100, 60_000)] }, 'address:203.0.113.9');
        here.memory.leases.drop(key.key, clock.nowMs);
        return c.text('wrong', 401);
      });
    });
    await visit('/');
    expect(await visit('/?wrong=1')).toMatchObject({ status: 401, fromMemory: true });
    clock.nowMs += 4_000;
    await visit('/', { address: '203.0.113.78' });
    expect((await peek(name, 100))[0]!.remaining).toBe(100 - 1 - 5);
  });

  test('a token bucket, whose burst a lease would add to, is asked each time', async () => {
    const isolate = memoryIsolate(clock, {}, (app) => {
      const bucket = rateLimiter({ maxRequests: 100, windowMs: 60_000, name: fresh(), algorithm: 'token-bucket' });
      app.get('/', guard({ within: WITHIN_MS }, bucket), (c) => c.text('in'));
    });
    for (let i = 0; i < 4; i += 1) expect((await isolate.visit('/')).blocking).toHaveLength(1);
  });

  test('a lease pays only under the limits that it was granted under', async () => {
    const name = fresh();
    const isolate = memoryIsolate(clock, {}, (app) => {
      const route = (path: string, maxRequests: number) =>
        app.get(path, guard({ within: WITHIN_MS }, rateLimiter({ maxRequests, windowMs: 60_000, name })), (c) =>
          c.text('in'),
        );
      route('/wide', 1_000);
      route('/narrow', 20);
    });
    for (let i = 0; i < 25; i += 1) expect((await isolate.visit('/wide')).status).toBe(200);
    expect((await isolate.visit('/narrow')).status).toBe(429);
  });

  test('two limiters in one guard, on one counter, and two guards on one route', async () => {
    const name = fresh();
    const isolate = memoryIsolate(clock, {}, (app) => {
      const same = () => rateLimiter({ maxRequests: 100, windowMs: 60_000, name });
      app.get('/', guard({ within: WITHIN_MS }, same(), same()), (c) => c.text('in'));
      app.get('/stacked', guard({ within: WITHIN_MS }, same()), guard({ within: WITHIN_MS }, same()), (c) =>
        c.text('in'),
      );
    });
    for (let i = 0; i < 10; i += 1) expect((await isolate.visit('/')).status).toBe(200);
    for (let i = 0; i < 10; i += 1) expect((await isolate.visit('/stacked')).status).toBe(200);
    clock.nowMs += WITHIN_MS + 2_000;
    await isolate.visit('/', { address: '203.0.113.79' });
    expect((await peek(name, 100))[0]!.remaining).toBe(60);
  });
});

describe('an app’s own checks', () => {
  const within = (own: ReturnType<typeof check>) =>
    memoryIsolate(clock, {}, (app: Hono<AppEnv>) => {
      const read = reads((c) => UserService.keyOf(c.var.auth.userId));
      app.get('/', guard({ within: WITHIN_MS }, authenticate(), own, read), (c) => c.text('in'));
    });

  test('are strict: a guard that holds one always asks', async () => {
    let asked = 0;
    const own = check({
      name: 'own()',
      prepare: () => {
        asked += 1;
        return undefined;
      },
    });
    const { token } = await register(isolateOf());
    const isolate = within(own);
    for (let i = 0; i < 4; i += 1) expect((await isolate.visit('/', { token })).fromMemory).toBe(false);
    expect(asked).toBe(4);
  });

  test('are decided from their own memory when they opt in', async () => {
    const counts = { asked: 0, recalled: 0 };
    const own = check({
      name: 'own()',
      prepare(_, withinMs) {
        counts.asked += withinMs === WITHIN_MS ? 1 : 100;
        return undefined;
      },
      recall: () =>
        counts.asked === 0
          ? undefined
          : () => {
              counts.recalled += 1;
            },
    });
    const person = isolateOf();
    const { token } = await register(person);
    await person.visit('/v1/users/me', { token });
    const isolate = within(own);
    for (let i = 0; i < 4; i += 1) await isolate.visit('/', { token });
    expect(counts).toEqual({ asked: 1, recalled: 3 });
  });

  test('strict is the default', async () => {
    const isolate = memoryIsolate(clock);
    const { token } = await register(isolate);
    for (let i = 0; i < 4; i += 1) {
      const visit = await isolate.visit('/v1/users/me', { token });
      expect([visit.fromMemory, visit.blocking.length > 0]).toEqual([false, true]);
    }
    expect(isolate.isolate.memory.revocations.size + isolate.isolate.memory.leases.size).toBe(0);
  });
});

test('a guard with impossible options does not start', () => {
  const limiter = rateLimiter({ maxRequests: 10 });
  for (const within of [-1, 0.5, Number.NaN, 60_001]) {
    expect(() => guard({ within }, limiter)).toThrow('within must be a whole number');
  }
  expect(() => guard({ within: 1_000 })).toThrow('at least one check');
  expect(() => guard({ whithin: 1_000 } as never, limiter)).toThrow('no option whithin');
  expect(() => guard({ within: 1_000 }, { within: 1_000 } as never)).toThrow('takes checks only');
  expect(() => memoryIsolate(clock, { READS_WITHIN_MS: '90000' })).toThrow('READS_WITHIN_MS');
  expect(bindings()).not.toHaveProperty('READS_WITHIN_MS');
});
