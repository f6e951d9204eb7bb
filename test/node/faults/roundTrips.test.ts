import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer } from '../../support/client.ts';
import { degraded, endElsewhere, signedIn, startScene } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

/**
 * Every request to Redis takes this long here. When the response arrives, the calls that it waited for have their replies, and calls
 * that left beside or after it cannot have theirs yet.
 */
const DELAY_MS = 120;

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene({
    REDIS_GUARD_DEADLINE_MS: '5000',
    REDIS_AUTH_DEADLINE_MS: '5000',
    REDIS_CALL_TIMEOUT_MS: '5000',
    LIMIT_API: '40/10m',
    LIMIT_LOGIN_ADDRESS: '4/10m',
  });
  const { call } = scene;
  // Every script has run once, those that run after the answer too.
  user = await scene.newAccount();
  for (let round = 0; round < 2; round += 1) {
    user = { ...user, ...(await scene.signIn(user)) };
    const { body } = await call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } });
    user = { ...user, ...signedIn({ body, status: 200, headers: new Headers() }) };
    await call('GET', '/v1/users/me', { token: user.access });
    await scene.redis.idle();
  }
});
afterAll(() => scene[Symbol.asyncDispose]());
beforeEach(async () => {
  await scene.redis.clear();
  await scene.redis.idle();
});

interface Counted {
  answer: Answer;
  /** Requests to Redis that the answer waited for, and those that it did not. */
  blocking: number;
  deferred: number;
  commands: number;
}

/** Sends one request while Redis is slow, and counts what it cost. */
async function counted(send: () => Promise<Answer>): Promise<Counted> {
  const { redis } = scene;
  redis.mode = { kind: 'delay', ms: DELAY_MS };
  redis.reset();
  const answer = await send();
  const blocking = redis.counts.answered;
  await redis.idle();
  const { requests, commands } = redis.counts;
  return { answer, blocking, deferred: requests - blocking, commands };
}

const me = (token = user.access) => scene.call('GET', '/v1/users/me', { token });
const entryOf = (userId: string) => `app:user:{${userId}}`;

describe('round trips to Redis', () => {
  it('a guarded cached read that hits waits for one, and sends nothing else', async () => {
    await me();
    await scene.redis.idle();
    const { answer, blocking, deferred, commands } = await counted(me);
    expect(answer.status).toBe(200);
    expect(degraded(answer)).toBe('');
    expect({ blocking, deferred }).toEqual({ blocking: 1, deferred: 0 });
    // The limiter's script, the revocation check, and the entry with its tag version.
    expect(commands).toBe(3);
  });

  it('one that misses waits for one, and fills the cache in one more after the answer', async () => {
    await scene.redis.engine('UNLINK', entryOf(user.userId));
    const { answer, blocking, deferred } = await counted(me);
    expect(answer.body).toMatchObject({ id: user.userId });
    expect({ blocking, deferred }).toEqual({ blocking: 1, deferred: 1 });
    expect(await scene.redis.engine('EXISTS', entryOf(user.userId))).toBe(1);
  });

  it('the first read with new tokens confirms them after the answer, in the trip of the other deferred commands', async () => {
    const { body } = await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } });
    user = { ...user, ...signedIn({ body, status: 200, headers: new Headers() }) };
    await scene.redis.engine('UNLINK', entryOf(user.userId));
    await scene.redis.idle();
    const { blocking, deferred } = await counted(me);
    expect({ blocking, deferred }).toEqual({ blocking: 1, deferred: 1 });
  });

  it.each([
    ['no token', undefined, 'AUTHENTICATION_REQUIRED'],
    ['a token that is none', 'rubbish', 'INVALID_TOKEN'],
    ['a token without a signature', 'eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.AAAA', 'INVALID_TOKEN'],
  ])('a request with %s costs the limiter alone', async (_, token, code) => {
    const { answer, blocking, deferred, commands } = await counted(() =>
      scene.call('GET', '/v1/users/me', token === undefined ? {} : { token }),
    );
    expect(answer.body).toMatchObject({ code });
    expect({ blocking, deferred, commands }).toEqual({ blocking: 1, deferred: 0, commands: 1 });
  });

  it('a caller who is known to be limited costs none', async () => {
    const busy = await scene.newAccount();
    let answer = await me(busy.access);
    for (let sent = 1; answer.status === 200 && sent < 50; sent += 1) answer = await me(busy.access);
    expect(answer.status).toBe(429);
    await scene.redis.idle();

    const again = await counted(() => me(busy.access));
    expect(again.answer).toMatchObject({ status: 429, body: { code: 'RATE_LIMITED' } });
    expect(Number(again.answer.headers.get('Retry-After'))).toBeGreaterThan(0);
    expect(again).toMatchObject({ blocking: 0, deferred: 0, commands: 0 });
    expect(degraded(again.answer)).toBe('');
  });

  it('nor does one whom the second of two limiters is known to refuse, and the first is left alone', async () => {
    const call = clientOf(scene.app.url, '192.0.2.66');
    const login = () => call('POST', '/v1/auth/login', { body: { email: newcomer().email, password: 'guess no 1' } });
    let answer = await login();
    for (let sent = 1; answer.status === 401 && sent < 10; sent += 1) answer = await login();
    expect(answer).toMatchObject({ status: 429, body: { 'violated-policies': ['login-address'] } });
    await scene.redis.idle();

    const again = await counted(login);
    expect(again).toMatchObject({ blocking: 0, deferred: 0, answer: { status: 429 } });
    // Redis was not asked, which is not the same as Redis being away.
    expect(degraded(again.answer)).toBe('');
    expect(again.answer.headers.get('RateLimit')).not.toContain('"login"');
  });

  it.each([
    ['here', (gone: SignedIn) => scene.call('POST', '/v1/auth/logout', { token: gone.access })],
    ['elsewhere', (gone: SignedIn) => endElsewhere(scene, gone, { redisKnows: true })],
  ])('a token revoked %s is counted by the limiter, though it is refused each time', async (where, revoke) => {
    const gone = await scene.newAccount();
    await revoke(gone);
    // From an address of its own: a refused request may be counted by its address.
    const call = clientOf(scene.app.url, `192.0.2.${100 + where.length}`);
    const statuses = new Set<number>();
    for (let sent = 0; sent < 60; sent += 1) {
      statuses.add((await call('GET', '/v1/users/me', { token: gone.access })).status);
    }
    expect([...statuses]).toEqual([401, 429]);
  });

  it('a refresh waits for one, with its limiter', async () => {
    const { answer, blocking, commands } = await counted(() =>
      scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } }),
    );
    expect(answer.status).toBe(200);
    user = { ...user, ...signedIn(answer) };
    expect({ blocking, commands }).toEqual({ blocking: 1, commands: 2 });
  });

  it('being asked whether it is ready, often, asks the dependencies once a second', async () => {
    const { commands } = await counted(async () => {
      await Promise.all(Array.from({ length: 5 }, () => scene.call('GET', '/ready')));
      for (let asked = 0; asked < 20; asked += 1) await scene.call('GET', '/ready');
      return scene.call('GET', '/ready');
    });
    // PING and INFO of those that asked at once, and of a next second at most.
    expect(commands).toBeGreaterThanOrEqual(2);
    expect(commands).toBeLessThanOrEqual(2 * 6);
  });

  it('a login waits for at most two', async () => {
    const { email, password } = user;
    const { answer, blocking } = await counted(() =>
      clientOf(scene.app.url, '192.0.2.1')('POST', '/v1/auth/login', { body: { email, password } }),
    );
    expect(answer.status).toBe(200);
    expect(blocking).toBeLessThanOrEqual(2);
  });

  it('a registration waits for at most two', async () => {
    const { answer, blocking } = await counted(() =>
      clientOf(scene.app.url, '192.0.2.2')('POST', '/v1/auth/register', { body: newcomer() }),
    );
    expect(answer.status).toBe(201);
    expect(blocking).toBeLessThanOrEqual(2);
  });

  it('a logout waits for two: the guard, and the revocation', async () => {
    const other = await scene.signIn(user);
    await scene.redis.idle();
    const { answer, blocking } = await counted(() => scene.call('POST', '/v1/auth/logout', { token: other.access }));
    expect(answer.status).toBe(204);
    expect(blocking).toBe(2);
  });

  it('a server that has forgotten its scripts costs one more, once', async () => {
    await me();
    await scene.redis.idle();
    await scene.redis.engine('SCRIPT', 'FLUSH');
    const first = await counted(me);
    expect(first).toMatchObject({ blocking: 2, answer: { status: 200 } });
    expect(degraded(first.answer)).toBe('');
    expect(await counted(me)).toMatchObject({ blocking: 1, deferred: 0 });
  });

  it('an app whose Redis answers its first request only still answers a read: the rest can wait', async () => {
    await scene.redis.engine('UNLINK', entryOf(user.userId));
    scene.redis.reset();
    scene.redis.mode = { kind: 'hang', when: () => scene.redis.counts.requests > 1 };
    const answer = await me();
    expect(answer).toMatchObject({ status: 200, body: { id: user.userId } });
    // A request that waited for the second would have met its deadline, and said so.
    expect(degraded(answer)).toBe('');
  });
});
