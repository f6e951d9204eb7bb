import { beforeAll, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { bindings, callerOf, isolateFor } from '../support/request';
import { notesRoutes } from './notes.routes';

const bound = bindings({ KEY_PREFIX: 'notes' });
const app = createApp({ isolate: isolateFor(bound) }).route('/v1/notes', notesRoutes);
const call = callerOf(app, bound);
const tokens: string[] = [];

beforeAll(async () => {
  await bound.DB.exec(
    'CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, text TEXT NOT NULL, created_at_ms INTEGER NOT NULL)',
  );
  for (const name of ['Ada', 'Grace']) {
    const email = `${name}.${crypto.randomUUID()}@example.com`.toLowerCase();
    const body = { email, password: 'correct horse battery', name };
    tokens.push((await call('POST', '/v1/auth/register', { body })).body.access_token as string);
  }
});

test('notes are made, listed, shown, changed and removed by their owner', async () => {
  const [token = ''] = tokens;
  const made = await call('POST', '/v1/notes', { token, body: { text: 'first' } });
  expect(made).toMatchObject({ status: 201, body: { text: 'first' } });
  const path = `/v1/notes/${String(made.body['id'])}`;
  expect((await call('GET', path, { token })).body).toEqual(made.body);
  expect((await call('GET', '/v1/notes', { token })).body).toMatchObject({ items: [made.body], total: 1 });

  expect((await call('PATCH', path, { token, body: { text: 'second' } })).body).toMatchObject({ text: 'second' });
  expect((await call('GET', path, { token })).body).toMatchObject({ text: 'second' });
  expect((await call('GET', '/v1/notes', { token })).body).toMatchObject({ items: [{ text: 'second' }] });

  // A change of nothing.
  expect(await call('PATCH', path, { token, body: {} })).toMatchObject({
    status: 422,
    body: { code: 'VALIDATION_FAILED' },
  });

  expect((await call('DELETE', path, { token })).status).toBe(204);
  expect((await call('GET', path, { token })).status).toBe(404);
  expect((await call('GET', '/v1/notes', { token })).body).toMatchObject({ items: [], total: 0 });
});

test('the notes of another user are a 404, and stay as they are', async () => {
  const [ada = '', grace = ''] = tokens;
  const { body } = await call('POST', '/v1/notes', { token: ada, body: { text: 'mine' } });
  const path = `/v1/notes/${String(body['id'])}`;
  expect((await call('GET', path, { token: grace })).status).toBe(404);
  expect((await call('PATCH', path, { token: grace, body: { text: 'hers' } })).status).toBe(404);
  expect((await call('DELETE', path, { token: grace })).status).toBe(404);
  expect((await call('GET', '/v1/notes', { token: grace })).body).toMatchObject({ items: [], total: 0 });
  expect((await call('GET', path, { token: ada })).body).toMatchObject({ text: 'mine' });
});

test('wrong input is a 422, and a request without a token a 401', async () => {
  const [token = ''] = tokens;
  for (const body of [{}, { text: '' }, { text: 'x', other: 1 }])
    expect((await call('POST', '/v1/notes', { token, body })).status).toBe(422);
  expect((await call('GET', '/v1/notes?limit=0', { token })).status).toBe(422);
  expect((await call('GET', '/v1/notes')).status).toBe(401);
});

test('a write with an Idempotency-Key runs once, also when its response was not stored', async () => {
  const [token = ''] = tokens;
  const create = () =>
    call('POST', '/v1/notes', { token, body: { text: 'once' }, headers: { 'Idempotency-Key': '"once"' } });
  const first = await create();
  expect(await create()).toMatchObject({ status: 201, body: first.body });
  await bound.DB.exec(
    `UPDATE idempotency_keys SET response = NULL WHERE reference LIKE '%${String(first.body['id'])}%'`,
  );
  expect(await create()).toMatchObject({ status: 201, body: first.body });
});
