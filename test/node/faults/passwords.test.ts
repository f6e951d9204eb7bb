import { afterAll, beforeAll, expect, it } from 'vitest';

import { TRUE_HASHES } from '../../support/bindings.ts';
import { startScene } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene({ ...TRUE_HASHES, HASH_QUEUE_MAX: '3' });
  user = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const login = () => scene.call('POST', '/v1/auth/login', { body: { email: user.email, password: user.password } });

it('more logins than may wait: some are told when to come back, and none is lost or waits for ever', async () => {
  const answers = await Promise.all(Array.from({ length: 12 }, login));
  const refused = answers.filter(({ status }) => status === 503);
  expect(refused.length).toBeGreaterThan(0);
  // The one that computes and those that may wait.
  expect(answers.filter(({ status }) => status === 200).length).toBe(12 - refused.length);
  expect(12 - refused.length).toBeGreaterThanOrEqual(4);
  for (const { headers, body } of refused) {
    expect(body.code).toBe('SERVICE_UNAVAILABLE');
    expect(Number(headers.get('Retry-After'))).toBeGreaterThanOrEqual(1);
    expect(Number(headers.get('Retry-After'))).toBeLessThanOrEqual(8);
  }
  expect((await login()).status).toBe(200);
});
