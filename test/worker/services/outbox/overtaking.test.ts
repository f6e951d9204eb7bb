import { env } from 'cloudflare:workers';
import { eq } from 'drizzle-orm';
import { beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../../src/app';
import { users } from '../../../../src/db/schema';
import type { RedisBatch } from '../../../../src/redis/batch';
import { RedisUnavailable } from '../../../../src/redis/errors';
import { createDelivery } from '../../../../src/services/outbox/delivery';
import { MOST_AHEAD } from '../../../../src/services/outbox/message';
import { createOvertaking } from '../../../../src/services/outbox/overtaking';
import { pendingLot } from '../../../../src/services/outbox/rows';
import type { UserVersions } from '../../../../src/services/blacklist/denials';
import type { RequestScope } from '../../../../src/services/scope';
import { tappedD1 } from '../../support/database';
import { bindings, callerOf, inRequest, isolateFor } from '../../support/request';

const password = 'correct horse battery';
const device = { device: 'Phone', address: '203.0.113.9' };
/** The epoch and the access version of the time that D1 has lost: larger than a change makes by itself. */
const LOST = 5_000;

const bound = bindings();
const isolate = isolateFor(bound);
/** An isolate that has seen nothing of what others did. */
const elsewhere = () => callerOf(createApp({ isolate: isolateFor(bound) }), bound);
const request = <T>(fn: (scope: RequestScope) => Promise<T>, db?: D1Database) =>
  inRequest(fn, { isolate: isolateFor(bound), ...(db && { db }) });
const read = (token: string) => elsewhere()('GET', '/v1/users/me', { token });
const refresh = (token: string) => elsewhere()('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
const deliver = (db?: D1Database) => request(({ services }) => services.outbox.deliverDue(), db);
const repeatAll = () => request(({ services }) => services.outbox.deliverPending());

let counter = 0;
let email = '';
let userId = '';

beforeEach(async () => {
  await deliver();
  counter += 1;
  email = `overtaken${counter}@example.com`;
  userId = await register(email);
});

async function register(address: string): Promise<string> {
  const body = { email: address, password, name: 'Overtaken' };
  const registered = await elsewhere()('POST', '/v1/auth/register', { body });
  return registered.body.user.id as string;
}

const login = (address = email) => request(({ services }) => services.auth.login({ email: address, password }, device));

const versions = (id = userId) =>
  env.DB.prepare('select epoch, access_version as accessVersion from users where id = ?')
    .bind(id)
    .first<UserVersions>() as Promise<UserVersions>;
const setVersions = ({ epoch, accessVersion }: UserVersions, id = userId) =>
  env.DB.prepare('update users set epoch = ?, access_version = ? where id = ?').bind(epoch, accessVersion, id).run();

/** The user signs in under versions that D1 then loses; Redis keeps them. @returns the tokens of that session */
async function loseVersions(address = email, id = userId, at = LOST) {
  const former = await versions(id);
  await setVersions({ epoch: at, accessVersion: at }, id);
  const tokens = await login(address);
  await setVersions(former, id);
  const { sessionId } = await request(({ services }) => services.token.verifyAccess(tokens.access_token));
  await env.DB.prepare('delete from sessions where id = ?').bind(sessionId).run();
  expect(await read(tokens.access_token)).toMatchObject({ status: 200 });
  return tokens;
}

/** A change raises versions by 7, and its request dies before it delivers the message. */
const change = (raised: readonly (keyof UserVersions)[], id = userId) =>
  request(async ({ database, services }) => {
    const entry = services.outbox.prepareVersions(id, raised);
    const { epoch, accessVersion } = await versions(id);
    const next = {
      updatedAtMs: Date.now(),
      ...(raised.includes('epoch') && { epoch: epoch + 7 }),
      ...(raised.includes('accessVersion') && { accessVersion: accessVersion + 7 }),
    };
    await database.batch((db) => [db.update(users).set(next).where(eq(users.id, id)), ...entry.statements(db)]);
    return entry;
  });

const messages = async (id = userId) => {
  const { results } = await env.DB.prepare(
    `select message, state from outbox where instr(message, '"kind":"epoch"') and instr(message, ?) order by seq`,
  )
    .bind(id)
    .all<{ message: string; state: string }>();
  return results.map(({ message, state }) => Object.assign(JSON.parse(message) as UserVersions, { state }));
};

/** D1 that counts its round trips. */
function counted() {
  const count = { trips: 0 };
  const db = tappedD1((query) => {
    count.trips += 1;
    return query();
  });
  return { count, db };
}

const revoked = { status: 401, body: { code: 'TOKEN_REVOKED' } };
const superseded = { status: 401, body: { code: 'TOKEN_SUPERSEDED' } };

describe('a message that is delivered later to a Redis with larger versions, since D1 was restored from a backup', () => {
  test('raises D1’s epoch above them: the tokens of the lost time end, a session of after the change goes on', async () => {
    const lost = await loseVersions();
    await change(['epoch']);
    const sessionId = `${userId}.own`;
    const findSession = ({ services }: RequestScope) => services.session.getSession(sessionId);
    await request(({ services }) => services.session.createSession(sessionId, { userId, email, role: 'user' }));
    const { accessVersion } = await versions();

    await deliver();

    const after = await versions();
    expect(after.epoch).toBeGreaterThan(LOST);
    expect(after.accessVersion).toBe(accessVersion);
    expect(await read(lost.access_token)).toMatchObject(revoked);
    expect(await request(findSession)).toMatchObject({ userId });
    const latest = await login();
    expect(await read(latest.access_token)).toMatchObject({ status: 200 });
    expect(await refresh(latest.refresh_token)).toMatchObject({ status: 200 });
    expect(await messages()).toMatchObject([
      { state: 'delivered', epochRaised: 1 },
      { state: 'delivered', epoch: after.epoch },
    ]);
  });

  test('does so once, however often messages are delivered again', async () => {
    await loseVersions();
    await change(['epoch']);
    await change(['epoch', 'accessVersion']);
    await deliver();
    const after = await versions();
    expect(Math.min(after.epoch, after.accessVersion)).toBeGreaterThan(LOST);
    const { access_token } = await login();
    const known = await messages();
    await repeatAll();
    await deliver();
    await env.DB.prepare(`update outbox set state = 'pending' where instr(message, ?)`).bind(userId).run();
    await deliver();
    expect(await versions()).toEqual(after);
    expect(await messages()).toEqual(known);
    expect(await read(access_token)).toMatchObject({ status: 200 });
  });

  test('waits for the next run while the new versions cannot be delivered to Redis', async () => {
    const lost = await loseVersions();
    await change(['epoch']);
    const run = async () => Promise.reject(new RedisUnavailable('refused'));
    await inRequest(
      async ({ database, batch, now }) => {
        const { keys, config, denials } = isolate;
        const { instruments } = isolate.metrics;
        const deps = { database, keys, config, denials, instruments, now, forgetReads: () => undefined };
        const freshBatch = () => batch;
        const { deliverLot } = createDelivery({ ...deps, freshBatch }, createOvertaking(deps));
        // The message arrives, and what follows does not.
        const batches = [batch, { run } as unknown as RedisBatch];
        const lot = await deliverLot(await pendingLot(database, Date.now()), () => batches.shift() ?? batch);
        expect(lot).toEqual({ delivered: 0, unreachable: 1 });
      },
      { isolate },
    );
    const { epoch } = await versions();
    expect(epoch).toBeGreaterThan(LOST);
    expect(await messages()).toMatchObject([{ state: 'pending' }, { state: 'pending', epoch }]);
    expect(await read(lost.access_token)).toMatchObject({ status: 200 });
    await deliver();
    expect((await versions()).epoch).toBe(epoch);
    expect(await read(lost.access_token)).toMatchObject(revoked);
  });

  test('raises only what its change has raised: a new role leaves the sessions of the lost time alone', async () => {
    const lost = await loseVersions();
    await change(['accessVersion']);
    const { epoch } = await versions();
    await deliver();
    expect((await versions()).epoch).toBe(epoch);
    expect((await versions()).accessVersion).toBeGreaterThan(LOST);
    expect(await read(lost.access_token)).toMatchObject(superseded);
  });

  test('leaves the epoch for a later message that has raised it', async () => {
    const lost = await loseVersions();
    await change(['accessVersion']);
    await deliver();
    await change(['epoch']);
    await deliver();
    expect((await versions()).epoch).toBeGreaterThan(LOST);
    expect(await read(lost.access_token)).toMatchObject(revoked);
  });

  test('accepts no versions that are further ahead than lost changes can have brought them', async () => {
    await loseVersions(email, userId, 2 * MOST_AHEAD);
    await change(['epoch']);
    const before = await versions();
    await deliver();
    expect(await versions()).toEqual(before);
    expect(await messages()).toMatchObject([{ state: 'delivered' }]);
  });

  test('of a former release is delivered as it is', async () => {
    await loseVersions();
    await change([]);
    const before = await versions();
    await deliver();
    expect(await versions()).toEqual(before);
    expect(await messages()).toMatchObject([{ state: 'delivered' }]);
  });

  test('ends the tokens of an account that was deleted', async () => {
    const lost = await loseVersions();
    await change(['epoch']);
    await env.DB.prepare('delete from users where id = ?').bind(userId).run();
    await deliver();
    expect(await read(lost.access_token)).toMatchObject(revoked);
  });

  test('ends the tokens of the lost time when the user has signed in before the delivery', async () => {
    const lost = await loseVersions();
    await change(['epoch']);
    const { access_token } = await login();
    expect((await versions()).epoch).toBeGreaterThan(LOST);
    await deliver();
    expect(await read(lost.access_token)).toMatchObject(revoked);
    expect(await read(access_token)).toMatchObject({ status: 200 });
  });

  test('and when a token of the lost time was refreshed before, in a session that the change left alive', async () => {
    const lost = await loseVersions();
    await change(['epoch']);
    const { epoch } = await versions();
    const { results } = await env.DB.prepare('update sessions set epoch = ? where user_id = ? returning id')
      .bind(epoch, userId)
      .all<{ id: string }>();
    const [session] = results;
    const grant = { sessionId: session!.id, generation: 1, epoch: LOST, expiresAtMs: Date.now() + 86_400_000 };
    await request(({ services }) => services.session.refresh(grant));
    expect((await versions()).epoch).toBeGreaterThan(LOST);
    expect(await read(lost.access_token)).toMatchObject({ status: 200 });
    await deliver();
    expect(await read(lost.access_token)).toMatchObject(revoked);
  });
});

describe('a message that is delivered after a later change of the same user', () => {
  test('changes nothing, at one query', async () => {
    const tripsOf = async (raised: readonly (keyof UserVersions)[]) => {
      await deliver();
      await change(raised);
      const claims = await request(async ({ services }) => services.token.verifyAccess((await login()).access_token));
      await request(({ services }) => services.auth.logoutAll(claims));
      const latest = await login();
      const before = { versions: await versions(), messages: await messages() };
      expect(before.messages.filter(({ state }) => state === 'pending')).toHaveLength(1);
      const { count, db } = counted();
      await deliver(db);
      expect(await versions()).toEqual(before.versions);
      const after = await messages();
      expect(after).toHaveLength(before.messages.length);
      expect(after.every(({ state }) => state === 'delivered')).toBe(true);
      expect(await read(latest.access_token)).toMatchObject({ status: 200 });
      return count.trips;
    };
    // Messages of former releases do not look for larger versions.
    const without = await tripsOf([]);
    expect(await tripsOf(['epoch'])).toBe(without + 1);
  });
});

describe('everyone is signed out, after D1 was restored from a backup', () => {
  test('the tokens of the lost time of each user end, at few queries for all', async () => {
    const addresses = Array.from({ length: 5 }, (_, index) => `all${index}.${email}`);
    const ids = await Promise.all(addresses.map(register));
    const tripsOf = async (many: readonly string[], at: number) => {
      const lost = await Promise.all(many.map((id) => loseVersions(addresses[ids.indexOf(id)], id, at)));
      await deliver();
      await deliver();
      for (const id of many) await change(['epoch'], id);
      const { count, db } = counted();
      await deliver(db);
      for (const { access_token } of lost) expect(await read(access_token)).toMatchObject(revoked);
      return count.trips;
    };
    expect(await tripsOf(ids, LOST)).toBe(await tripsOf(ids.slice(0, 1), 4 * LOST));
  });
});
