import { env } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { parseConfig } from '../../../src/config/env';
import { callerOf } from '../support/request';

describe('parseConfig', () => {
  test('names every missing setting in one message', () => {
    expect(() => parseConfig({})).toThrow(
      'missing: DB (a D1 database), ISSUER, AUDIENCE, SIGNING_KEYS, REFRESH_KEYS, UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN',
    );
  });

  test.each([
    ['ISSUER', 'no url'],
    ['SIGNING_KEYS', '{"keys":[]}'],
    ['SIGNING_KEYS', '{"keys":[{"kty":"OKP","kid":"secretish","state":"retired"}'],
    ['REFRESH_KEYS', '{"keys":[{"kty":"oct","kid":"a","state":"active"}]}'],
    ['REFRESH_KEYS', '{"keys":[{"kty":"oct","kid":"a","state":"active","k":"c2hvcnQ"}]}'],
    ['SIGNING_KEYS', '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","state":"active"}]}'],
    ['TOMBSTONE_SECONDS', '5'],
    ['LIMIT_API', 'lots'],
    ['ACCESS_TOKEN_TTL_SECONDS', '-5'],
    ['KEY_PREFIX', 'a:b'],
  ])('names a wrong %s, and not its value', (name, value) => {
    const attempt = () => parseConfig({ ...env, [name]: value });
    expect(attempt).toThrow(new RegExp(String.raw`wrong: ${name} \(`));
    expect(attempt).not.toThrow(value);
  });

  test('has the product’s policy as defaults', () => {
    const config = parseConfig(env);
    expect(config.tokens).toEqual({
      accessTtlSeconds: 900,
      refreshIdleSeconds: 604_800,
      refreshAbsoluteSeconds: 2_592_000,
      refreshGraceSeconds: 30,
      sessionsPerUser: 10,
    });
    expect(config.limits.login).toEqual({ maxRequests: 5, windowMs: 900_000 });
    expect(config.limits.register).toEqual({ maxRequests: 3, windowMs: 60_000 });
    expect(config.limits.api).toEqual({ maxRequests: 100, windowMs: 900_000 });
    expect(config.redis.guardDeadlineMs).toBe(200);
    expect(config.cache).toMatchObject({ userTtlSeconds: 600, listTtlSeconds: 300 });
  });
});

test('a Worker without its settings answers one clear message', async () => {
  const answer = await callerOf(createApp(), { DB: env.DB } as Env)('GET', '/v1/users/me');
  expect(answer.status).toBe(503);
  expect(answer.body).toMatchObject({ code: 'CONFIG_INVALID', detail: expect.stringContaining('SIGNING_KEYS') });
});
