import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { script } from '../../support/faults.ts';
import { degraded, denialOf, endElsewhere, signedIn, startScene, until, untilRecovered } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  // The breaker is not what these tests are about.
  scene = await startScene({ BREAKER_MIN_CALLS: '100000' });
  user = await scene.newAccount();
  await me(user);
});
afterAll(() => scene[Symbol.asyncDispose]());
afterEach(async () => {
  await scene.redis.clear();
  await scene.redis.idle();
});

const me = ({ access }: SignedIn) => scene.call('GET', '/v1/users/me', { token: access });
const refresh = (session: SignedIn) =>
  scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: session.refresh } });
const logout = ({ access }: SignedIn) => scene.call('POST', '/v1/auth/logout', { token: access });

const refused = { status: 401, body: { code: 'TOKEN_REVOKED' } };
const hashOf = ({ userId }: SignedIn) => `app:auth:blacklist:{${userId}}`;
/** The message that ends a session, and nothing else that names it. */
const telling = (reason: string) => (sent: readonly unknown[]) => sent.includes(reason);

describe('a revocation that Redis misses', () => {
  it('counts at once where it was made, and is delivered again without waiting for the cron', async () => {
    const { redis } = scene;
    const session = await scene.signIn(user);
    await me(session);
    redis.mode = { kind: 'drop-before', when: telling('logout'), times: 1 };
    expect((await logout(session)).status).toBe(204);
    expect(await me(session)).toMatchObject(refused);
    expect(await refresh(session)).toMatchObject(refused);
    await until('Redis has it', async () => (await denialOf(scene, session)) !== null);
  });

  it('is not undone by a refresh, as long as Redis does not know of it', async () => {
    const { redis } = scene;
    const session = await scene.signIn(user);
    redis.mode = { kind: 'drop-before', when: telling('logout') };
    expect((await logout(session)).status).toBe(204);
    expect(await refresh(session)).toMatchObject(refused);
    expect(await me(session)).toMatchObject(refused);
    expect(await denialOf(scene, session)).toBeNull();
    redis.mode = { kind: 'none' };
    await until('Redis has it', async () => (await denialOf(scene, session)) !== null);
    expect(await refresh(session)).toMatchObject(refused);
  });

  it('of all sessions counts at once for each of them', async () => {
    const { call, redis } = scene;
    const owner = await scene.newAccount();
    const other = await scene.signIn(owner);
    for (const session of [owner, other]) await me(session);
    redis.mode = { kind: 'refuse' };
    expect((await call('POST', '/v1/auth/logout-all', { token: owner.access })).status).toBe(204);
    for (const session of [owner, other]) {
      expect(await me(session)).toMatchObject(refused);
      expect(await refresh(session)).toMatchObject(refused);
    }
    await redis.clear();
    for (const session of [owner, other]) {
      expect(await me(session)).toMatchObject(refused);
      expect(await refresh(session)).toMatchObject(refused);
    }
    await until('Redis has it', async () => Number(await redis.engine('HGET', hashOf(owner), 'ep')) >= 2);
  });

  it('is executed but not acknowledged: the second delivery does no harm', async () => {
    const { redis } = scene;
    const session = await scene.signIn(user);
    redis.mode = { kind: 'drop-after', when: telling('logout'), times: 1 };
    expect((await logout(session)).status).toBe(204);
    const denial = await denialOf(scene, session);
    expect(denial).not.toBeNull();
    await until(
      'the row is marked',
      async () => (await scene.app.sql("SELECT id FROM outbox WHERE state = 'pending'")).length === 0,
    );
    expect(await denialOf(scene, session)).toBe(denial);
    expect(await me(session)).toMatchObject(refused);
    expect(await me(user)).toMatchObject({ status: 200 });
  });

  it('and a password change whose session write was lost: the changer stays signed in, all others are out', async () => {
    const { call, redis } = scene;
    const owner = await scene.newAccount();
    const other = await scene.signIn(owner);
    redis.mode = { kind: 'drop-before', when: script(owner.userId), times: 1 };
    // The guard's own pipeline holds a limiter only by a hashed identity, so the first to be met is the write.
    const changed = await call('POST', '/v1/auth/password', {
      token: owner.access,
      body: { currentPassword: owner.password, newPassword: 'another horse battery' },
    });
    expect(changed).toMatchObject({ status: 200 });
    expect(redis.mode).toEqual({ kind: 'none' });
    await until('Redis knows the new epoch', async () => Number(await redis.engine('HGET', hashOf(owner), 'ep')) >= 2);

    let session = signedIn(changed);
    for (let round = 0; round < 2; round += 1) {
      expect(await me(session)).toMatchObject({ status: 200 });
      const answer = await refresh(session);
      expect(answer).toMatchObject({ status: 200 });
      session = signedIn(answer);
    }
    expect(await me(session)).toMatchObject({ status: 200 });
    expect(await me(other)).toMatchObject(refused);
    expect(await refresh(other)).toMatchObject(refused);
  });
});

describe('a Redis that has forgotten', () => {
  it('a user: sessions go on, ended ones stay ended, and Redis has the user again', async () => {
    const { redis } = scene;
    const gone = await scene.signIn(user);
    await endElsewhere(scene, gone, { redisKnows: true });
    expect(await me(gone)).toMatchObject(refused);
    await redis.engine('UNLINK', hashOf(user));
    const unknown = await me(user);
    expect(unknown).toMatchObject({ status: 200 });
    expect(degraded(unknown)).toBe('revocation=unknown');
    await until('Redis has it', async () => (await redis.engine('HGET', hashOf(user), 'ep')) !== null);
    expect(await denialOf(scene, gone)).not.toBeNull();
    expect(degraded(await me(user))).toBe('');
    expect(await me(gone)).toMatchObject(refused);
  });

  it('everything: every session goes on, and ended ones stay ended', async () => {
    const { redis } = scene;
    const gone = await scene.signIn(user);
    await endElsewhere(scene, gone, { redisKnows: true });
    expect(await me(gone)).toMatchObject(refused);
    await redis.engine('FLUSHALL');
    expect(await refresh(gone)).toMatchObject(refused);
    const answer = await refresh(user);
    expect(answer).toMatchObject({ status: 200 });
    user = { ...user, ...signedIn(answer) };
    expect(await me(user)).toMatchObject({ status: 200 });
    expect(await me(gone)).toMatchObject(refused);
    await redis.idle();
    expect(degraded(await me(user))).toBe('');
  });
});

describe('a refresh', () => {
  it('whose answer from Redis is lost is repeated without harm', async () => {
    const { redis } = scene;
    let session = await scene.signIn(user);
    redis.mode = { kind: 'drop-after', when: script(session.sessionId), times: 1 };
    const lost = await refresh(session);
    // Redis has rotated; the app cannot know, and gives an access token for the refresh token that was shown.
    expect(lost).toMatchObject({ status: 200, body: { refresh_token: session.refresh } });
    expect(degraded(lost)).toContain('refresh=d1');
    session = signedIn(lost);
    expect(await me(session)).toMatchObject({ status: 200 });
    for (let round = 0; round < 3; round += 1) {
      const answer = await refresh(session);
      expect(answer).toMatchObject({ status: 200 });
      expect(answer.body.refresh_token).not.toBe(session.refresh);
      session = signedIn(answer);
      expect(await me(session)).toMatchObject({ status: 200 });
    }
  });

  it('with Redis gone does not rotate, and goes on from the same token afterwards', async () => {
    const { redis } = scene;
    let session = await scene.signIn(user);
    redis.mode = { kind: 'refuse' };
    for (let round = 0; round < 3; round += 1) {
      const answer = await refresh(session);
      expect(answer).toMatchObject({ status: 200, body: { refresh_token: session.refresh } });
      session = signedIn(answer);
      expect(await me(session)).toMatchObject({ status: 200 });
    }
    await redis.clear();
    await untilRecovered(scene, user.access);
    const answer = await refresh(session);
    expect(answer.status).toBe(200);
    expect(answer.body.refresh_token).not.toBe(session.refresh);
  });

  it('with Redis gone still finds out a token that was used long ago, and the session ends', async () => {
    const { redis, app } = scene;
    const stolen = await scene.signIn(user);
    let session = stolen;
    for (let round = 0; round < 3; round += 1) {
      session = signedIn(await refresh(session));
      await me(session);
    }
    await until('D1 has the rotations', async () => {
      const [row] = await app.sql('SELECT generation FROM sessions WHERE id = ?', session.sessionId);
      return Number(row?.['generation']) >= 4;
    });
    redis.mode = { kind: 'refuse' };
    expect(await refresh(stolen)).toMatchObject({ status: 401, body: { code: 'TOKEN_REUSED' } });
    expect(await me(session)).toMatchObject(refused);
    await redis.clear();
    expect(await refresh(session)).toMatchObject(refused);
    await until('Redis has it', async () => (await denialOf(scene, session)) !== null);
  });
});
