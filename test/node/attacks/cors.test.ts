import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { startAttack } from './scene.ts';
import type { AttackScene, Victim } from './scene.ts';

const APP = 'https://app.example';
const ORIGINS = [
  undefined,
  APP,
  'https://other.example',
  'https://evil.example',
  'null',
  'https://app.example.evil.example',
  'https://APP.example',
  'http://app.example',
];

let scene: AttackScene;
let victim: Victim;
beforeAll(async () => {
  scene = await startAttack({ CORS_ORIGINS: `${APP},https://other.example` });
  victim = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

describe.each(['/health', '/.well-known/jwks.json', '/v1/users/me', '/v1/sessions', '/nowhere', '/v1/auth/login'])(
  'GET %s',
  (path) => {
    test('says to each request that it varies by Origin, so no cache gives one origin the response of another', async () => {
      for (const token of [undefined, victim.access]) {
        for (const origin of ORIGINS) {
          const headers = origin === undefined ? {} : { Origin: origin };
          const answer = await scene.call('GET', path, { headers, ...(token !== undefined && { token }) });
          const vary = (answer.headers.get('Vary') ?? '').split(',').map((name) => name.trim());
          expect({ origin, varies: vary.includes('Origin') }).toEqual({ origin, varies: true });
          const allowed = origin === APP || origin === 'https://other.example' ? origin : null;
          expect(answer.headers.get('Access-Control-Allow-Origin')).toBe(allowed);
          expect(answer.headers.has('Access-Control-Allow-Credentials')).toBe(false);
        }
      }
    });
  },
);
