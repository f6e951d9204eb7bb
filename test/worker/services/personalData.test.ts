import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { personalTables } from '../../../src/personalData';
import { orders } from '../examples/orders.routes';
import { bindings, callerOf, isolateFor } from '../support/request';

const bound = bindings({ KEY_PREFIX: 'personal-data' });
const call = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
const PASSWORD = 'a horse that staples batteries';

const ofOrders = {
  name: 'orders',
  rows: (db, userId) => db.select().from(orders).where(eq(orders.userId, userId)),
  remove: (db, userId, when) => db.delete(orders).where(and(eq(orders.userId, userId), when)),
} satisfies (typeof personalTables)[number];

beforeAll(async () => {
  await bound.DB.exec(
    'CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, note TEXT NOT NULL)',
  );
  personalTables.push(ofOrders);
});
afterAll(() => {
  personalTables.splice(personalTables.indexOf(ofOrders), 1);
});

async function owner(name: string) {
  const email = `${name.toLowerCase()}.${crypto.randomUUID()}@example.com`;
  const { body } = await call('POST', '/v1/auth/register', { body: { email, password: PASSWORD, name } });
  const { id } = body.user as { id: string };
  await bound.DB.prepare('INSERT INTO orders VALUES (?, ?, ?)').bind(`order of ${id}`, id, name).run();
  return { id, email, token: body.access_token as string };
}

const ordersLeft = async ({ id }: { id: string }) =>
  (await bound.DB.prepare('SELECT note FROM orders WHERE user_id = ?').bind(id).all()).results.length;

test('an export has everything of the account and of the app’s own tables, nothing of others, and no secret', async () => {
  const [ada, grace] = [await owner('Ada'), await owner('Grace')];
  await call('POST', '/v1/auth/login', { body: { email: ada.email, password: 'not this one' } });
  await call('POST', '/v1/auth/login', { body: { email: ada.email, password: PASSWORD, device: 'Tablet' } });

  const { status, body } = await call('GET', '/v1/users/me/export', { token: ada.token });
  expect(status).toBe(200);
  expect(body.account).toMatchObject({ id: ada.id, email: ada.email, name: 'Ada', role: 'user', status: 'active' });
  expect(body.sessions.map(({ device }: { device: string }) => device)).toContain('Tablet');
  expect(body.sessions).toHaveLength(2);
  expect(body.events.map(({ kind }: { kind: string }) => kind)).toEqual(
    expect.arrayContaining(['registered', 'login']),
  );
  expect(body.app.orders).toEqual([{ id: `order of ${ada.id}`, userId: ada.id, note: 'Ada' }]);
  const text = JSON.stringify(body);
  expect(text).not.toContain(grace.id);
  expect(text).not.toMatch(/scrypt|hash|grt1\.|eyJ/i);
});

test('every column that is stored of a user is exported, or named here with the reason why not', async () => {
  const { token, id } = await owner('Whole');
  const { body } = await call('GET', '/v1/users/me/export', { token });
  const left = {
    users: ['search', 'password_hash', 'epoch', 'access_version'], // folded copy, secret, counters of revocation
    sessions: ['user_id', 'epoch', 'generation', 'token_id', 'authenticated_at_ms', 'password_failures'], // counters
    events: ['id', 'user_id'],
    one_time_tokens: ['hash', 'user_id'], // secret
    known_origins: ['user_id', 'origin'], // keyed hash
  };
  const exported = JSON.stringify(body.account) + JSON.stringify(body.sessions) + JSON.stringify(body.events);
  expect(exported).toContain(id);
  const members = { users: body.account, sessions: body.sessions[0], events: body.events[0] } as Record<string, object>;
  for (const [table, missing] of Object.entries(left)) {
    const { results } = await bound.DB.prepare(`SELECT name FROM pragma_table_info('${table}')`).all<{
      name: string;
    }>();
    const columns = results.map(({ name }) => name).filter((name) => !missing.includes(name));
    const camel = columns.map((name) =>
      name.replace(/_ms$/, '').replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase()),
    );
    if (members[table] !== undefined) expect(Object.keys(members[table]).toSorted()).toEqual(camel.toSorted());
    else expect(columns.length).toBeGreaterThan(0);
  }
});

test('a deletion takes the user’s rows of the app’s own tables along, and no other user’s', async () => {
  const [ada, grace] = [await owner('Ada'), await owner('Grace')];
  expect((await call('DELETE', '/v1/users/me', { token: ada.token })).status).toBe(204);
  expect([await ordersLeft(ada), await ordersLeft(grace)]).toEqual([0, 1]);
});

test('a deletion that is refused leaves them', async () => {
  const boss = await owner('Boss');
  await bound.DB.prepare(`UPDATE users SET role = 'user' WHERE id <> ?`).bind(boss.id).run();
  await bound.DB.prepare(`UPDATE users SET role = 'admin' WHERE id = ?`).bind(boss.id).run();
  const refused = await call('DELETE', '/v1/users/me', { token: boss.token });
  expect([refused.status, refused.body.code]).toEqual([409, 'LAST_ADMINISTRATOR']);
  expect(await ordersLeft(boss)).toBe(1);
});
