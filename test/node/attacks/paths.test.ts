import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { expectQuietLogs, expectRefused, expectUnharmed, startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';
import { request } from './wire.ts';

let scene: AttackScene;
let victim: Victim;
let attacker: Victim;
beforeAll(async () => {
  scene = await startAttack();
  victim = await scene.newAccount();
  attacker = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const as = (who: Victim, line: string) => request(scene.app.url, line, [`Authorization: Bearer ${who.access}`]);

/** Spellings of one's own account: they lead to the caller's account, or to none. */
const OWN = [
  '/v1/users/%6de',
  '/v1/users/%6D%65',
  '/v1/users/x/../me',
  '/v1/users/./me',
  '/v1/users/%2e/me',
  '/v1/users/%2e%2e/users/me',
  '/v1/users/.%2e/users/me',
  '/v1/users\\me',
  '/v1/admin/../users/me',
  '/v1/users/me?',
  '/v1/users/me#/../../admin',
  'http://evil.example/v1/users/me',
];

test.each(OWN)('GET %s is one’s own account, and needs a token like it', async (path) => {
  const answer = await as(attacker, `GET ${path}`);
  expect([answer.status, answer.body.id]).toEqual([200, attacker.id]);
  expectRefused(await request(scene.app.url, `GET ${path}`, []), 'AUTHENTICATION_REQUIRED');
});

describe('paths to data of other users', () => {
  test.each([
    ...['', '/', '//', '/.', '/./', '/%2e', ';', '%20', '.', '..', '%00', '?x=/v1/users/me', '#/v1/users/me'].map(
      (after) => `/v1/users/VICTIM${after}`,
    ),
    '/v1/users/me/../VICTIM',
    '/v1/users/me%2f..%2fVICTIM',
    '/v1/users/me/%2e%2e/VICTIM',
    '/v1/users/me%2fVICTIM',
    '/v1/users/me;id=VICTIM',
    '/v1/users//VICTIM',
    '//v1/users/VICTIM',
    '/v1//users/VICTIM',
    '/v1/./users/VICTIM',
    '/V1/USERS/VICTIM',
    '/v1/users/VICTIM.json',
    '/v1/users/%56ICTIM',
    '/v1/users/%',
    '/v1/users/%zz',
    '/v1/users/%ff%fe',
    '/v1/users/%u0041',
    '/v1/users/%c0%af',
    '/v1/users/%e2%80%ae',
    '/v1/users/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/v1/users/..%5c..%5cetc',
    '/v1/users',
    '/v1/users/?page=1',
    '/v1/users?page=1&limit=100',
    '/v1/users?page[]=1&page=2',
    '/v1/admin',
    '/v1/admin/',
    '/v1/admin/limits',
    '/v1/admin/limits/peek',
    '/.env',
    '/.dev.vars',
    '/.git/config',
    '/index.js',
    '/src/index.ts',
    '/../../etc/passwd',
    '/%2e%2e/%2e%2e/etc/passwd',
    '/.well-known/../.dev.vars',
    '/.well-known/jwks.json/..',
    '/cdn-cgi/mf/scheduled',
    '/__scheduled',
    '/cdn-cgi/handler/scheduled',
  ])('GET %s', async (path) => {
    const answer = await as(attacker, `GET ${path.replaceAll('VICTIM', victim.id)}`);
    expectRefused(answer, 'FORBIDDEN', 'NOT_FOUND', 'METHOD_NOT_ALLOWED');
    expect(JSON.stringify(answer.body)).not.toContain(victim.email);
  });

  test('long paths', async () => {
    for (const path of [
      `/v1/users/${'a'.repeat(15_000)}`,
      `/${'a/'.repeat(7_500)}`,
      `/v1/users/${'%2e'.repeat(5_000)}`,
    ]) {
      const startMs = performance.now();
      expectRefused(await as(attacker, `GET ${path}`), 'FORBIDDEN', 'NOT_FOUND');
      expect(performance.now() - startMs).toBeLessThan(30_000);
    }
    // The runtime's own limit.
    expect((await as(attacker, `GET /v1/users/${'a'.repeat(100_000)}`)).status).toBe(414);
  });

  test.each([
    'SESSION',
    'SESSION/',
    'SESSION%00',
    'SESSION%20',
    'SESSION.',
    '%00',
    '%',
    '%ff',
    '.',
    '..',
    '%2e%2e',
    '..%2f..%2fusers%2fme',
    'OWN%2f..%2fSESSION',
    'OWN/../SESSION',
    'OWN,SESSION',
    'OWN%0aSESSION',
    'OWN%00SESSION',
    'OWN%20SESSION',
    'OWN;SESSION',
    'OWN*',
    '*',
    '%7bUSER%7d',
    'USER.%2a',
    'USER.%25',
    'USER._',
  ])('DELETE /v1/sessions/%s', async (id) => {
    const path = id
      .replaceAll('SESSION', victim.sessionId)
      .replaceAll('OWN', attacker.sessionId)
      .replaceAll('USER', victim.id);
    const answer = await as(attacker, `DELETE /v1/sessions/${path}`);
    expectRefused(answer, 'NOT_FOUND', 'METHOD_NOT_ALLOWED', 'VALIDATION_FAILED');
    await expectUnharmed(scene, victim);
    await expectUnharmed(scene, attacker);
  });

  test('the control: one’s own session, spelled in percents', async () => {
    const device = await scene.signIn(attacker);
    const path = device.sessionId.replaceAll(/[\da-f.-]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
    expect((await as(attacker, `DELETE /v1/sessions/${path}`)).status).toBe(204);
    expectRefused(await scene.me(device.access), 'TOKEN_REVOKED');
  });
});

test('the logs say nothing', async () => {
  await expectUnharmed(scene, victim);
  expectQuietLogs(scene, victim.access, attacker.access);
});
