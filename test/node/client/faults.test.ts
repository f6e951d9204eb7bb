import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { createClient, memoryStorage } from '../../../src/client/index.ts';
import type { ApiError } from '../../../src/client/index.ts';
import type { ClientNetwork, NetworkFault } from '../../support/clientNetwork.ts';
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

const keysOf = (network: ClientNetwork, operation: string) =>
  network.sent.filter((sent) => sent.operation === operation).map(({ headers }) => headers.get('Idempotency-Key'));

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

  it('of a login: it is sent again with its key, and is one session', async () => {
    const { credentials, id } = await scene.device().register();
    const { client, network, events } = scene.device();
    network.fault({ kind: 'lost' }, { operation: LOGIN, times: 2 });
    await client.login(credentials);
    expect(keysOf(network, LOGIN)).toHaveLength(3);
    expect(new Set(keysOf(network, LOGIN)).size).toBe(1);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(await liveSessions(scene, id)).toBe(2);
    expect(events).toEqual(['signedIn']);
  });

  it('of every attempt to log in: the user may try again', async () => {
    const { credentials, id } = await scene.device().register();
    const { client, network } = scene.device();
    network.fault({ kind: 'lost' }, { operation: LOGIN });
    expect(await rejectionOf(client.login(credentials))).toMatchObject({ name: 'NetworkError' });
    expect(await client.isSignedIn()).toBe(false);
    network.clear();
    await client.login(credentials);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(new Set(keysOf(network, LOGIN)).size).toBe(2);
  });

  it('of a registration: the account is there once, and signed in', async () => {
    const device = scene.device();
    device.network.fault({ kind: 'lost' }, { operation: 'POST /v1/auth/register', times: 2 });
    const { id } = await device.register();
    await expectGoesOn(device, id);
  });

  it('of a read or of a change: it is sent again, and made once', async () => {
    const device = scene.device();
    const { id } = await device.register();
    device.network.fault({ kind: 'lost' }, { times: 1 });
    expect(await device.client.call('GET /v1/users/me')).toMatchObject({ id });
    expect(device.network.count(ME)).toBe(2);
    device.network.fault({ kind: 'lost' }, { operation: 'PATCH /v1/users/me', times: 2 });
    const changed = await device.client.call('PATCH /v1/users/me', { body: { name: 'Once' } });
    expect(changed).toMatchObject({ name: 'Once' });
    expect(new Set(keysOf(device.network, 'PATCH /v1/users/me')).size).toBe(1);
    await expectGoesOn(device, id);
  });

  it('of a password change: the session goes on', async () => {
    const device = scene.device();
    const { credentials, id } = await device.register();
    device.network.fault({ kind: 'lost' }, { operation: CHANGE_PASSWORD, times: 2 });
    const newPassword = 'another horse battery';
    await device.client.changePassword({ currentPassword: credentials.password, newPassword });
    expect(new Set(keysOf(device.network, CHANGE_PASSWORD)).size).toBe(1);
    await expectGoesOn(device, id);
    await expireAccessToken(scene.key, device.storage);
    await expectGoesOn(device, id);
    expect((await scene.device().client.login({ ...credentials, password: newPassword })).user.id).toBe(id);
  });

  it('of every attempt to change the password: the user tries again, and the session goes on', async () => {
    const device = scene.device();
    const { credentials, id } = await device.register();
    device.network.fault({ kind: 'lost' }, { operation: CHANGE_PASSWORD });
    const change = { currentPassword: credentials.password, newPassword: 'another horse battery' };
    expect(await rejectionOf(device.client.changePassword(change))).toMatchObject({ name: 'NetworkError' });
    device.network.clear();
    await device.client.changePassword(change);
    expect(new Set(keysOf(device.network, CHANGE_PASSWORD)).size).toBe(2);
    await expectGoesOn(device, id);
  });

  it.each([
    ['signing out everywhere', 'POST /v1/auth/logout-all', (device: Device) => device.client.signOutEverywhere()],
    ['deleting the account', 'DELETE /v1/users/me', (device: Device) => device.client.deleteAccount()],
  ])('of %s: it is confirmed by the next attempt', async (_, operation, end) => {
    const device = scene.device();
    const { id } = await device.register();
    device.network.fault({ kind: 'lost' }, { operation, times: 2 });
    await end(device);
    expect(device.network.count(operation)).toBe(3);
    expect(device.events).toEqual(['signedIn', 'signedOut: signed-out']);
    expect(await liveSessions(scene, id)).toBe(0);
  });

  it('of a request of the app’s own through fetch: it is sent again if it has a key', async () => {
    const device = scene.device();
    await device.register();
    const send = (headers: Record<string, string>) =>
      device.client.fetch('/v1/users/me', {
        method: 'PATCH',
        body: JSON.stringify({ name: 'Grace' }),
        headers: { 'Content-Type': 'application/json', ...headers },
      });
    device.network.fault({ kind: 'lost' }, { operation: 'PATCH /v1/users/me', times: 1 });
    expect(await rejectionOf(send({}))).toMatchObject({ name: 'NetworkError' });
    device.network.fault({ kind: 'lost' }, { operation: 'PATCH /v1/users/me', times: 1 });
    expect((await send({ 'Idempotency-Key': '"one"' })).headers.get('Idempotency-Replayed')).toBe('true');
  });

  it('while the first attempt is being executed: it waits as it is asked to', async () => {
    const device = scene.device();
    await device.register();
    const inUse = { kind: 'other', status: 409, body: '', headers: { 'Retry-After': '1' } } as const;
    device.network.fault(inUse, { operation: 'PATCH /v1/users/me', times: 2 });
    const change = device.client.call('PATCH /v1/users/me', { body: { name: 'Later' } });
    expect(await change).toMatchObject({ name: 'Later' });
    expect(device.network.count('PATCH /v1/users/me')).toBe(3);
    for (const ms of device.waits) expect(ms).toBeGreaterThanOrEqual(1_000);
  });
});

describe('without a network', () => {
  it('for an hour: the session stays, and the first call after it works', async () => {
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

describe('a response that is not the API’s', () => {
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
      // The client takes any JSON as the result of a read; it checks the shape of a refresh's response.
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

  it('both: a 503 does not end the session', async () => {
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
  it('such as a locked keychain: the call fails, and the session stays', async () => {
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
