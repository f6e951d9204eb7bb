import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { memoryStorage } from '../../../src/client/index.ts';
import type { SessionStorage } from '../../../src/client/index.ts';
import {
  expireAccessToken,
  liveSessions,
  LOGIN,
  ME,
  REFRESH,
  rejectionOf,
  REVOKE,
  startClientScene,
  storedTokens,
} from './scene.ts';
import type { ClientScene } from './scene.ts';

let scene: ClientScene;

beforeAll(async () => {
  scene = await startClientScene();
});
afterAll(() => scene[Symbol.asyncDispose]());

/** As a Keychain is reached: every access takes turns of its own. */
function slowStorage(): SessionStorage {
  const inner = memoryStorage();
  const turns = async () => {
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  };
  return {
    async read() {
      await turns();
      return inner.read();
    },
    async write(value) {
      await turns();
      await inner.write(value);
      await turns();
    },
  };
}

describe.each([
  ['memory', memoryStorage],
  ['an asynchronous storage', slowStorage],
])('a sign-out with %s', (_, storageOf) => {
  it('ends the session here and on the server', async () => {
    const { client, storage, events, register } = scene.device({ storage: storageOf() });
    const { id } = await register();
    expect(await client.signOut()).toEqual({ confirmed: true });
    expect(await storage.read()).toBeNull();
    expect(await client.isSignedIn()).toBe(false);
    expect(await liveSessions(scene, id)).toBe(0);
    expect(events).toEqual(['signedIn', 'signedOut: signed-out']);
    expect(await client.signOut()).toEqual({ confirmed: true });
    expect(events).toHaveLength(2);
  });

  it('wins over a refresh whose response comes later, and the next user’s session stays', async () => {
    const { client, network, storage, events, register } = scene.device({ storage: storageOf() });
    const first = await register();
    await expireAccessToken(scene.key, storage);
    const held = network.hold(REFRESH);
    const call = rejectionOf(client.call('GET /v1/users/me'));
    await held.arrived;
    expect(await client.signOut()).toEqual({ confirmed: true });

    // The next user signs in while the refresh of the first one still is under way.
    const other = await scene.device().register();
    const login = client.login(other.credentials);
    held.release();
    expect(await call).toMatchObject({ name: 'SessionChangedError' });
    await login;
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id: other.id });
    expect(events).toEqual(['signedIn', 'signedOut: signed-out', 'signedIn']);
    expect(await liveSessions(scene, first.id)).toBe(0);
  });

  it('wins over a refresh at every moment', async () => {
    for (let turns = 0; turns < 40; turns += 1) {
      const { client, storage, register } = scene.device({ storage: storageOf() });
      const { id } = await register();
      await expireAccessToken(scene.key, storage);
      const call = client.call('GET /v1/users/me').catch(() => undefined);
      for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await client.signOut();
      await call;
      expect(await storage.read()).toBeNull();
      expect(await liveSessions(scene, id)).toBe(0);
    }
  });

  it('wins over a sign-in that is under way', async () => {
    const { client, network, storage, events } = scene.device({ storage: storageOf() });
    const { id, credentials } = await scene.device().register();
    const held = network.hold(LOGIN);
    const login = rejectionOf(client.login(credentials));
    await held.arrived;
    await client.signOut();
    held.release();
    expect(await login).toMatchObject({ name: 'SessionChangedError' });
    expect(await storage.read()).toBeNull();
    expect(events).toEqual([]);
    // The session that no client holds is ended: only the registration's is left.
    await expect.poll(() => liveSessions(scene, id)).toBe(1);
  });
});

it('a sign-out without a network forgets the session all the same', async () => {
  const { client, network, storage, events, register } = scene.device();
  await register();
  network.fault({ kind: 'offline' });
  expect(await client.signOut()).toEqual({ confirmed: false });
  expect(await storage.read()).toBeNull();
  expect(events).toEqual(['signedIn', 'signedOut: signed-out']);
});

it('a sign-out whose response is lost is repeated', async () => {
  const { client, network, register } = scene.device();
  const { id } = await register();
  network.fault({ kind: 'lost' }, { operation: REVOKE, times: 1 });
  expect(await client.signOut()).toEqual({ confirmed: true });
  expect(network.count(REVOKE)).toBe(2);
  expect(await liveSessions(scene, id)).toBe(0);
});

describe('another user of the same device', () => {
  it('never sees the response to a call of the one before', async () => {
    const { client, network, register } = scene.device();
    await register();
    const other = await scene.device().register();
    const held = network.hold(ME);
    const call = rejectionOf(client.call('GET /v1/users/me'));
    await held.arrived;
    await client.signOut();
    await client.login(other.credentials);
    held.release();
    expect(await call).toMatchObject({ name: 'SessionChangedError' });
  });

  it('never makes a change that the one before began', async () => {
    const { client, network, storage, register } = scene.device();
    await register();
    const other = await scene.device().register();
    await expireAccessToken(scene.key, storage);
    const held = network.hold('PATCH /v1/users/me');
    const change = rejectionOf(client.call('PATCH /v1/users/me', { body: { name: 'The first' } }));
    await held.arrived;
    // Refused with TOKEN_EXPIRED, and before the client knows it another user is signed in.
    await client.signOut();
    await client.login(other.credentials);
    held.release();
    expect(await change).toMatchObject({ name: 'SessionChangedError' });
    expect(network.count('PATCH /v1/users/me')).toBe(1);
    expect(await client.call('GET /v1/users/me')).not.toMatchObject({ name: 'The first' });
  });

  it('takes the place of the one before, whose session ends', async () => {
    const { client, events, register } = scene.device();
    const first = await register();
    const other = await scene.device().register();
    await client.login(other.credentials);
    expect(events).toEqual(['signedIn', 'signedOut: replaced', 'signedIn']);
    await expect.poll(() => liveSessions(scene, first.id)).toBe(0);
    expect(await client.call('GET /v1/users/me')).toMatchObject({ id: other.id });
  });
});

it('a change of the storage by another tab or process is noticed, and an event says so', async () => {
  const { client, storage, events, register } = scene.device();
  const { id } = await register();
  const tab = scene.device({ storage });
  expect(await tab.client.call('GET /v1/users/me')).toMatchObject({ id });
  expect(tab.events).toEqual([]);
  await client.signOut();
  expect(await rejectionOf(tab.client.call('GET /v1/users/me'))).toMatchObject({ code: 'AUTHENTICATION_REQUIRED' });
  expect(tab.events).toEqual(['signedOut: elsewhere']);
  const other = await scene.device().register();
  await client.login(other.credentials);
  expect(await tab.client.call('GET /v1/users/me')).toMatchObject({ id: other.id });
  expect(tab.events).toEqual(['signedOut: elsewhere', 'signedIn']);
  expect(events).toEqual(['signedIn', 'signedOut: signed-out', 'signedIn']);
});

it('everywhere, and with the account', async () => {
  const phone = scene.device();
  const { id, credentials } = await phone.register();
  const laptop = scene.device();
  await laptop.client.login(credentials);
  await laptop.client.signOutEverywhere();
  expect(await liveSessions(scene, id)).toBe(0);
  expect(await rejectionOf(phone.client.call('GET /v1/users/me'))).toMatchObject({ code: 'TOKEN_REVOKED' });
  expect(phone.events).toEqual(['signedIn', 'signedOut: revoked']);
  expect(laptop.events).toEqual(['signedIn', 'signedOut: signed-out']);

  await phone.client.login(credentials);
  await phone.client.deleteAccount();
  expect(await phone.client.isSignedIn()).toBe(false);
  expect(await rejectionOf(phone.client.login(credentials))).toMatchObject({ code: 'INVALID_CREDENTIALS' });
});

it('a password change keeps this session, with tokens that a refresh at the same time does not undo', async () => {
  const { client, network, storage, events, register } = scene.device();
  const { credentials, id } = await register();
  await expireAccessToken(scene.key, storage);
  const held = network.hold('POST /v1/auth/password');
  const change = client.changePassword({ currentPassword: credentials.password, newPassword: 'another horse battery' });
  await held.arrived;
  held.release();
  const calls = Array.from({ length: 5 }, () => client.call('GET /v1/users/me'));
  await change;
  for (const user of await Promise.all(calls)) expect(user).toMatchObject({ id });
  const before = await storedTokens(storage);
  expect(await client.call('GET /v1/users/me')).toMatchObject({ id });
  expect(await storedTokens(storage)).toEqual(before);
  expect(events.filter((event) => event.startsWith('signedOut'))).toEqual([]);
  const wrong = { currentPassword: 'not this one', newPassword: 'yet another horse' };
  expect(await rejectionOf(client.changePassword(wrong))).toMatchObject({ code: 'PASSWORD_INCORRECT', status: 403 });
  expect(await client.isSignedIn()).toBe(true);
});

it('an account is deleted after a fresh proof of the password, which keeps the session and its refresh token', async () => {
  const { client, network, storage, events, register } = scene.device();
  const { credentials, id } = await register();
  await scene.server.app.sql('UPDATE sessions SET created_at_ms = 1 WHERE user_id = ?', id);
  await expireAccessToken(scene.key, storage);
  const refused = await rejectionOf(client.deleteAccount());
  expect(refused).toMatchObject({ code: 'REAUTHENTICATION_REQUIRED', status: 401 });
  // No refresh helps: one has brought the token that was refused.
  expect(network.count(REFRESH)).toBe(1);
  expect(await rejectionOf(client.reauthenticate('not this one'))).toMatchObject({ code: 'PASSWORD_INCORRECT' });
  const { refresh_token: before } = (await storedTokens(storage)) as { refresh_token: string };
  await client.reauthenticate(credentials.password);
  expect(await storedTokens(storage)).toMatchObject({ refresh_token: before });
  expect(events.filter((event) => event.startsWith('signedOut'))).toEqual([]);
  await client.deleteAccount();
  expect(await client.isSignedIn()).toBe(false);
  expect(await scene.server.app.sql('SELECT 1 FROM users WHERE id = ?', id)).toEqual([]);
});

it('calls that meet the old tokens while a password change is under way wait for the new ones', async () => {
  const { client, network, events, register } = scene.device();
  const { credentials, id } = await register();
  const held = network.hold('POST /v1/auth/password');
  const change = client.changePassword({ currentPassword: credentials.password, newPassword: 'another horse battery' });
  await held.arrived;
  // The server has ended the present tokens already; the new ones have not arrived.
  const call = client.call('GET /v1/users/me');
  await expect.poll(() => network.sent.findLast(({ operation }) => operation === ME)?.status).toBe(401);
  held.release();
  await change;
  expect(await call).toMatchObject({ id });
  expect(network.count(REFRESH)).toBe(0);
  expect(events).toEqual(['signedIn']);
});
