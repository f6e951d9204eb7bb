import { env as tests } from 'cloudflare:workers';
import { describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { parseConfig } from '../../../src/config/env';
import { PATIENT_DEADLINES, TRUE_HASHES } from '../../support/bindings';
import { callerOf } from '../support/request';

const env = { ...tests, ...TRUE_HASHES };
const deployed = { ISSUER: 'https://api.example.com' };

describe('parseConfig', () => {
  test('takes a hash that costs nothing on a developer’s machine, and only there', () => {
    const cheap = { SCRYPT_LN: '4', SCRYPT_R: '8', SCRYPT_P: '1' };
    const local = { ...env, ...cheap, ISSUER: 'http://127.0.0.1:8787' };
    expect(parseConfig(local).passwords.scrypt).toEqual({ ln: 4, r: 8, p: 1 });
    expect(() => parseConfig({ ...local, ...deployed })).toThrow('SCRYPT_LN');
  });

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
    ['LIMIT_API', '0/1m'],
    ['LIMIT_API', '1000000000/1s'],
    ['LIMIT_API', '1/1000000s'],
    // More than 2^51 requests times milliseconds.
    ['LIMIT_API', '2251803/999999s'],
    ['LIMIT_API', '5/15w'],
    ['ACCESS_TOKEN_TTL_SECONDS', '-5'],
    ['KEY_PREFIX', 'a:b'],
    ['KEY_PREFIX', 'a'.repeat(33)],
    ['METRICS_TOKEN', 'fifteen-letters'],
    ['PEPPER_KEYS', '{"keys":[]}'],
    ['PEPPER_KEYS', '{"keys":[{"kty":"oct","kid":"a","state":"active"}]}'],
    ['SCRYPT_LN', '18'],
    ['SCRYPT_P', 'many'],
    ['HASH_QUEUE_MAX', '-1'],
    ['PASSWORD_FAILURES_MAX', '101'],
    ['UNVERIFIED_TTL_SECONDS', '604800'],
    ['MAILER', 'carrier-pigeon'],
    ['MAIL_FROM', 'Hello <hello@example.net>'],
    ['APP_NAME', 'Gate\r\nBcc: all@example.net'],
    ['APP_NAME', 'G'.repeat(61)],
    ['RECOVERY_URL', 'https://app.example/reset'],
    ['RECOVERY_URL', 'app.example/reset#{token}'],
    ['VERIFICATION_URL', 'https://app.example/{token}/{token}'],
  ])('names a wrong %s, and not its value', (name, value) => {
    const attempt = () => parseConfig({ ...env, [name]: value });
    expect(attempt).toThrow(new RegExp(String.raw`wrong: ${name} \(`));
    expect(attempt).not.toThrow(value);
  });

  test('takes the longest names, the shortest token and the largest limits that it may', () => {
    const largest = {
      KEY_PREFIX: `${'a'.repeat(30)}_-`,
      METRICS_TOKEN: 'sixteen-letters!',
      APP_NAME: 'G'.repeat(60),
      LIMIT_API: '2251799/999999s',
      LIMIT_ADMIN: '999999999/37m',
    };
    const { redis, metrics, mail, limits } = parseConfig({ ...env, ...largest });
    expect([redis.prefix, metrics.token, mail.appName]).toEqual([
      largest.KEY_PREFIX,
      largest.METRICS_TOKEN,
      largest.APP_NAME,
    ]);
    expect(limits.api).toEqual({ maxRequests: 2_251_799, windowMs: 999_999_000 });
    expect(limits.admin).toEqual({ maxRequests: 999_999_999, windowMs: 2_220_000 });
  });

  test.each([
    ['https://eu1-kind-bee-1.upstash.io', undefined, true],
    ['https://eu1-kind-bee-1.upstash.io', 'false', false],
    ['https://upstash.io.example.com', undefined, false],
    ['http://127.0.0.1:8079', undefined, false],
    ['http://127.0.0.1:8079', 'true', true],
  ])('locks the keys of scripts at %s with REDIS_KEY_LOCKING=%s: %s', (url, locking, expected) => {
    const given = { ...env, UPSTASH_REDIS_REST_URL: url, ...(locking !== undefined && { REDIS_KEY_LOCKING: locking }) };
    expect(parseConfig(given).redis.keyLocking).toBe(expected);
  });

  test.each([
    [13, 8, 10],
    [14, 8, 5],
    [15, 8, 3],
    [15, 8, 4],
    [16, 8, 2],
    [14, 16, 3],
    [13, 32, 3],
  ])('takes scrypt at 2^%i/%i/%i', (ln, r, p) => {
    const settings = { ...deployed, SCRYPT_LN: String(ln), SCRYPT_R: String(r), SCRYPT_P: String(p) };
    expect(parseConfig({ ...env, ...settings }).passwords.scrypt).toEqual({ ln, r, p });
  });

  test.each([
    ['too weak', 13, 8, 9],
    ['too weak', 14, 8, 4],
    ['too weak', 15, 8, 2],
    ['too weak', 16, 8, 1],
    ['too weak', 14, 15, 4],
    ['over the runtime’s cap', 15, 8, 5],
    ['with all of an isolate’s memory', 17, 8, 1],
    ['over the runtime’s cap', 17, 8, 2],
    ['over the runtime’s cap', 17, 16, 1],
  ])('refuses scrypt %s, 2^%i/%i/%i, in one clear message', (_name, ln, r, p) => {
    const settings = { ...deployed, SCRYPT_LN: String(ln), SCRYPT_R: String(r), SCRYPT_P: String(p) };
    expect(() => parseConfig({ ...env, ...settings })).toThrow(
      'Configuration wrong: SCRYPT_LN (with SCRYPT_R and SCRYPT_P the hash is too weak or too expensive: take 13/8/10, 14/8/5, ' +
        '15/8/3, 16/8/2 or, up to 2^LN·R·P = 2^20, more)',
    );
  });

  test.each([
    ['https://api.example.com', false],
    ['https://127.0.0.1.example.com', false],
    ['https://localhost.example.com', false],
    ['https://10.0.0.1', false],
    ['http://127.0.0.1:8787', true],
    ['http://[::1]:8787', true],
    ['http://localhost:8787', true],
    ['http://gatehouse.test', true],
  ])('mails on the console, with their tokens, for the issuer %s: %s', (ISSUER, allowed) => {
    const attempt = () => parseConfig({ ...env, MAILER: 'console', ISSUER }).mail.mailer;
    if (allowed) expect(attempt()).toBe('console');
    else expect(attempt).toThrow('wrong: MAILER (console is for developing');
  });

  test.each([
    ['https://api.pwnedpasswords.com/range/', 'https://api.pwnedpasswords.com/range/'],
    ['https://breaches.example.com/range', 'https://breaches.example.com/range/'],
    ['http://127.0.0.1:9000/range', 'http://127.0.0.1:9000/range/'],
    ['http://breaches.example.com/range/', undefined],
    ['https://breaches.example.com/range?prefix=', undefined],
    ['https://breaches.example.com/range#', undefined],
    ['ftp://127.0.0.1/range/', undefined],
  ])('looks breached passwords up at %s: %s', (url, used) => {
    const attempt = () => parseConfig({ ...env, BREACHED_PASSWORDS_URL: url }).passwords.breaches.url;
    if (used === undefined) expect(attempt).toThrow('wrong: BREACHED_PASSWORDS_URL (');
    else expect(attempt()).toBe(used);
  });

  test('mails through Cloudflare need a binding and a sender', () => {
    const MAIL_FROM = 'hello@example.net';
    expect(() => parseConfig({ ...env, MAILER: 'cloudflare', MAIL_FROM })).toThrow('missing: EMAIL (a send_email');
    expect(() => parseConfig({ ...env, MAILER: 'cloudflare', EMAIL: {} })).toThrow('missing: MAIL_FROM');
    expect(parseConfig({ ...env, MAILER: 'cloudflare', MAIL_FROM, EMAIL: {} }).mail).toMatchObject({
      mailer: 'cloudflare',
      from: MAIL_FROM,
      appName: 'Gatehouse',
    });
  });

  test('has the product’s policy as defaults', () => {
    const ofTests = Object.keys(PATIENT_DEADLINES);
    const config = parseConfig(Object.fromEntries(Object.entries(env).filter(([name]) => !ofTests.includes(name))));
    expect(config.tokens).toEqual({
      accessTtlSeconds: 900,
      refreshIdleSeconds: 604_800,
      refreshAbsoluteSeconds: 2_592_000,
      refreshGraceSeconds: 30,
      sessionsPerUser: 10,
      freshSeconds: 600,
    });
    expect(config.limits.login).toEqual({ maxRequests: 5, windowMs: 900_000 });
    expect(config.limits.register).toEqual({ maxRequests: 3, windowMs: 60_000 });
    expect(config.limits.api).toEqual({ maxRequests: 100, windowMs: 900_000 });
    expect(config.passwords).toEqual({
      scrypt: { ln: 15, r: 8, p: 3 },
      pepperKeys: undefined,
      queueMax: 20,
      failuresMax: 100,
      breaches: { url: undefined, deadlineMs: 1_000 },
    });
    expect(config.limits.registerDay).toEqual({ maxRequests: 30, windowMs: 86_400_000 });
    expect(config.limits.mailbox).toEqual({ maxRequests: 5, windowMs: 86_400_000 });
    expect(config.limits.account).toEqual({ maxRequests: 60, windowMs: 900_000 });
    expect(config.limits.recovery).toEqual({ maxRequests: 10, windowMs: 900_000 });
    expect(config.limits.recoveryAccount).toEqual({ maxRequests: 3, windowMs: 3_600_000 });
    expect(config.mail).toMatchObject({
      mailer: 'none',
      recoveryTtlSeconds: 1_800,
      verificationTtlSeconds: 86_400,
      unverifiedTtlSeconds: 0,
    });
    expect(config.redis.guardDeadlineMs).toBe(200);
    expect(config.cache).toMatchObject({ userTtlSeconds: 600, listTtlSeconds: 300 });
  });
});

test('a Worker without its settings answers one clear message', async () => {
  const answer = await callerOf(createApp(), { DB: env.DB } as Env)('GET', '/v1/users/me');
  expect(answer.status).toBe(503);
  expect(answer.body).toMatchObject({ code: 'CONFIG_INVALID', detail: expect.stringContaining('SIGNING_KEYS') });
});
