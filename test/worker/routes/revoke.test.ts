import { env } from 'cloudflare:workers';
import { drizzle } from 'drizzle-orm/d1';
import { beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { RedisUnavailable } from '../../../src/redis/errors';
import { createRedisClient } from '../../../src/redis/client';
import type { RedisClient } from '../../../src/redis/client';
import { configOf } from '../../../src/config/env';
import { createKeys } from '../../../src/redis/keys';
import { inRequest, bindings, callerOf, isolateFor } from '../support/request';

const bound = bindings();
const { url, token: restToken, prefix } = configOf(bound).redis;
const redis = createRedisClient({ url, token: restToken });
const isolate = isolateFor(bound);
const call = callerOf(createApp({ isolate }), bound);
/** Another isolate, without any memory. */
const elsewhere = () => callerOf(createApp({ isolate: isolateFor(bound) }), bound);
const away: RedisClient = { execute: () => Promise.reject(new RedisUnavailable('refused')) };
const withoutRedis = () => callerOf(createApp({ isolate: isolateFor(bound, { client: away }) }), bound);

let counter = 0;
let access = '';
let refresh = '';
let userId = '';

beforeEach(async () => {
  counter += 1;
  const body = { email: `revoke${counter}@example.com`, password: 'correct horse battery', name: 'Revoking' };
  const answer = (await call('POST', '/v1/auth/register', { body })).body;
  [access, refresh, userId] = [answer.access_token, answer.refresh_token, answer.user.id];
});

const revoke = (body: unknown) => call('POST', '/v1/auth/revoke', { body });
const me = (token = access, caller = call) => caller('GET', '/v1/users/me', { token });
const events = async (kind: string) => {
  const { results } = await env.DB.prepare('select * from events where user_id = ? and kind = ?')
    .bind(userId, kind)
    .all();
  return results;
};
const claimsOf = (token: string) => JSON.parse(atob(token.split('.')[1] ?? '')) as { jti: string; exp: number };
const refused = { status: 401, body: { code: 'TOKEN_REVOKED' } };

describe('an access token', () => {
  test('is refused everywhere at once; its session, and the session’s other tokens, go on', async () => {
    const other = (await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).body.access_token;
    expect(await revoke({ token: access, token_type_hint: 'access_token' })).toMatchObject({ status: 200, body: {} });
    expect(await me()).toMatchObject(refused);
    expect(await me(access, elsewhere())).toMatchObject(refused);
    expect(await me(other, elsewhere())).toMatchObject({ status: 200 });
    const again = await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } });
    expect(again).toMatchObject({ status: 200 });
    expect(await me(again.body.access_token)).toMatchObject({ status: 200 });
  });

  test('stays refused when Redis has forgotten, and Redis learns it again', async () => {
    await revoke({ token: access });
    const key = createKeys(prefix, 'any').blacklist(userId);
    await redis.execute([['UNLINK', key]]);
    expect(await me(access, elsewhere())).toMatchObject(refused);
    const [denial] = await redis.execute([['HGET', key, `j:${claimsOf(access).jti}`]]);
    expect(Number(denial?.value)).toBeGreaterThan(Date.now());
    expect(await me(access, elsewhere())).toMatchObject(refused);
  });

  test('stays refused while Redis is away', async () => {
    const other = (await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).body.access_token;
    const caller = withoutRedis();
    expect(await me(access, caller)).toMatchObject({ status: 200 });
    await revoke({ token: access });
    expect(await me(access, withoutRedis())).toMatchObject(refused);
    expect(await me(other, withoutRedis())).toMatchObject({ status: 200 });
  });

  test('that Redis has missed is delivered to it by the outbox', async () => {
    const other = isolateFor(bound);
    const { jti, exp } = claimsOf(access);
    // The Worker died right after the commit.
    await inRequest(({ services }) => {
      const message = { kind: 'token-end', userId, tokenId: jti, expiresAtMs: exp * 1_000 } as const;
      const entry = services.outbox.prepare([message]);
      return drizzle(env.DB).batch(entry.statements(drizzle(env.DB)) as never);
    });
    expect(await me(access, elsewhere())).toMatchObject({ status: 200 });
    await inRequest(({ services }) => services.outbox.deliverDue(), { isolate: other, now: () => Date.now() + 6_000 });
    expect(await me(access, elsewhere())).toMatchObject(refused);
  });

  test('revoked twice is one event', async () => {
    await Promise.all([revoke({ token: access }), revoke({ token: access }), revoke({ token: access })]);
    expect(await events('token-revoked')).toHaveLength(1);
  });

  test('is forgotten a minute after it has expired', async () => {
    await revoke({ token: access });
    const rows = () => env.DB.prepare('select id from revoked_tokens where user_id = ?').bind(userId).all();
    const later = (ms: number) => ({ isolate, now: () => Date.now() + ms });
    await inRequest(({ services }) => services.blacklist.purge(), later(955_000));
    expect((await rows()).results).toHaveLength(1);
    await inRequest(({ services }) => services.blacklist.purge(), later(970_000));
    expect((await rows()).results).toHaveLength(0);
  });
});

describe('a refresh token', () => {
  test('ends its session: both its tokens are refused', async () => {
    expect(await revoke({ token: refresh, token_type_hint: 'refresh_token' })).toMatchObject({ status: 200 });
    expect(await me(access, elsewhere())).toMatchObject(refused);
    expect(await elsewhere()('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).toMatchObject(refused);
    expect(await events('session-revoked')).toHaveLength(1);
    expect(await revoke({ token: refresh })).toMatchObject({ status: 200 });
    expect(await events('session-revoked')).toHaveLength(1);
  });

  test('is found whatever the hint says', async () => {
    expect(await revoke({ token: refresh, token_type_hint: 'access_token' })).toMatchObject({ status: 200 });
    expect(await me()).toMatchObject(refused);
  });
});

/** Another character in the middle of its last part. */
const tampered = (token: string) => {
  const at = token.length - 20;
  return `${token.slice(0, at)}${token[at] === 'A' ? 'B' : 'A'}${token.slice(at + 1)}`;
};

describe('a text that is no token', () => {
  test.each([
    ['garbage', () => 'garbage'],
    ['a tampered access token', () => tampered(access)],
    ['a tampered refresh token', () => tampered(refresh)],
  ])('%s: 200, and nothing happens', async (_, token) => {
    expect(await revoke({ token: token() })).toMatchObject({ status: 200, body: {} });
    expect(await me(access, elsewhere())).toMatchObject({ status: 200 });
    expect(await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).toMatchObject({ status: 200 });
  });

  test('a token that has expired: 200, and nothing is recorded', async () => {
    const later = Date.now() + 3_600_000;
    const caller = callerOf(createApp({ isolate: isolateFor(bound, { now: () => later }), now: () => later }), bound);
    expect(await caller('POST', '/v1/auth/revoke', { body: { token: access } })).toMatchObject({ status: 200 });
    expect(await events('token-revoked')).toHaveLength(0);
  });
});

describe('the request', () => {
  const form = (raw: string) =>
    call('POST', '/v1/auth/revoke', { raw, headers: { 'Content-Type': 'application/x-www-form-urlencoded' } });

  test('is a form, as client libraries send it, whose other fields are ignored', async () => {
    const fields = new URLSearchParams({ token: access, token_type_hint: 'access_token', client_id: 'app' });
    expect(await form(fields.toString())).toMatchObject({ status: 200 });
    expect(await me()).toMatchObject(refused);
  });

  test('names one token', async () => {
    expect(await form('token=a&token=b')).toMatchObject({ status: 400, body: { code: 'MALFORMED_REQUEST' } });
    expect(await form('client_id=app')).toMatchObject({ status: 422, body: { code: 'VALIDATION_FAILED' } });
    expect(await revoke({})).toMatchObject({ status: 422, body: { errors: [{ pointer: '/token' }] } });
    expect(await revoke({ token: 'x'.repeat(5_000) })).toMatchObject({ status: 422 });
  });

  test('is a form nowhere else', async () => {
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
    const answer = await call('POST', '/v1/auth/refresh', { raw: `refresh_token=${refresh}`, headers });
    expect(answer).toMatchObject({ status: 415, body: { code: 'UNSUPPORTED_MEDIA_TYPE' } });
  });

  test('is limited by session', async () => {
    const strict = bindings({ LIMIT_API: '3/1m' });
    const caller = callerOf(createApp({ isolate: isolateFor(strict) }), strict);
    const statuses: number[] = [];
    for (let round = 0; round < 4; round += 1) {
      statuses.push((await caller('POST', '/v1/auth/revoke', { body: { token: access } })).status);
    }
    expect(statuses).toEqual([200, 200, 200, 429]);
  });
});
