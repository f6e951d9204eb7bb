import { beforeAll, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { bindings, callerOf, isolateFor } from '../support/request';
import { orderRoutes } from './orders.routes';

// Its own migration and src/app.ts would do these two.
const bound = bindings({ KEY_PREFIX: 'orders' });
const app = createApp({ isolate: isolateFor(bound) }).route('/v1/orders', orderRoutes);
beforeAll(() =>
  bound.DB.exec('CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, note TEXT NOT NULL)'),
);

// What follows stands in docs/routes.md, word for word.

const call = callerOf(app, bound);

test('an order is shown to its owner, and is a 404 for another user', async () => {
  const signUp = async (name: string) => {
    const body = { email: `${name}@orders.example.com`, password: 'correct horse battery', name };
    return (await call('POST', '/v1/auth/register', { body })).body.access_token as string;
  };
  const [ada, grace] = [await signUp('Ada'), await signUp('Grace')];

  const made = await call('POST', '/v1/orders', { token: ada, body: { note: 'first' } });
  expect(made).toMatchObject({ status: 201, body: { note: 'first' } });
  const path = `/v1/orders/${made.body.id}`;
  expect(await call('GET', path, { token: ada })).toMatchObject({ status: 200, body: made.body });
  expect(await call('GET', path, { token: grace })).toMatchObject({ status: 404 });
  expect((await call('GET', '/v1/orders')).status).toBe(401);
});
