import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

import { createClient } from '../../../src/client/index.ts';
import { newcomer } from '../../support/client.ts';
import {
  expireAccessToken,
  liveSessions,
  ME,
  plant,
  REFRESH,
  rejectionOf,
  startClientScene,
  storedTokens,
} from './scene.ts';
import type { ClientScene } from './scene.ts';

let scene: ClientScene;

beforeAll(async () => {
  scene = await startClientScene();
});
afterAll(() => scene[Symbol.asyncDispose]());

const MINUTE_MS = 60_000;

describe('a refresh on demand', () => {
  it('comes before the access token expires, by the monotonic clock', async () => {
    const { client, network, events, elapse, register } = scene.device();
    const { id } = await register();
    elapse(14 * MINUTE_MS);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(network.count(REFRESH)).toBe(0);
    elapse(0.6 * MINUTE_MS);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(network.sent.map(({ operation }) => operation)).toEqual(['POST /v1/auth/register', ME, REFRESH, ME]);
    expect(events).toEqual(['signedIn', 'tokenRefreshed']);
  });

  it('comes after TOKEN_EXPIRED, where the client cannot know the time', async () => {
    const { client, network, storage, register } = scene.device();
    const { id } = await register();
    await expireAccessToken(scene.key, storage);
    const started = scene.device({ storage });
    expect(await started.client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(started.network.sent.map(({ operation, status }) => `${operation} ${status}`)).toEqual([
      `${ME} 401`,
      `${REFRESH} 200`,
      `${ME} 200`,
    ]);
    expect(network.count(REFRESH)).toBe(0);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
  });

  it('comes after TOKEN_SUPERSEDED, and brings the new role', async () => {
    const { client, network, register } = scene.device();
    const { id } = await register();
    const other = scene.device();
    const admin = await other.register();
    await scene.server.app.sql(
      `update users set role = 'admin', access_version = access_version + 1 where id = ?`,
      admin.id,
    );
    await other.client.login(admin.credentials);
    await other.client.call('PATCH /v1/users/{id}', { params: { id }, body: { role: 'admin' } });
    expect(await client.call('GET /v1/users', { query: { limit: 1 } })).toMatchObject({ limit: 1 });
    expect(network.count(REFRESH)).toBe(1);
  });

  it.each([
    ['fast', 10, [100, 200]],
    ['slow', 3_000, [1_500, 3_000]],
  ])('of other processes each time: the pauses are as long as a %s network needs', async (_, tripMs, pauses) => {
    const { network, storage, register } = scene.device();
    const { id } = await register();
    const problem = JSON.stringify({ code: 'TOKEN_SUPERSEDED', title: 'Out of date', status: 401 });
    const headers = { 'Content-Type': 'application/problem+json' };
    const waits: number[] = [];
    let nowMs = 0;
    let refused = 0;
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.5);
    const client = createClient({
      baseUrl: scene.server.app.url,
      storage,
      monotonicNow: () => nowMs,
      wait: async (ms) => void waits.push(ms),
      async fetch(input, init) {
        if (!String(input instanceof Request ? input.url : input).endsWith('/me')) return network.fetch(input, init);
        nowMs += tripMs;
        refused += 1;
        return refused <= 3 ? new Response(problem, { status: 401, headers }) : network.fetch(input, init);
      },
    });
    try {
      expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    } finally {
      random.mockRestore();
    }
    // None before the first refresh, which may be the only one.
    expect(waits).toEqual(pauses);
  });

  it('comes after an access token alone was revoked: the session goes on', async () => {
    const { client, network, storage, events, register } = scene.device();
    const { id } = await register();
    const tokens = await storedTokens(storage);
    await scene.server.call('POST', '/v1/auth/revoke', { body: { token: tokens?.access_token } });
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(network.count(REFRESH)).toBe(1);
    expect(events).toEqual(['signedIn', 'tokenRefreshed']);
  });

  it('is one for all calls that wait for it', async () => {
    const { client, network, storage, register } = scene.device();
    const { id } = await register();
    await expireAccessToken(scene.key, storage);
    const calls = Array.from({ length: 30 }, () => client.call('GET /v1/users/me'));
    for (const user of await Promise.all(calls)) expect(user).toMatchObject({ id });
    expect(network.count(REFRESH)).toBe(1);
  });

  it('is one for two clients of one storage', async () => {
    const first = scene.device();
    const { id } = await first.register();
    await expireAccessToken(scene.key, first.storage);
    const second = scene.device({ storage: first.storage });
    const calls = [first, second, first, second].map(({ client }) => client.call('GET /v1/users/me'));
    for (const user of await Promise.all(calls)) expect(user).toMatchObject({ id });
    expect(first.network.count(REFRESH) + second.network.count(REFRESH)).toBe(1);
  });

  it('goes on for the others when a request that waits for it is cancelled', async () => {
    const { client, network, storage, events, register } = scene.device();
    const { id } = await register();
    await expireAccessToken(scene.key, storage);
    const held = network.hold(REFRESH);
    const cancelling = new AbortController();
    const cancelled = rejectionOf(client.call('GET /v1/users/me', { signal: cancelling.signal }));
    await held.arrived;
    const other = client.call('GET /v1/users/me');
    cancelling.abort(new Error('the screen was left'));
    expect((await cancelled).message).toBe('the screen was left');
    held.release();
    expect(await other).toMatchObject({ id });
    expect(network.count(REFRESH)).toBe(1);
    expect(events).toEqual(['signedIn', 'tokenRefreshed']);
  });
});

describe('a refresh that the server refuses', () => {
  it('signs out, with the reason, when the session was ended from another device', async () => {
    const { client, events, storage, register } = scene.device();
    const person = await register();
    const laptop = scene.device();
    await laptop.client.login(person.credentials);
    const { items } = await laptop.client.call('GET /v1/sessions');
    const phone = items.find(({ current }) => !current);
    await laptop.client.call('DELETE /v1/sessions/{id}', { params: { id: phone!.id } });
    expect(await rejectionOf(client.call('GET /v1/users/me'))).toMatchObject({
      name: 'ApiError',
      code: 'TOKEN_REVOKED',
    });
    expect(events).toEqual(['signedIn', 'signedOut: revoked']);
    expect(await storage.read()).toBeNull();
    expect(await liveSessions(scene, person.id)).toBe(1);
  });

  it('signs out as reused when another client went on with the tokens', async () => {
    // The thief's grace would be 30 s; a server without it stands for the time after.
    await using strict = await startClientScene({ REFRESH_GRACE_SECONDS: '0' });
    const { client, events, storage, register } = strict.device();
    await register();
    const { refresh_token: stolen } = (await storedTokens(storage))!;
    let token = stolen;
    for (let generation = 0; generation < 3; generation += 1) {
      const { body } = await strict.server.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
      token = (body as { refresh_token: string }).refresh_token;
    }
    await expireAccessToken(strict.key, storage);
    expect(await rejectionOf(client.call('GET /v1/users/me'))).toMatchObject({ code: 'TOKEN_REUSED' });
    expect(events).toEqual(['signedIn', 'signedOut: reused']);
  });

  it('signs out as invalid when the server does not know the token', async () => {
    const { client, events, storage, register } = scene.device();
    await register();
    await plant(storage, { refresh_token: 'grt1.none', access_token: 'none' });
    expect(await rejectionOf(client.call('GET /v1/users/me'))).toMatchObject({ code: 'INVALID_TOKEN' });
    expect(events).toEqual(['signedIn', 'signedOut: invalid']);
    // Once: the next call is anonymous.
    expect(await rejectionOf(client.call('GET /v1/users/me'))).toMatchObject({ code: 'AUTHENTICATION_REQUIRED' });
    expect(events).toHaveLength(2);
  });
});

describe('the device’s clock', () => {
  const DAY_MS = 86_400_000;

  it.each([
    ['a day behind', -DAY_MS],
    ['a day ahead', DAY_MS],
  ])('%s, changes nothing', async (_, offMs) => {
    const trueNow = Date.now;
    Date.now = () => trueNow() + offMs;
    try {
      const { client, network, elapse, storage, register } = scene.device();
      const { id } = await register();
      expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
      expect(network.count(REFRESH)).toBe(0);
      elapse(15 * MINUTE_MS);
      expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
      expect(network.count(REFRESH)).toBe(1);
      // A new start of the app, with nothing but what is stored.
      const started = scene.device({ storage });
      expect(await started.client.call('GET /v1/users/me')).toMatchObject({ id });
      expect(await started.client.call('GET /v1/users/me')).toMatchObject({ id });
      expect(started.network.count(REFRESH)).toBe(0);
    } finally {
      Date.now = trueNow;
    }
  });

  it('may jump by a day at any moment: the platform’s monotonic clock counts', async () => {
    const { network, storage } = scene.device();
    const client = createClient({ baseUrl: scene.server.app.url, storage, fetch: network.fetch });
    const { user } = await client.register(newcomer());
    const trueNow = Date.now;
    try {
      for (const offMs of [DAY_MS, -DAY_MS, DAY_MS]) {
        Date.now = () => trueNow() + offMs;
        expect(await client.call('GET /v1/users/me')).toMatchObject({ id: user.id });
      }
    } finally {
      Date.now = trueNow;
    }
    expect(network.count(REFRESH)).toBe(0);
  });

  it('does not count, and the server’s does: a stored token is renewed by the Date header', async () => {
    const { storage, register } = scene.device();
    const { id } = await register();
    const { network, client, elapse } = scene.device({ storage });
    // The first response brings the server's time.
    const response = await client.fetch('/health');
    expect(Date.parse(response.headers.get('Date') ?? '')).toBeGreaterThan(0);
    elapse(15 * MINUTE_MS);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(network.sent.map(({ operation }) => operation)).toEqual(['GET /health', REFRESH, ME]);
  });
});
