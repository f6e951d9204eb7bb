import { expect } from 'vitest';

import type { RunningApp } from './app.ts';
import { clientOf, newcomer } from './client.ts';
import type { Answer, Call } from './client.ts';

/** As few sessions as {@link wholeFlow} gets by with, so that it meets the limit. */
export const THREE_SESSIONS = { SESSIONS_PER_USER: '3' };

export function expectTokens(answer: Answer, status: number): { access: string; refresh: string } {
  expect(answer.body).toMatchObject({
    access_token: expect.any(String),
    refresh_token: expect.any(String),
    token_type: 'Bearer',
    expires_in: 900,
  });
  expect(answer.status).toBe(status);
  expect(answer.headers.get('Cache-Control')).toBe('no-store');
  return { access: answer.body.access_token, refresh: answer.body.refresh_token };
}

export const login = (call: Call, { email, password }: { email: string; password: string }, device?: string) =>
  call('POST', '/v1/auth/login', { body: { email, password, ...(device !== undefined && { device }) } });

/**
 * What a mobile client does, from the first start to the last. No response may be a 5xx.
 *
 * @param between runs in the middle of it
 */
export async function wholeFlow(app: RunningApp, between: () => Promise<void> = async () => {}): Promise<void> {
  const plain = clientOf(app.url);
  const call: Call = async (method, path, options) => {
    const answer = await plain(method, path, options);
    if (answer.status >= 500) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer;
  };
  const person = newcomer();

  const registered = await call('POST', '/v1/auth/register', { body: person });
  expectTokens(registered, 201);
  expect(registered.body.user).toMatchObject({
    email: person.email,
    name: person.name,
    role: 'user',
    status: 'active',
  });
  expect(registered.body.user.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  expect(JSON.stringify(registered.body)).not.toContain('scrypt');

  expect((await login(call, { ...person, password: 'wrong password' })).body.code).toBe('INVALID_CREDENTIALS');
  const phone = expectTokens(await login(call, person, 'Phone'), 200);
  const tablet = expectTokens(await login(call, { ...person, email: person.email.toUpperCase() }, 'Tablet'), 200);

  const sessions = await call('GET', '/v1/sessions', { token: phone.access });
  expect(sessions.body).toMatchObject({ page: 1, total: 3 });
  const names = sessions.body.items.map(({ device }: { device: string }) => device);
  expect(names).toEqual(expect.arrayContaining(['Phone', 'Tablet']));
  const current = sessions.body.items.filter((session: { current: boolean }) => session.current);
  expect(current).toMatchObject([{ device: 'Phone', address: '203.0.113.7' }]);

  const renamed = await call('PATCH', '/v1/users/me', { token: phone.access, body: { name: 'Renamed' } });
  expect(renamed.body).toMatchObject({ name: 'Renamed' });
  expect((await call('GET', '/v1/users/me', { token: tablet.access })).body).toMatchObject({ name: 'Renamed' });

  // A retry after a lost response gets the same successor.
  const first = await call('POST', '/v1/auth/refresh', { body: { refresh_token: phone.refresh } });
  const rotated = expectTokens(first, 200);
  const again = expectTokens(await call('POST', '/v1/auth/refresh', { body: { refresh_token: phone.refresh } }), 200);
  expect(again.refresh).toBe(rotated.refresh);
  expect((await call('GET', '/v1/users/me', { token: again.access })).status).toBe(200);
  // The first response may have reached a thief: its access token has ended. While Redis is away nothing rotates, and so nothing ends.
  if (first.headers.get('Gatehouse-Degraded') === null) {
    expect((await call('GET', '/v1/users/me', { token: rotated.access })).body.code).toBe('TOKEN_SUPERSEDED');
  }

  await between();
  const tabletId = sessions.body.items.find(({ device }: { device: string }) => device === 'Tablet').id;
  expect((await call('DELETE', `/v1/sessions/${tabletId}`, { token: again.access })).status).toBe(204);
  expect((await call('GET', '/v1/users/me', { token: tablet.access })).body.code).toBe('TOKEN_REVOKED');
  const ended = await call('POST', '/v1/auth/refresh', { body: { refresh_token: tablet.refresh } });
  expect(ended.body.code).toBe('TOKEN_REVOKED');

  expect((await call('POST', '/v1/auth/logout', { token: again.access })).status).toBe(204);
  expect((await call('GET', '/v1/users/me', { token: again.access })).body.code).toBe('TOKEN_REVOKED');

  const last = expectTokens(await login(call, person), 200);
  const other = expectTokens(await login(call, person), 200);
  const wrong = { currentPassword: 'not this one', newPassword: 'another horse battery' };
  const denied = await call('POST', '/v1/auth/password', { token: last.access, body: wrong });
  expect([denied.status, denied.body.code]).toEqual([403, 'PASSWORD_INCORRECT']);
  const changed = await call('POST', '/v1/auth/password', {
    token: last.access,
    body: { currentPassword: person.password, newPassword: 'another horse battery' },
  });
  const fresh = expectTokens(changed, 200);
  expect((await call('GET', '/v1/users/me', { token: other.access })).body.code).toBe('TOKEN_REVOKED');
  expect((await call('GET', '/v1/users/me', { token: last.access })).body.code).toBe('TOKEN_REVOKED');
  expect((await call('GET', '/v1/users/me', { token: fresh.access })).status).toBe(200);
  expectTokens(await call('POST', '/v1/auth/refresh', { body: { refresh_token: fresh.refresh } }), 200);
  expect((await login(call, person)).status).toBe(401);
  const anew = { ...person, password: 'another horse battery' };

  const [one, two] = [expectTokens(await login(call, anew), 200), expectTokens(await login(call, anew), 200)];
  expect((await call('POST', '/v1/auth/logout-all', { token: one.access })).status).toBe(204);
  for (const { access, refresh } of [one, two]) {
    expect((await call('GET', '/v1/users/me', { token: access })).body.code).toBe('TOKEN_REVOKED');
    expect((await call('POST', '/v1/auth/refresh', { body: { refresh_token: refresh } })).body.code).toBe(
      'TOKEN_REVOKED',
    );
  }

  const final = expectTokens(await login(call, anew), 200);
  expect((await call('DELETE', '/v1/users/me', { token: final.access })).status).toBe(204);
  expect((await call('GET', '/v1/users/me', { token: final.access })).body.code).toBe('TOKEN_REVOKED');
  expect((await login(call, anew)).body.code).toBe('INVALID_CREDENTIALS');
}

/** {@link wholeFlow} as far as it does not depend on rotation, which waits for Redis. */
export async function wholeFlowWithoutRotation(app: RunningApp): Promise<void> {
  const call = clientOf(app.url);
  const person = newcomer();
  const statuses: number[] = [];
  const watched: Call = async (...request) => {
    const answer = await call(...request);
    statuses.push(answer.status);
    return answer;
  };
  const first = expectTokens(await watched('POST', '/v1/auth/register', { body: person }), 201);
  const second = expectTokens(await login(watched, person, 'Second'), 200);
  const me = await watched('GET', '/v1/users/me', { token: first.access });
  expect(me.body.email).toBe(person.email);
  expect(me.headers.get('Gatehouse-Degraded')).toContain('revocation=d1');
  expect((await watched('PATCH', '/v1/users/me', { token: first.access, body: { name: 'Changed' } })).status).toBe(200);
  expect((await watched('GET', '/v1/users/me', { token: second.access })).body.name).toBe('Changed');
  expect((await watched('GET', '/v1/sessions', { token: first.access })).body.total).toBe(2);

  const same = expectTokens(await watched('POST', '/v1/auth/refresh', { body: { refresh_token: first.refresh } }), 200);
  expect(same.refresh).toBe(first.refresh);
  expect((await watched('GET', '/v1/users/me', { token: same.access })).status).toBe(200);

  expect((await watched('POST', '/v1/auth/logout', { token: second.access })).status).toBe(204);
  expect((await watched('GET', '/v1/users/me', { token: second.access })).body.code).toBe('TOKEN_REVOKED');
  const refused = await watched('POST', '/v1/auth/refresh', { body: { refresh_token: second.refresh } });
  expect(refused.body.code).toBe('TOKEN_REVOKED');
  expect((await watched('POST', '/v1/auth/logout-all', { token: first.access })).status).toBe(204);
  expect((await watched('GET', '/v1/users/me', { token: first.access })).body.code).toBe('TOKEN_REVOKED');
  expect((await watched('GET', '/health')).status).toBe(200);
  const ready = await watched('GET', '/ready');
  expect(ready.status).toBe(200);
  expect(ready.body).toMatchObject({ status: 'degraded', dependencies: { redis: { status: 'down' } } });
  expect(ready.body.degradedRequests['revocation=d1']).toBeGreaterThan(3);
  expect(statuses.filter((status) => status >= 500)).toEqual([]);
}
