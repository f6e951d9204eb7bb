import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { newcomer } from '../../support/client.ts';
import type { Answer } from '../../support/client.ts';
import { FAULTS } from '../../support/faults.ts';
import type { FaultName } from '../../support/faults.ts';
import {
  SETTINGS,
  degraded,
  denialOf,
  endElsewhere,
  signedIn,
  startScene,
  timed,
  until,
  untilRecovered,
} from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

/**
 * What a request may take with Redis broken: its deadline, and generously for the rest of its work on a small machine
 * that is busy with other tests. A call that waits for a hanging Redis, or asks it twice, takes longer.
 */
const GUARD_MS = Number(SETTINGS.REDIS_GUARD_DEADLINE_MS) + 10_000;
const AUTH_MS = Number(SETTINGS.REDIS_AUTH_DEADLINE_MS) + 10_000;
/** Beside two password hashes, one after the other. */
const HASHING_MS = AUTH_MS + 10_000;
/** The longest pause between two probes with its jitter, and the same generosity. */
const RECOVERY_MS = Number(SETTINGS.BREAKER_PROBE_MAX_MS) * 1.25 + 20_000;

/** With these Redis still does what it is asked, sooner or later or by another way. */
const HARMLESS = new Set<FaultName>(['NOSCRIPT']);

let scene: Scene;
/** Signed in throughout. */
let owner: Account & SignedIn;
/** Signed out before anything broke. */
let revoked: SignedIn;
/** Signed out while Redis was not to be reached: only the database knows. */
let missed: SignedIn;
/** Signed in, to be signed out while Redis is broken. */
let leaving: SignedIn;
const slowest: Record<string, number> = {};

beforeAll(async () => {
  scene = await startScene();
  owner = await scene.newAccount();
  revoked = await scene.signIn(owner);
  missed = await scene.signIn(owner);
  leaving = await scene.signIn(owner);
  for (const { access } of [owner, leaving, revoked, missed]) await me(access);
  // Elsewhere: what an isolate has ended itself, it refuses without asking Redis or D1.
  await endElsewhere(scene, revoked, { redisKnows: true });
  await endElsewhere(scene, missed, { redisKnows: false });
});
afterAll(async () => {
  await scene[Symbol.asyncDispose]();
  console.info(`slowest with Redis broken (ms): ${JSON.stringify(slowest)}`);
});

const me = (token: string) => scene.call('GET', '/v1/users/me', { token });

/** Measures a request and holds it to its time. */
async function within(name: string, limitMs: number, send: () => Promise<Answer>): Promise<Answer> {
  const { result, ms } = await timed(send);
  slowest[name] = Math.max(slowest[name] ?? 0, Math.round(ms));
  expect.soft(ms, `${name} took ${Math.round(ms)} ms (${result.status})`).toBeLessThan(limitMs);
  return result;
}

describe('with Redis broken, every endpoint serves, and no revoked token passes', () => {
  it.each(Object.keys(FAULTS) as FaultName[])('%s', async (name) => {
    const { call, redis } = scene;
    redis.mode = FAULTS[name];

    const [profile, sessions, refused, unheardOf, refreshed] = await Promise.all([
      within('me', GUARD_MS, () => me(owner.access)),
      within('sessions', GUARD_MS, () => call('GET', '/v1/sessions', { token: owner.access })),
      within('me, revoked', GUARD_MS, () => me(revoked.access)),
      within('me, revoked', GUARD_MS, () => me(missed.access)),
      within('refresh', AUTH_MS, () => call('POST', '/v1/auth/refresh', { body: { refresh_token: owner.refresh } })),
    ]);
    expect.soft(profile, 'me').toMatchObject({ status: 200, body: { id: owner.id } });
    expect.soft(sessions, 'sessions').toMatchObject({ status: 200 });
    const ids = (sessions.body.items as { id: string }[] | undefined)?.map(({ id }) => id);
    expect.soft(ids, 'sessions').toEqual(expect.arrayContaining([owner.sessionId, leaving.sessionId]));
    expect.soft(ids, 'sessions').not.toContain(revoked.sessionId);
    expect.soft(refused, 'a token revoked before').toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    expect.soft(refreshed, 'refresh').toMatchObject({ status: 200 });
    if (refreshed.status === 200) Object.assign(owner, signedIn(refreshed));
    if (!HARMLESS.has(name)) {
      expect.soft(degraded(profile), 'it says so').not.toBe('');
      expect
        .soft(unheardOf, 'a token revoked, Redis does not know')
        .toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    }

    // A revocation while Redis is broken counts at once.
    const person = newcomer();
    const { email, password } = owner;
    const [registered, loggedIn] = await Promise.all([
      within('register', HASHING_MS, () => call('POST', '/v1/auth/register', { body: person })),
      within('login', HASHING_MS, () => call('POST', '/v1/auth/login', { body: { email, password } })),
      (async () => {
        const loggedOut = await within('logout', HASHING_MS, () =>
          call('POST', '/v1/auth/logout', { token: leaving.access }),
        );
        expect.soft(loggedOut, 'logout').toMatchObject({ status: 204 });
        expect
          .soft(await me(leaving.access), 'a token just revoked')
          .toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
      })(),
    ]);
    expect.soft(registered, 'register').toMatchObject({ status: 201, body: { user: { email: person.email } } });
    expect.soft(loggedIn, 'login').toMatchObject({ status: 200 });
    const left = leaving;
    leaving = signedIn(loggedIn);

    await redis.clear();
    const recoveredMs = Math.round(await untilRecovered(scene, owner.access));
    slowest['recovery'] = Math.max(slowest['recovery'] ?? 0, recoveredMs);
    expect.soft(recoveredMs, 'back within a probe interval').toBeLessThan(RECOVERY_MS);

    // From the moment that Redis is relied upon again, it knows.
    expect
      .soft(await me(left.access), 'a token revoked meanwhile')
      .toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
    const delivery = until('delivered', async () => (await denialOf(scene, left)) !== null, { withinMs: 30_000 }).catch(
      () => Infinity,
    );

    // Users who signed in meanwhile are signed in, and all can refresh.
    for (const tokens of [signedIn(registered), leaving, owner]) {
      const answer = await call('POST', '/v1/auth/refresh', { body: { refresh_token: tokens.refresh } });
      expect.soft(answer, 'refresh afterwards').toMatchObject({ status: 200 });
      expect.soft(degraded(answer), 'refresh afterwards').toBe('');
      Object.assign(tokens, signedIn(answer));
      expect.soft(await me(tokens.access), 'me afterwards').toMatchObject({ status: 200 });
    }

    const deliveredMs = Math.round(await delivery);
    slowest['delivered'] = Math.max(slowest['delivered'] ?? 0, deliveredMs);
    expect.soft(deliveredMs, 'Redis gets the revocation that it missed').toBeLessThan(30_000);
    expect
      .soft(await me(left.access), 'a token revoked meanwhile, later')
      .toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
  });

  it('and after all this no key in Redis is without an end', async () => {
    await scene.redis.clear();
    await scene.redis.idle();
    const endless: string[] = [];
    let cursor = '0';
    let seen = 0;
    do {
      const [next, keys] = (await scene.redis.engine('SCAN', cursor, 'COUNT', 1_000)) as [string, string[]];
      cursor = next;
      for (const key of keys) {
        seen += 1;
        if (Number(await scene.redis.engine('PTTL', key)) === -1) endless.push(key);
      }
    } while (cursor !== '0');
    expect(endless).toEqual([]);
    expect(seen).toBeGreaterThan(20);
  });

  it('and nothing of a secret, and no error of ours, is in the log', () => {
    const text = scene.app.logs.join('\n');
    expect(text).not.toContain(owner.access);
    expect(text).not.toContain(owner.refresh);
    expect(text).not.toContain(owner.email);
    expect(text).not.toContain('request.failed');
  });
});
