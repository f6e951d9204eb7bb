import { env } from 'cloudflare:workers';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { AuditService } from '../../../src/services/audit.service';
import { bindings, callerOf, inRequest, isolateFor } from '../support/request';

const bound = bindings();
const isolate = isolateFor(bound);
const call = callerOf(createApp({ isolate }), bound);
const elsewhere = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
const password = 'a horse that staples batteries';

interface Person {
  id: string;
  email: string;
  access: string;
  refresh: string;
  sessionId: string;
}

let counter = 0;

async function newUser(): Promise<Person> {
  counter += 1;
  const email = `person${counter}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', { body: { email, password, name: `Person ${counter}` } });
  return personOf(body);
}

async function signIn({ email }: Person): Promise<Person> {
  return personOf((await call('POST', '/v1/auth/login', { body: { email, password } })).body);
}

function personOf(body: { user: { id: string; email: string }; access_token: string; refresh_token: string }): Person {
  const { sid } = JSON.parse(atob(body.access_token.split('.')[1] ?? '')) as { sid: string };
  const { access_token: access, refresh_token: refresh } = body;
  return { id: body.user.id, email: body.user.email, access, refresh, sessionId: sid };
}

async function newAdmin(): Promise<Person> {
  const person = await newUser();
  await env.DB.prepare(`update users set role = 'admin' where id = ?`).bind(person.id).run();
  return signIn(person);
}

const me = ({ access }: Person, caller = elsewhere) => caller('GET', '/v1/users/me', { token: access });
const revoked = { status: 401, body: { code: 'TOKEN_REVOKED' } };
const audited = async (userId: string) => {
  const { body } = await call('GET', `/v1/admin/audit?user=${userId}`, { token: admin.access });
  return (body.items as { action: string; by: string; detail: object }[]).map(({ action, by, detail }) => ({
    action,
    by,
    detail,
  }));
};

let admin: Person;

beforeAll(async () => {
  admin = await newAdmin();
});

describe('a user’s sessions', () => {
  test('are shown with how each ended, newest first, in pages', async () => {
    const first = await newUser();
    const second = await signIn(first);
    const third = await signIn(first);
    await call('POST', '/v1/auth/logout', { token: first.access });
    const path = `/v1/admin/users/${first.id}/sessions`;
    const ended = await call('DELETE', `${path}/${second.sessionId}`, { token: admin.access });
    expect(ended.status).toBe(204);

    const { status, body } = await call('GET', path, { token: admin.access });
    expect(status).toBe(200);
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:]+Z$/);
    const shown = Object.fromEntries((body.items as { id: string }[]).map((session) => [session.id, session]));
    expect(shown[first.sessionId]).toMatchObject({ state: 'ended', endedReason: 'logout', endedAt: time });
    expect(shown[second.sessionId]).toMatchObject({ state: 'ended', endedReason: 'administrator', endedAt: time });
    expect(shown[third.sessionId]).toMatchObject({ state: 'live', endedReason: null, endedAt: null, current: false });
    expect(body).toMatchObject({ page: 1, limit: 20, total: 3 });
    const last = await call('GET', `${path}?page=3&limit=1`, { token: admin.access });
    expect(last.body).toMatchObject({ page: 3, limit: 1, total: 3, items: [expect.anything()] });
  });

  test('one ends everywhere at once, and the others go on', async () => {
    const first = await newUser();
    const second = await signIn(first);
    const path = `/v1/admin/users/${first.id}/sessions/${first.sessionId}`;
    expect((await call('DELETE', path, { token: admin.access })).status).toBe(204);
    expect(await me(first)).toMatchObject(revoked);
    expect(await me(second)).toMatchObject({ status: 200 });
    const refreshed = await elsewhere('POST', '/v1/auth/refresh', { body: { refresh_token: first.refresh } });
    expect(refreshed).toMatchObject(revoked);
    expect(await call('DELETE', path, { token: admin.access })).toMatchObject({ status: 404 });
    const [entry] = await audited(first.id);
    expect(entry).toEqual({ action: 'session-ended', by: admin.id, detail: { sessionId: first.sessionId } });
  });

  test('of another user are not ended by way of this one', async () => {
    const [one, other] = [await newUser(), await newUser()];
    const path = `/v1/admin/users/${one.id}/sessions/${other.sessionId}`;
    expect(await call('DELETE', path, { token: admin.access })).toMatchObject({ status: 404 });
    expect(await me(other)).toMatchObject({ status: 200 });
  });

  test('all end at once without the account being disabled, and its owner sees no trace of the administrator', async () => {
    const first = await newUser();
    const second = await signIn(first);
    const path = `/v1/admin/users/${first.id}/sessions`;
    expect((await call('DELETE', path, { token: admin.access })).status).toBe(204);
    for (const device of [first, second]) expect(await me(device)).toMatchObject(revoked);
    const again = await signIn(first);
    expect(await me(again)).toMatchObject({ status: 200 });
    expect(await audited(first.id)).toEqual([{ action: 'sessions-ended', by: admin.id, detail: {} }]);
    const { body } = await call('GET', '/v1/users/me/events', { token: again.access });
    expect(body.items[1]).toMatchObject({ kind: 'sessions-ended', address: '', device: '' });
    expect((await call('GET', `/v1/admin/users/${first.id}/events`, { token: admin.access })).body).toEqual(body);
  });

  test('of everyone end in lots, but for the administrator who asks', async () => {
    const people = [await newUser(), await newUser(), await newUser()];
    const [, middle] = people.map(({ id }) => id).toSorted();
    // As if those up to the second had been in the lot before.
    const rest = await call('POST', '/v1/admin/sessions/end', { token: admin.access, body: { after: middle } });
    expect(rest).toMatchObject({ status: 200, body: { next: null } });
    for (const person of people) expect((await me(person)).status).toBe(person.id > middle! ? 401 : 200);
    const all = await call('POST', '/v1/admin/sessions/end', { token: admin.access, body: {} });
    expect(all.body.users).toBeGreaterThanOrEqual(2);
    for (const person of people) {
      expect(await me(person)).toMatchObject(revoked);
      expect(await me(await signIn(person))).toMatchObject({ status: 200 });
    }
    expect(await me(admin)).toMatchObject({ status: 200 });
    // 500 users a call.
    const columns = '(id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)';
    await env.DB.prepare(
      `with recursive n(i) as (select 1 union all select i + 1 from n where i < 600)
       insert into sessions ${columns} select 'lot' || i, 'lot' || i, '', '', ?1, ?1, ?1 + 600000, 1 from n`,
    )
      .bind(Date.now())
      .run();
    const end = (after?: string) =>
      call('POST', '/v1/admin/sessions/end', { token: admin.access, body: after === undefined ? {} : { after } });
    const first = await end();
    expect(first.body).toEqual({ users: 500, next: expect.any(String) });
    expect((await end(first.body.next)).body).toMatchObject({ next: null });
    await env.DB.exec(`delete from sessions where id like 'lot%'`);
    const { body } = await call('GET', '/v1/admin/audit?limit=1', { token: admin.access });
    expect(body.items).toMatchObject([{ action: 'everyone-signed-out', by: admin.id, userId: null }]);
  });
});

describe('an account', () => {
  test('is deleted by an administrator, and the audit keeps who did it', async () => {
    const person = await newUser();
    const path = `/v1/admin/users/${person.id}`;
    expect((await call('DELETE', path, { token: admin.access })).status).toBe(204);
    expect(await me(person)).toMatchObject(revoked);
    expect(await call('DELETE', path, { token: admin.access })).toMatchObject({ status: 404 });
    expect(await audited(person.id)).toEqual([{ action: 'deleted', by: admin.id, detail: {} }]);
  });

  test('changes leave an entry each, and none where nothing changes', async () => {
    const { id } = await newUser();
    const change = (body: object) => call('PATCH', `/v1/users/${id}`, { token: admin.access, body });
    await change({ status: 'disabled' });
    await change({ status: 'disabled' });
    await change({ status: 'active', name: 'Another name' });
    await change({ role: 'admin' });
    await change({ role: 'user', name: 'Another name' });
    const by = admin.id;
    expect((await audited(id)).toReversed()).toEqual([
      { action: 'disabled', by, detail: {} },
      { action: 'enabled', by, detail: {} },
      { action: 'renamed', by, detail: {} },
      { action: 'role-changed', by, detail: { role: 'admin' } },
      { action: 'role-changed', by, detail: { role: 'user' } },
    ]);
  });

  test('has its cached copies cleared', async () => {
    const person = await newUser();
    await me(person);
    await env.DB.prepare(`update users set name = 'Behind the cache' where id = ?`).bind(person.id).run();
    expect((await me(person)).body.name).not.toBe('Behind the cache');
    const cleared = await call('DELETE', `/v1/admin/users/${person.id}/cache`, { token: admin.access });
    expect(cleared).toMatchObject({ status: 200, body: { pending: false } });
    expect((await me(person)).body.name).toBe('Behind the cache');
    expect(await audited(person.id)).toEqual([{ action: 'user-cache-cleared', by: admin.id, detail: {} }]);
  });

  test.each(['sessions', 'events'])('that does not exist has no %s', async (what) => {
    expect(await call('GET', `/v1/admin/users/none/${what}`, { token: admin.access })).toMatchObject({ status: 404 });
  });
});

describe('the last administrator', () => {
  let [one, other]: Person[] = [];

  beforeEach(async () => {
    await env.DB.prepare(`update users set role = 'user' where role = 'admin'`).run();
    [one, other] = [await newAdmin(), await newAdmin()];
    admin = one;
  });

  const demote = ({ id, access }: Person, caller = call) =>
    caller('PATCH', `/v1/users/${id}`, { token: access, body: { role: 'user' } });
  const disable = ({ id, access }: Person, caller = call) =>
    caller('PATCH', `/v1/users/${id}`, { token: access, body: { status: 'disabled' } });
  const remove = ({ access }: Person, caller = call) => caller('DELETE', '/v1/users/me', { token: access });
  const removeById = ({ id, access }: Person, caller = call) =>
    caller('DELETE', `/v1/admin/users/${id}`, { token: access });
  const ways = { demote, disable, remove, removeById };

  test.each(Object.entries(ways))('cannot %s themselves; with a second one they can', async (_, leave) => {
    expect((await leave(one!)).status).toBeLessThan(300);
    admin = other!;
    const before = await audited(other!.id);
    const refused = await leave(other!);
    expect(refused).toMatchObject({ status: 409, body: { code: 'LAST_ADMINISTRATOR' } });
    // Nothing of it has happened.
    expect(await me(other!)).toMatchObject({ status: 200, body: { role: 'admin', status: 'active' } });
    expect(await audited(other!.id)).toEqual(before);
    const { body } = await call('GET', '/v1/users/me/events', { token: other!.access });
    expect(body.items.map(({ kind }: { kind: string }) => kind)).toEqual(['login', 'registered']);
  });

  test('a disabled administrator does not count', async () => {
    await env.DB.prepare(`update users set status = 'disabled' where id = ?`).bind(one!.id).run();
    expect(await demote(other!)).toMatchObject({ status: 409, body: { code: 'LAST_ADMINISTRATOR' } });
  });

  test('of two who leave at the same time, from two isolates, one stays', async () => {
    for (const [name, leave] of Object.entries(ways)) {
      for (const [otherName, leaveToo] of Object.entries(ways)) {
        await env.DB.prepare(`update users set role = 'user' where role = 'admin'`).run();
        const pair = [await newAdmin(), await newAdmin()] as const;
        const answers = await Promise.all([leave(pair[0]), leaveToo(pair[1], elsewhere)]);
        const done = answers.filter(({ status }) => status < 300).length;
        expect({ name, otherName, done }).toEqual({ name, otherName, done: 1 });
        const left = await env.DB.prepare(
          `select count(*) as n from users where role = 'admin' and status = 'active'`,
        ).first('n');
        expect(left).toBe(1);
      }
    }
  });
});

test('the audit forgets entries after their time', async () => {
  admin = await newAdmin();
  const { id } = await newUser();
  await call('DELETE', `/v1/admin/users/${id}/sessions`, { token: admin.access });
  const later = (days: number) => () => Date.now() + days * 86_400_000;
  await inRequest(() => AuditService.purge(), { isolate, now: later(399) });
  expect(await audited(id)).toHaveLength(1);
  await inRequest(() => AuditService.purge(), { isolate, now: later(401) });
  expect(await audited(id)).toHaveLength(0);
});

test.each([
  ['DELETE', '/v1/admin/users/x'],
  ['GET', '/v1/admin/users/x/sessions'],
  ['DELETE', '/v1/admin/users/x/sessions'],
  ['DELETE', '/v1/admin/users/x/sessions/y'],
  ['GET', '/v1/admin/users/x/events'],
  ['DELETE', '/v1/admin/users/x/cache'],
  ['POST', '/v1/admin/users/x/recovery'],
  ['POST', '/v1/admin/sessions/end'],
  ['GET', '/v1/admin/audit'],
])('%s %s is for administrators', async (method, path) => {
  const { access } = await newUser();
  expect((await call(method, path)).body.code).toBe('AUTHENTICATION_REQUIRED');
  expect((await call(method, path, { token: access })).body.code).toBe('FORBIDDEN');
});
