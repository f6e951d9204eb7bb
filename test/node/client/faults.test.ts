import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { createClient, memoryStorage } from '../../../src/client/index.ts';
import type { ApiError } from '../../../src/client/index.ts';
import type { NetworkFault } from '../../support/clientNetwork.ts';
import { until } from '../faults/scene.ts';
import {
  databaseAway,
  expireAccessToken,
  liveSessions,
  LOGIN,
  ME,
  REFRESH,
  rejectionOf,
  startClientScene,
  storedTokens,
} from './scene.ts';
import type { ClientScene, Device } from './scene.ts';

let scene: ClientScene;

beforeAll(async () => {
  scene = await startClientScene();
});
afterAll(() => scene[Symbol.asyncDispose]());

const CHANGE_PASSWORD = 'POST /v1/auth/password';

const html = (status: number, headers: Record<string, string> = {}): NetworkFault => ({
  kind: 'other',
  status,
  body: '<html>Please sign in to this Wi-Fi</html>',
  headers: { 'Content-Type': 'text/html', ...headers },
});

const json = (status: number, body: unknown): NetworkFault => ({
  kind: 'other',
  status,
  body: JSON.stringify(body),
  headers: { 'Content-Type': 'application/json' },
});

/** Nothing was lost: the next call works, with the session that there was. */
async function expectGoesOn({ client, network, events }: Device, id: string): Promise<void> {
  network.clear();
  expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
  expect(await liveSessions(scene, id)).toBe(1);
  expect(events.filter((event) => event !== 'tokenRefreshed')).toEqual(['signedIn']);
}

describe('a lost response', () => {
  it('of a refresh: the same token is shown again and gets the same successor', async () => {
    const device = scene.device();
    const { id } = await device.register();
    await expireAccessToken(scene.key, device.storage);
    device.network.fault({ kind: 'lost' }, { operation: REFRESH, times: 2 });
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(device.network.count(REFRESH)).toBe(3);
    await expectGoesOn(device, id);
  });

  it('of every attempt to refresh: the call fails, and a later one succeeds', async () => {
    const device = scene.device();
    const { id } = await device.register();
    await expireAccessToken(scene.key, device.storage);
    const before = await storedTokens(device.storage);
    device.network.fault({ kind: 'lost' }, { operation: REFRESH });
    expect(await rejectionOf(device.client.call('GET /v1/users/me'))).toMatchObject({ name: 'NetworkError' });
    expect(await storedTokens(device.storage)).toEqual(before);
    await expectGoesOn(device, id);
  });

  it('of a login: it is not sent twice, and the user may try again', async () => {
    const { credentials, id } = await scene.device().register();
    const { client, network, events } = scene.device();
    network.fault({ kind: 'lost' }, { operation: LOGIN, times: 1 });
    expect(await rejectionOf(client.login(credentials))).toMatchObject({ name: 'NetworkError' });
    expect(network.count(LOGIN)).toBe(1);
    expect(await client.isSignedIn()).toBe(false);
    await client.login(credentials);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(events).toEqual(['signedIn']);
  });

  it('of a read is asked for again; that of a change is not', async () => {
    const device = scene.device();
    const { id } = await device.register();
    device.network.fault({ kind: 'lost' }, { times: 1 });
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(device.network.count(ME)).toBe(2);
    device.network.fault({ kind: 'lost' }, { times: 1 });
    const change = device.client.call('PATCH /v1/users/me', { body: { name: 'Once' } });
    expect(await rejectionOf(change)).toMatchObject({ name: 'NetworkError' });
    expect(device.network.count('PATCH /v1/users/me')).toBe(1);
    await expectGoesOn(device, id);
  });

  it('of a password change: the new password holds, and a login with it goes on', async () => {
    const { client, network, events, register } = scene.device();
    const { credentials, id } = await register();
    network.fault({ kind: 'lost' }, { operation: CHANGE_PASSWORD, times: 1 });
    const newPassword = 'another horse battery';
    const change = client.changePassword({ currentPassword: credentials.password, newPassword });
    expect(await rejectionOf(change)).toMatchObject({ name: 'NetworkError' });
    expect(network.count(CHANGE_PASSWORD)).toBe(1);
    await client.login({ ...credentials, password: newPassword });
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(events.filter((event) => event.startsWith('signedIn'))).toHaveLength(2);
  });

  // The server does not yet give the new tokens again. Once it does, this passes, and `fails` is to be removed.
  it.fails('of a password change: the session goes on', async () => {
    const device = scene.device();
    const { credentials, id } = await device.register();
    device.network.fault({ kind: 'lost' }, { operation: CHANGE_PASSWORD, times: 1 });
    const change = { currentPassword: credentials.password, newPassword: 'another horse battery' };
    await device.client.changePassword(change).catch(() => undefined);
    await expectGoesOn(device, id);
  });
});

describe('without a network', () => {
  it('for an hour: nobody is signed out, and the first call after it works', async () => {
    const device = scene.device();
    const { id } = await device.register();
    device.network.fault({ kind: 'offline' });
    for (let minute = 0; minute < 60; minute += 1) {
      device.elapse(60_000);
      expect(await rejectionOf(device.client.call('GET /v1/users/me'))).toMatchObject({ name: 'NetworkError' });
      expect(await device.client.isSignedIn()).toBe(true);
    }
    const refreshes = device.network.count(REFRESH);
    await expectGoesOn(device, id);
    expect(device.network.count(REFRESH)).toBe(refreshes + 1);
  });

  it('a call waits no longer than its budget', async () => {
    const { client, network, waits, register } = scene.device();
    await register();
    network.fault({ kind: 'offline' });
    await rejectionOf(client.call('GET /v1/users/me'));
    expect(network.count(ME)).toBeGreaterThan(1);
    expect(waits.reduce((sum, ms) => sum + ms, 0)).toBeLessThanOrEqual(10_000);
  });
});

describe('what is no response of the API', () => {
  it.each<[string, NetworkFault]>([
    ['a captive portal’s page with status 200', html(200)],
    ['a captive portal’s redirect', html(302, { Location: 'http://portal.test/' })],
    ['a captive portal’s 511', html(511)],
    ['a proxy’s 401', html(401, { 'WWW-Authenticate': 'Basic' })],
    ['a proxy’s 403', html(403)],
    ['a proxy’s 502', html(502)],
    ['JSON without tokens', json(200, { ok: true })],
    ['JSON that says 401 in its own way', json(401, { error: 'invalid_token' })],
    ['a rate limit before the API', json(429, { error: 'slow down' })],
    ['half of the JSON', { ...json(200, ''), body: '{"access_token":"ey' } as NetworkFault],
    ['an empty response', { ...json(200, ''), body: '' } as NetworkFault],
    ['no connection', { kind: 'offline' }],
  ])('%s: no session is lost', async (_, fault) => {
    const device = scene.device();
    const { id } = await device.register();
    device.network.fault(fault);
    if (fault.kind === 'other' && fault.body.startsWith('{"ok"')) {
      // A read cannot tell other JSON from its own; a refresh can.
      expect(await device.client.call('GET /v1/users/me')).toEqual({ ok: true });
    } else {
      expect(await rejectionOf(device.client.call('GET /v1/users/me'))).toMatchObject({ name: 'NetworkError' });
    }
    device.network.clear();
    await expireAccessToken(scene.key, device.storage);
    device.network.fault(fault, { operation: REFRESH });
    expect(await rejectionOf(device.client.call('GET /v1/users/me'))).toMatchObject({ name: 'NetworkError' });
    await expectGoesOn(device, id);
  });
});

describe('with a part of the server away', () => {
  const recovered = async () => {
    await scene.server.redis.clear();
    const { call } = scene.server;
    await until(
      'Redis is available',
      async () => ((await call('GET', '/ready')).body as { status: string }).status === 'ready',
    );
  };

  it('Redis: calls and refreshes go on', async () => {
    const device = scene.device();
    const { id } = await device.register();
    await expireAccessToken(scene.key, device.storage);
    scene.server.redis.mode = { kind: 'refuse' };
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    await expireAccessToken(scene.key, device.storage);
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    await recovered();
    await expireAccessToken(scene.key, device.storage);
    await expectGoesOn(device, id);
  });

  it('the database: those who are signed in go on', async () => {
    const device = scene.device();
    const { id } = await device.register();
    await device.client.call('GET /v1/users/me');
    await expireAccessToken(scene.key, device.storage);
    await using _away = await databaseAway(scene);
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(device.network.count(REFRESH)).toBe(1);
  });

  it('both: 503 signs nobody out', async () => {
    const device = scene.device();
    const { id } = await device.register();
    await expireAccessToken(scene.key, device.storage);
    {
      await using _away = await databaseAway(scene);
      scene.server.redis.mode = { kind: 'refuse' };
      const refused = await rejectionOf(device.client.call('GET /v1/users/me'));
      expect(refused).toMatchObject({ name: 'ApiError', status: 503, code: 'SERVICE_UNAVAILABLE' });
      expect(await device.client.isSignedIn()).toBe(true);
    }
    await recovered();
    await expectGoesOn(device, id);
  });
});

describe('a storage that fails', () => {
  it('such as a locked keychain: the call fails, and nobody is signed out', async () => {
    const inner = memoryStorage();
    let locked = false;
    const check = () => {
      if (locked) throw new Error('errSecInteractionNotAllowed');
    };
    const device = scene.device({
      storage: {
        read() {
          check();
          return inner.read();
        },
        write(value) {
          check();
          return inner.write(value);
        },
      },
    });
    const { id } = await device.register();
    locked = true;
    expect((await rejectionOf(device.client.call('GET /v1/users/me'))).message).toBe('errSecInteractionNotAllowed');
    expect(device.network.count(ME)).toBe(0);
    locked = false;
    // Read before, and locked when the refresh is to be stored: the older token still is good.
    await expireAccessToken(scene.key, device.storage);
    const held = device.network.hold(REFRESH);
    const call = rejectionOf(device.client.call('GET /v1/users/me'));
    await held.arrived;
    locked = true;
    held.release();
    expect((await call).message).toBe('errSecInteractionNotAllowed');
    locked = false;
    await expectGoesOn(device, id);
  });

  it('holds something else: a new sign-in overwrites it', async () => {
    const storage = memoryStorage();
    for (const foreign of ['not json', 'null', '{"access_token":1}', '[]']) {
      await storage.write(foreign);
      const { client, register } = scene.device({ storage });
      expect(await client.isSignedIn()).toBe(false);
      const { id } = await register();
      expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    }
  });
});

describe('waiting', () => {
  it('longer than the budget does not happen: the error says how long', async () => {
    await using limited = await startClientScene({ LIMIT_API: '1/1h' });
    const { client, network, waits, register } = limited.device();
    await register();
    await client.call('GET /v1/users/me');
    const refused = await rejectionOf(client.call('PATCH /v1/users/me', { body: { name: 'Later' } }));
    expect(refused).toMatchObject({ code: 'RATE_LIMITED', status: 429 });
    expect((refused as ApiError).retryAfterSeconds).toBeGreaterThan(10);
    expect(network.count('PATCH /v1/users/me')).toBe(1);
    expect(waits).toEqual([]);
  });

  it('a change that a limit refused is sent again: nothing was executed', async () => {
    const { client, network, waits, register } = scene.device();
    await register();
    network.fault(
      { kind: 'other', status: 429, body: '', headers: { 'Retry-After': '2' } },
      { operation: 'PATCH /v1/users/me', times: 2 },
    );
    expect(await client.call('PATCH /v1/users/me', { body: { name: 'Later' } })).toMatchObject({ name: 'Later' });
    expect(network.count('PATCH /v1/users/me')).toBe(3);
    for (const ms of waits) expect(ms).toBeGreaterThanOrEqual(2_000);
    expect(waits).toHaveLength(2);
  });

  it.each([
    ['seconds', () => '3', 3_000],
    ['a date', () => new Date(performance.timeOrigin + performance.now() + 5_000).toUTCString(), 4_000],
  ])('as %s', async (_, value, atLeastMs) => {
    const { client, network, waits, register } = scene.device();
    const { id } = await register();
    const date = new Date(performance.timeOrigin + performance.now()).toUTCString();
    network.fault(
      { kind: 'other', status: 503, body: '', headers: { 'Retry-After': value(), Date: date } },
      { times: 1 },
    );
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(waits).toHaveLength(1);
    expect(waits[0]).toBeGreaterThanOrEqual(atLeastMs);
    expect(waits[0]).toBeLessThanOrEqual(atLeastMs + 2_000);
  });

  it('a hanging connection is given up', async () => {
    const hanging = scene.device();
    const { id } = await hanging.register();
    let attempts = 0;
    const client = createClient({
      baseUrl: scene.server.app.url,
      storage: hanging.storage,
      timeoutMs: 200,
      fetch: (input, init) => {
        attempts += 1;
        // The platform's fetch, but one that heeds no signal.
        return attempts === 1 ? new Promise(() => undefined) : hanging.network.fetch(input, { ...init, signal: null });
      },
      wait: async () => {},
    });
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(attempts).toBeGreaterThan(1);
  });
});
