import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { DatabaseUnavailable } from '../../../src/db/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import { blacklistMerge } from '../../../src/redis/scripts/blacklistMerge';
import type { RequestScope } from '../../../src/services/scope';
import type { Answer } from '../../support/client';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

const device = { device: 'Phone', address: '203.0.113.9' };
const password = 'correct horse battery';

const bound = bindings({ SESSIONS_PER_USER: '2' });
const isolate = isolateFor(bound);
const call = callerOf(createApp({ isolate }), bound);
/** An isolate that has seen nothing of what the first one did. */
const elsewhere = () => callerOf(createApp({ isolate: isolateFor(bound) }), bound);

let counter = 0;
let email = '';
let owner: Tokens;

interface Tokens {
  access: string;
  refresh: string;
  userId: string;
  sessionId: string;
}

function tokensOf({ body }: Answer): Tokens {
  const claims = JSON.parse(Buffer.from(body.access_token.split('.')[1], 'base64url').toString()) as Record<
    string,
    string
  >;
  return { access: body.access_token, refresh: body.refresh_token, userId: claims['sub']!, sessionId: claims['sid']! };
}

const login = async (given = password) =>
  tokensOf(await call('POST', '/v1/auth/login', { body: { email, password: given } }));
const me = (token: string, from = call) => from('GET', '/v1/users/me', { token });
const refresh = (token: string, from = call) => from('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
const logout = (token: string) => call('POST', '/v1/auth/logout', { token });
const forget = (...keys: string[]) => inRequest(({ batch }) => batch.send('UNLINK', ...keys), { isolate });

const refused = { status: 401, body: { code: 'TOKEN_REVOKED' } };

beforeEach(async () => {
  counter += 1;
  email = `revoked${counter}@example.com`;
  owner = tokensOf(await call('POST', '/v1/auth/register', { body: { email, password, name: 'Revoked' } }));
});

describe('a login beyond the cap', () => {
  test('ends the session that would expire first, in Redis too', async () => {
    await login();
    await login();
    expect(await me(owner.access, elsewhere())).toMatchObject(refused);
    expect(await refresh(owner.refresh, elsewhere())).toMatchObject(refused);
    const { results } = await env.DB.prepare('select state from outbox where instr(message, ?)')
      .bind(owner.sessionId)
      .all();
    expect(results).toEqual([{ state: 'delivered' }]);
  });
});

describe('a login that is overtaken by a new password', () => {
  test('ends no session: the one that changed the password goes on', async () => {
    await login();
    let batches = 0;
    let changed: Answer | undefined;
    // Read, then written: the password is changed in between, with the old one still in the login's hands.
    const db = tappedD1(async (query, kind) => {
      if (kind === 'batch' && (batches += 1) === 2) {
        const body = { currentPassword: password, newPassword: 'another horse battery' };
        changed = await call('POST', '/v1/auth/password', { token: owner.access, body });
      }
      return query();
    });
    const late = inRequest(({ services }) => services.auth.login({ email, password }, device), { isolate, db });
    await expect(late).rejects.toMatchObject({ code: 'INVALID_CREDENTIALS' });
    expect(changed).toMatchObject({ status: 200 });
    const { results } = await env.DB.prepare('select ended_reason from sessions where id = ?')
      .bind(owner.sessionId)
      .all();
    expect(results).toEqual([{ ended_reason: null }]);
    const enqueued = await env.DB.prepare(`select message from outbox where instr(message, ?)`)
      .bind(owner.sessionId)
      .all();
    expect(enqueued.results).toEqual([]);
    expect(await me(tokensOf(changed!).access, elsewhere())).toMatchObject({ status: 200 });
  });
});

describe('a change whose message a probe of another isolate delivers first', () => {
  /** D1 whose batches return only when what they have left in the outbox is delivered. */
  const overtaken = () =>
    tappedD1(async (query, kind) => {
      const result = await query();
      if (kind === 'batch')
        await inRequest(({ services }) => services.outbox.deliverPending(), { isolate: isolateFor(bound) });
      return result;
    });
  const versionMessages = async () => {
    const { results } = await env.DB.prepare(
      `select message from outbox where instr(message, '"kind":"epoch"') and instr(message, ?)`,
    )
      .bind(owner.userId)
      .all();
    return results.length;
  };
  const claimsOf = (token: string) => inRequest(({ services }) => services.token.verifyAccess(token), { isolate });

  test('does not take the database for restored: the session that changed the password goes on', async () => {
    const claims = await claimsOf(owner.access);
    const changed = await inRequest(
      ({ services }) => services.auth.changePassword(claims, password, 'another horse battery'),
      { isolate, db: overtaken() },
    );
    expect(await versionMessages()).toBe(1);
    expect(await me(changed.access_token, elsewhere())).toMatchObject({ status: 200 });
    expect(await refresh(changed.refresh_token, elsewhere())).toMatchObject({ status: 200 });
    expect(await refresh(owner.refresh, elsewhere())).toMatchObject(refused);
  });

  test('nor for the role of an account', async () => {
    await inRequest(({ services }) => services.user.updateUser(owner.userId, { role: 'admin' }), {
      isolate,
      db: overtaken(),
    });
    expect(await versionMessages()).toBe(1);
    const { access } = tokensOf(await refresh(owner.refresh));
    expect(await me(access, elsewhere())).toMatchObject({ status: 200, body: { role: 'admin' } });
  });
});

describe('a database that was restored to before Redis’s versions of a user', () => {
  /** Further than a change can get by itself. */
  const AHEAD = 5_000;
  const restore = (field: 'ep' | 'av') =>
    inRequest(
      ({ batch }) => batch.run(blacklistMerge, [isolate.keys.blacklist(owner.userId)], [60_000, field, AHEAD]),
      {
        isolate,
      },
    );
  const versions = () =>
    env.DB.prepare('select epoch, access_version from users where id = ?')
      .bind(owner.userId)
      .first<{ epoch: number; access_version: number }>();

  test('goes on after them with a new password, and the session that changed it as well', async () => {
    const claims = await inRequest(({ services }) => services.token.verifyAccess(owner.access), { isolate });
    const other = await login();
    await restore('ep');
    const changed = await inRequest(
      ({ services }) => services.auth.changePassword(claims, password, 'another horse battery'),
      { isolate },
    );
    expect((await versions())?.epoch).toBeGreaterThan(AHEAD);
    expect(await me(changed.access_token, elsewhere())).toMatchObject({ status: 200 });
    expect(await refresh(changed.refresh_token, elsewhere())).toMatchObject({ status: 200 });
    expect(await refresh(other.refresh, elsewhere())).toMatchObject(refused);
    expect(await refresh(owner.refresh, elsewhere())).toMatchObject(refused);
  });

  test('a session that a lost logout everywhere has ended stays refused', async () => {
    const stolen = await login();
    const former = await versions();
    expect(await call('POST', '/v1/auth/logout-all', { token: owner.access })).toMatchObject({ status: 204 });
    // What the database has from before the logout.
    await env.DB.batch([
      env.DB.prepare('update users set epoch = ? where id = ?').bind(former!.epoch, owner.userId),
      env.DB.prepare('update sessions set ended_at_ms = null, ended_reason = null where user_id = ?').bind(
        owner.userId,
      ),
      env.DB.prepare('delete from outbox where instr(message, ?)').bind(owner.userId),
    ]);
    expect(await me(stolen.access, elsewhere())).toMatchObject(refused);
    expect(await refresh(stolen.refresh, elsewhere())).toMatchObject(refused);
  });

  test('a session that began while Redis could not be read is refused once it can be, and the next login works', async () => {
    await restore('ep');
    const client = { execute: () => Promise.reject(new RedisUnavailable('refused')) };
    const withoutRedis = callerOf(createApp({ isolate: isolateFor(bound, { client }) }), bound);
    const begun = tokensOf(await withoutRedis('POST', '/v1/auth/login', { body: { email, password } }));
    expect(await me(begun.access, withoutRedis)).toMatchObject({ status: 200 });
    expect(await me(begun.access, elsewhere())).toMatchObject(refused);
    expect(await refresh(begun.refresh, elsewhere())).toMatchObject(refused);
    const next = await login();
    expect(await me(next.access, elsewhere())).toMatchObject({ status: 200 });
    expect(await refresh(next.refresh, elsewhere())).toMatchObject({ status: 200 });
  });

  test('and with a new role', async () => {
    await restore('av');
    await inRequest(({ services }) => services.user.updateUser(owner.userId, { role: 'admin' }), { isolate });
    expect((await versions())?.access_version).toBeGreaterThan(AHEAD);
  });
});

describe('a Redis that has lost its data', () => {
  test('is not given an epoch without its denials, by a change that changes nothing', async () => {
    const admin = tokensOf(
      await call('POST', '/v1/auth/register', { body: { email: `admin.${email}`, password, name: 'Admin' } }),
    );
    await env.DB.prepare(`update users set role = 'admin', access_version = 2 where id = ?`).bind(admin.userId).run();
    await forget(isolate.keys.blacklist(admin.userId), isolate.keys.session(admin.sessionId));
    const { access } = tokensOf(await refresh(admin.refresh));
    const gone = await login();
    expect(await call('POST', '/v1/auth/revoke', { body: { token: gone.access } })).toMatchObject({ status: 200 });
    await forget(isolate.keys.blacklist(owner.userId));
    const patch = await call('PATCH', `/v1/users/${owner.userId}`, { token: access, body: { status: 'active' } });
    expect(patch).toMatchObject({ status: 200 });
    expect(await me(gone.access, elsewhere())).toMatchObject(refused);
    expect(await me(owner.access, elsewhere())).toMatchObject({ status: 200 });
  });

  test('nor by the second delivery of a role’s change', async () => {
    await inRequest(({ services }) => services.user.updateUser(owner.userId, { role: 'admin' }), { isolate });
    const gone = await login();
    await logout(gone.access);
    await forget(isolate.keys.blacklist(owner.userId), isolate.keys.session(gone.sessionId));
    await env.DB.prepare(`delete from outbox where not (instr(message, '"epoch":') and instr(message, ?))`)
      .bind(owner.userId)
      .run();
    await inRequest(({ services }) => services.outbox.deliverDue(), { isolate: isolateFor(bound) });
    expect(await me(gone.access, elsewhere())).toMatchObject(refused);
  });

  test('keeps its epoch when a request delivers an older one that it read before', async () => {
    const key = isolate.keys.blacklist(owner.userId);
    await forget(key);
    await inRequest(({ batch }) => batch.run(blacklistMerge, [key], [60_000, 'least', 2, 'av', 1]), { isolate });
    await inRequest(({ batch }) => batch.run(blacklistMerge, [key], [60_000, 'ep', 1, 'av', 1]), { isolate });
    expect(await me(owner.access, elsewhere())).toMatchObject(refused);
  });
});

describe('a logout', () => {
  test('ends a session whose last use D1 does not have', async () => {
    const { access, refresh: token, sessionId } = await login();
    await env.DB.prepare('update sessions set last_seen_at_ms = ? where id = ?')
      .bind(Date.now() - 8 * 86_400_000, sessionId)
      .run();
    expect(await logout(access)).toMatchObject({ status: 204 });
    expect(await refresh(token, elsewhere())).toMatchObject(refused);
    expect(await me(access, elsewhere())).toMatchObject(refused);
  });
});

/** Remembers what Redis has of the owner. @returns takes it back to that */
async function restorable(): Promise<() => Promise<void>> {
  const keys = [isolate.keys.session(owner.sessionId), isolate.keys.blacklist(owner.userId)];
  const read = inRequest(({ batch }) => Promise.all(keys.map((key) => batch.send('HGETALL', key))), { isolate });
  const hashes = (await read) as string[][];
  return async () => {
    await forget(...keys);
    const write = ({ batch }: RequestScope) =>
      Promise.all(keys.map((key, index) => batch.send('HSET', key, ...hashes[index]!)));
    await inRequest(write, { isolate });
  };
}

describe('a refresh token that was copied, after Redis has gone back in time', () => {
  test('shown again, it ends the access token that the thief got for it', async () => {
    const goBack = await restorable();
    const thief = tokensOf(await refresh(owner.refresh, elsewhere()));
    await goBack();
    const again = tokensOf(await refresh(owner.refresh, elsewhere()));
    expect(await me(thief.access, elsewhere())).toMatchObject({ status: 401, body: { code: 'TOKEN_SUPERSEDED' } });
    expect(await me(again.access, elsewhere())).toMatchObject({ status: 200 });
  });

  test('shown again when its successors were used, it ends the session', async () => {
    const goBack = await restorable();
    let thief = owner;
    for (let i = 0; i < 3; i += 1) thief = tokensOf(await refresh(thief.refresh, elsewhere()));
    await goBack();
    expect(await refresh(owner.refresh, elsewhere())).toMatchObject({ status: 401, body: { code: 'TOKEN_REUSED' } });
    expect(await refresh(thief.refresh, elsewhere())).toMatchObject(refused);
    expect(await me(thief.access, elsewhere())).toMatchObject(refused);
  });
});

describe('the record of a session, in the isolate that has made a change, after Redis has gone back in time', () => {
  const session = () => inRequest(({ services }) => services.session.getSession(owner.sessionId), { isolate });

  test('is gone when all sessions of its owner were ended', async () => {
    const goBack = await restorable();
    expect(await session()).toMatchObject({ userId: owner.userId });
    expect(await call('POST', '/v1/auth/logout-all', { token: owner.access })).toMatchObject({ status: 204 });
    await goBack();
    expect(await session()).toBeNull();
  });

  test('has the new role', async () => {
    const goBack = await restorable();
    await inRequest(({ services }) => services.user.updateUser(owner.userId, { role: 'admin' }), { isolate });
    await goBack();
    expect(await session()).toMatchObject({ role: 'admin' });
  });
});

describe('the role of an account', () => {
  const session = (from = isolate) =>
    inRequest(({ services }) => services.session.getSession(owner.sessionId), { isolate: from });

  test('is that of its sessions: a role that was taken is gone from them', async () => {
    const setRole = (role: 'admin' | 'user') =>
      inRequest(({ services }) => services.user.updateUser(owner.userId, { role }), { isolate });
    await setRole('admin');
    const admin = await login();
    const asAdmin = () =>
      inRequest(({ services }) => services.session.getSession(admin.sessionId), { isolate: isolateFor(bound) });
    expect(await asAdmin()).toEqual({ userId: owner.userId, email, role: 'admin' });
    expect(await session()).toMatchObject({ role: 'admin' });
    await setRole('user');
    expect(await asAdmin()).toMatchObject({ role: 'user' });
    expect(await asAdmin()).toMatchObject({ role: 'user' });
    // After a refresh, whose record is of today, as well.
    await refresh(admin.refresh);
    expect(await asAdmin()).toMatchObject({ role: 'user' });
  });

  test('leaves Redis with it', async () => {
    await me(owner.access);
    await session();
    const dump = async () => {
      const names = [isolate.keys.session(owner.sessionId), isolate.keys.user(owner.userId)];
      const [record, cached] = await inRequest(
        ({ batch }) => Promise.all([batch.send('HGETALL', names[0]!), batch.send('GET', names[1]!)]),
        { isolate },
      );
      return JSON.stringify([record, cached]);
    };
    expect(await dump()).toContain(email);
    expect(await call('DELETE', '/v1/users/me', { token: owner.access })).toMatchObject({ status: 204 });
    expect(await dump()).not.toContain(email);
    expect(await me(owner.access, elsewhere())).toMatchObject(refused);
  });
});

describe('a logout that the database misses', () => {
  test('is recorded a moment later, though a retry of the app gets the response that it is signed out', async () => {
    const { access, refresh: token, sessionId } = await login();
    const claims = await inRequest(({ services }) => services.token.verifyAccess(access), { isolate });
    let batches = 0;
    const db = tappedD1(async (query, kind) => {
      // The first batch reads, the second records.
      if (kind === 'batch' && (batches += 1) === 2) throw new Error('D1_ERROR: no such luck');
      return query();
    });
    const late = inRequest(({ services }) => services.auth.logout(claims), { isolate, db });
    await expect(late).rejects.toThrow(DatabaseUnavailable);
    expect(await logout(access)).toMatchObject(refused);
    expect(batches).toBe(3);
    await forget(isolate.keys.blacklist(owner.userId), isolate.keys.session(sessionId));
    expect(await refresh(token, elsewhere())).toMatchObject(refused);
    expect(await me(access, elsewhere())).toMatchObject(refused);
  });
});

describe('a new password', () => {
  test('leaves the session to who set it, however often it was refreshed meanwhile', async () => {
    let latest = owner.refresh;
    let rounds = 0;
    const db = tappedD1(async (query, kind) => {
      // Between what was read and what is written.
      if (kind === 'batch' && (rounds += 1) === 2) {
        for (let i = 0; i < 5; i += 1) latest = tokensOf(await refresh(latest)).refresh;
      }
      return query();
    });
    const claims = await inRequest(({ services }) => services.token.verifyAccess(owner.access), { isolate });
    const renewed = await inRequest(
      ({ services }) => services.auth.changePassword(claims, password, 'another horse battery'),
      { isolate, db },
    );
    const next = await refresh(renewed.refresh_token);
    expect(next).toMatchObject({ status: 200 });
    expect(await refresh(latest)).toMatchObject(refused);
    expect(await me(tokensOf(next).access)).toMatchObject({ status: 200 });
  });
});
