import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { configOf } from '../../../src/config/env';
import { createRedisClient } from '../../../src/redis/client';
import type { Command, RedisClient, RedisValue, Reply } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { parseRevocation } from '../../../src/services/blacklist/reply';
import type { AccessClaims } from '../../../src/services/token/accessToken';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

/** What Redis does, and what D1 is asked. */
const redis = {
  away: false,
  /** Checks for revoked tokens that were answered, or refused. */
  checks: 0,
  /** Replaces what Redis says to a command. */
  say: undefined as ((command: Command) => RedisValue | undefined) | undefined,
};
const d1 = {
  trips: 0,
  /** Queries that have run, whether or not their results have arrived. */
  ran: 0,
  /** Awaited before a result arrives: the query itself has run. */
  hold: undefined as Promise<void> | undefined,
  /** What each query fails with. */
  error: undefined as Error | undefined,
};

const DB = tappedD1(async (query) => {
  d1.trips += 1;
  const { hold, error } = d1;
  if (error !== undefined) throw error;
  const result = await query();
  d1.ran += 1;
  await hold;
  return result;
});

const { url, token: redisToken } = configOf(bindings()).redis;
const real = createRedisClient({ url, token: redisToken });
const client: RedisClient = {
  async execute(commands) {
    const checks = commands.filter(([name]) => name === 'HMGET').length;
    if (redis.away) {
      redis.checks += checks;
      throw new RedisUnavailable('refused');
    }
    const replies = await real.execute(commands);
    redis.checks += checks;
    return replies.map((reply, index): Reply => {
      const said = redis.say?.(commands[index]!);
      return said === undefined ? reply : { value: said };
    });
  },
};

const bound = bindings({
  DB,
  DATABASE_LOOKUPS_MAX: '3',
  BREAKER_MIN_CALLS: '1000000',
  REDIS_GUARD_DEADLINE_MS: '5000',
});
/** An isolate that knows nothing yet, and a way to call it. */
function fresh() {
  const isolate = isolateFor(bound, { client });
  return { isolate, call: callerOf(createApp({ isolate }), bound) };
}
let { isolate, call } = fresh();

interface Session {
  access: string;
  userId: string;
  sessionId: string;
  claims: AccessClaims;
}

let count = 0;

async function newSession(): Promise<Session> {
  count += 1;
  const email = `cost${count}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', {
    body: { email, password: 'correct horse battery', name: `Cost ${count}` },
  });
  const access = (body as { access_token: string }).access_token;
  const claims = await inRequest(({ services }) => services.token.verifyAccess(access), { isolate });
  return { access, claims, userId: claims.userId, sessionId: claims.sessionId };
}

const me = ({ access }: Session, from = call) => from('GET', '/v1/users/me', { token: access });
/** As another isolate would, whose message Redis has not got. */
const endInDatabase = ({ sessionId }: Session) =>
  env.DB.prepare(`update sessions set ended_at_ms = ?, ended_reason = 'logout' where id = ?`)
    .bind(Date.now(), sessionId)
    .run();
const forget = (...keys: string[]) => inRequest(({ batch }) => batch.send('UNLINK', ...keys), { isolate });

/** D1 has been asked, and has made up its result. */
async function queried(): Promise<void> {
  while (d1.ran === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}

function gate() {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, open: resolve };
}

beforeEach(() => {
  Object.assign(redis, { away: false, checks: 0, say: undefined });
  Object.assign(d1, { trips: 0, ran: 0, hold: undefined, error: undefined });
  ({ isolate, call } = fresh());
});

describe('a reply of the wrong shape', () => {
  const garbage: [string, RedisValue][] = [
    ['zero', 0],
    ['one', 1],
    ['an empty text', ''],
    ['OK', 'OK'],
    ['HTML', '<html>no such page</html>'],
    ['nothing', null],
    ['no elements', []],
    ['zeros', [0, 0, 0, 0]],
    ['zeros as text', ['0', '0', '0', '0']],
    ['ones as text', ['1', '1', '1', '1']],
    ['empty texts', ['', '', '', '']],
    ['text of something else', ['<html>', 'a', 'b', 'c']],
    ['too few', ['1', '1', null]],
    ['too many', ['1', '1', null, null, null]],
    ['numbers', [1, 1, null, null]],
    ['an array within', ['1', '1', [], null]],
    ['a denial that is no time', ['1', '1', 'yes', null]],
    ['a version below zero', ['-1', '1', null, null]],
    ['a version that is no integer', ['1.5', '1', null, null]],
    ['a version in the exponential form', ['1e3', '1', null, null]],
  ];

  test.each(garbage)('is no verdict, and is not remembered: %s', async (_, reply) => {
    const [good, ended] = [await newSession(), await newSession()];
    await endInDatabase(ended);
    redis.say = ([name]) => (name === 'HMGET' ? reply : undefined);
    const answer = await me(good);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('Gatehouse-Degraded')).toContain('revocation=d1');
    expect(await me(ended)).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    redis.say = undefined;
    const later = await me(good);
    expect(later.status).toBe(200);
    expect(later.headers.get('Gatehouse-Degraded')).toBeNull();
  });

  test('in place of everything ends no session, admits no revoked token, and loses no cached value', async () => {
    const [good, ended] = [await newSession(), await newSession()];
    await endInDatabase(ended);
    for (const reply of [0, 1, '', 'OK', '<html>', [], [null], [[]], ['ok', 'x', 'y', 'z', 'admin'], ['revoked', 1]]) {
      redis.say = () => reply;
      const { status, body } = await me(good);
      expect({ reply, status }).toEqual({ reply, status: 200 });
      expect(body).toMatchObject({ id: good.userId, name: expect.stringMatching(/^Cost/) });
      expect((await me(ended)).status).toBe(401);
      redis.say = undefined;
      expect(await me(good)).toMatchObject({ status: 200, body: { id: good.userId } });
    }
  });

  test('of the form that scripts write is taken at its word', () => {
    expect(parseRevocation(['3', '2', null, null])).toEqual({ epoch: 3, accessVersion: 2, denied: undefined });
    expect(parseRevocation([null, null, null, null])).toEqual({ epoch: null, accessVersion: 0, denied: undefined });
    expect(parseRevocation(['3', '2', '1764093302000', null])).toMatchObject({ denied: 'revoked' });
    expect(parseRevocation([null, null, null, '1764093302000'])).toMatchObject({ denied: 'revoked' });
    expect(parseRevocation([null, null, null, '1764093302001'])).toMatchObject({ denied: 'superseded' });
    expect(parseRevocation([null, null, '1764093302000', '1764093302001'])).toMatchObject({ denied: 'revoked' });
  });
});

describe('with Redis away', () => {
  test('a guarded read costs D1 one query', async () => {
    const session = await newSession();
    redis.away = true;
    for (let round = 0; round < 3; round += 1) {
      d1.trips = 0;
      const { status, body } = await me(session);
      expect(status).toBe(200);
      expect(body).toMatchObject({ id: session.userId });
      expect(d1.trips).toBe(1);
    }
  });

  test('parallel reads of one session share it', async () => {
    const session = await newSession();
    redis.away = true;
    d1.trips = 0;
    const held = gate();
    d1.hold = held.promise;
    redis.checks = 0;
    const reads = Array.from({ length: 50 }, () => me(session));
    // All of them have come to the point where D1 must be asked.
    while (redis.checks < 50) await new Promise((resolve) => setTimeout(resolve, 1));
    held.open();
    for (const { status } of await Promise.all(reads)) expect(status).toBe(200);
    // The first one's, and what those that came while it ran load together.
    expect(d1.trips).toBeLessThanOrEqual(5);
  });

  test('no more lookups than the setting says are under way; the others get a 503 with Retry-After', async () => {
    const sessions = await Promise.all(Array.from({ length: 5 }, newSession));
    redis.away = true;
    d1.trips = 0;
    const held = gate();
    d1.hold = held.promise;
    const reads = sessions.map((session) => me(session));
    const refused = await Promise.race(reads);
    expect(refused).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
    expect(Number(refused.headers.get('Retry-After'))).toBeGreaterThan(0);
    held.open();
    const statuses = (await Promise.all(reads)).map(({ status }) => status).sort((a, b) => a - b);
    expect(statuses).toEqual([200, 200, 200, 503, 503]);
    expect(d1.trips).toBe(3);
    // What has ended makes room.
    d1.hold = undefined;
    expect((await me(sessions[4]!)).status).toBe(200);
  });

  test('D1’s word counts from when it was asked, not from when it arrived', async () => {
    const session = await newSession();
    redis.away = true;
    const clock = { ms: Date.now() };
    const check = () =>
      inRequest(({ services }) => services.blacklist.check(session.claims), { isolate, db: DB, now: () => clock.ms });
    const held = gate();
    Object.assign(d1, { hold: held.promise, ran: 0 });
    const first = check();
    // It has been asked; the session ends; the response takes its time.
    await queried();
    await endInDatabase(session);
    clock.ms += 900;
    held.open();
    d1.hold = undefined;
    expect(await first).toBe('valid');
    clock.ms += 99;
    expect(await check()).toBe('valid');
    clock.ms += 1;
    expect(await check()).toBe('revoked');
  });

  test('a user’s row that an earlier request has read is not shown after a change elsewhere', async () => {
    const session = await newSession();
    redis.away = true;
    expect(await me(session)).toMatchObject({ status: 200 });
    await env.DB.prepare('update users set name = ? where id = ?').bind('Renamed', session.userId).run();
    expect(await me(session)).toMatchObject({ status: 200, body: { name: 'Renamed' } });
  });

  test('a change by the request itself is seen by it', async () => {
    const session = await newSession();
    redis.away = true;
    await inRequest(
      async ({ services }) => {
        expect(await services.blacklist.check(session.claims)).toBe('valid');
        await services.user.updateUser(session.userId, { name: 'Anew' });
        expect(await services.user.getUser(session.userId)).toMatchObject({ name: 'Anew' });
        // Back, so that the outbox need not retry for long.
        redis.away = false;
      },
      { isolate, db: DB },
    );
  });
});

describe('with a user’s hash and entry lost', () => {
  test('a guarded read costs D1 one batch, and Redis has both again', async () => {
    const session = await newSession();
    await me(session);
    await forget(isolate.keys.blacklist(session.userId), isolate.keys.user(session.userId));
    d1.trips = 0;
    expect(await me(session)).toMatchObject({ status: 200, body: { id: session.userId } });
    expect(d1.trips).toBe(1);
    const again = await me(session);
    expect(again.headers.get('Gatehouse-Degraded')).toBeNull();
    expect(d1.trips).toBe(1);
  });

  test('parallel reads share lookups', async () => {
    const session = await newSession();
    await forget(isolate.keys.blacklist(session.userId), isolate.keys.user(session.userId));
    d1.trips = 0;
    const held = gate();
    d1.hold = held.promise;
    redis.checks = 0;
    const reads = Array.from({ length: 50 }, () => me(session));
    // All of them have come to the point where D1 must be asked.
    while (redis.checks < 50) await new Promise((resolve) => setTimeout(resolve, 1));
    held.open();
    for (const { status } of await Promise.all(reads)) expect(status).toBe(200);
    // One more for each second that the checks of a busy machine take.
    expect(d1.trips).toBeLessThanOrEqual(5);
  });

  test('a revocation that was acknowledged before the request counts, whatever lookup is under way', async () => {
    const session = await newSession();
    await forget(isolate.keys.blacklist(session.userId));
    const held = gate();
    Object.assign(d1, { hold: held.promise, ran: 0 });
    const before = me(session);
    await queried();
    await endInDatabase(session);
    const after = me(session);
    held.open();
    d1.hold = undefined;
    expect((await before).status).toBe(200);
    expect(await after).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
  });

  test('the row that fills the cache is not older than the look at the cache', async () => {
    const session = await newSession();
    await forget(isolate.keys.blacklist(session.userId), isolate.keys.user(session.userId));
    // The check reads the row; then the user is renamed and that is published; then the cache is looked at.
    await inRequest(
      async ({ services }) => {
        expect(await services.blacklist.check(session.claims)).toBe('valid');
        await inRequest(({ services: other }) => other.user.updateUser(session.userId, { name: 'Later' }), {
          isolate: isolateFor(bound),
        });
        expect(await services.user.getUser(session.userId)).toMatchObject({ name: 'Later' });
      },
      { isolate, db: DB },
    );
    expect(await me(session)).toMatchObject({ body: { name: 'Later' } });
  });
});

describe('a failure of D1 while Redis cannot decide is no 401, and is not remembered', () => {
  const failures: [string, Error, number][] = [
    ['D1 is away', new Error('D1_ERROR: Network connection lost.'), 503],
    ['D1 is overloaded', new Error('D1_ERROR: D1 DB is overloaded. Too many requests queued.'), 503],
    ['a table is missing', new Error('D1_ERROR: no such table: users: SQLITE_ERROR'), 500],
  ];

  test.each(failures)('Redis is away: %s', async (_, error, status) => {
    const session = await newSession();
    redis.away = true;
    d1.error = error;
    const responses = await Promise.all(Array.from({ length: 8 }, () => me(session)));
    expect(responses.map((response) => response.status)).toEqual(Array(8).fill(status));
    d1.error = undefined;
    expect(await me(session)).toMatchObject({ status: 200, body: { id: session.userId } });
  });

  test.each(failures)('Redis has lost the user: %s', async (_, error, status) => {
    const session = await newSession();
    await forget(isolate.keys.blacklist(session.userId), isolate.keys.user(session.userId));
    d1.error = error;
    const responses = await Promise.all(Array.from({ length: 8 }, () => me(session)));
    expect(responses.map((response) => response.status)).toEqual(Array(8).fill(status));
    d1.error = undefined;
    expect(await me(session)).toMatchObject({ status: 200, body: { id: session.userId } });
  });
});
