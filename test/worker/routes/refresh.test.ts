import { beforeAll, expect, test } from 'vitest';

import { createApp } from '../../../src/app';
import { bindings, callerOf, isolateFor } from '../support/request';

const strict = bindings({ LIMIT_REFRESH: '2/1m' });
/** An isolate of its own: it knows of no limit that was hit. */
const fresh = () => callerOf(createApp({ isolate: isolateFor(strict) }), strict);
const limited = fresh();
const unlimited = callerOf(createApp({ isolate: isolateFor() }));

let first = '';
beforeAll(async () => {
  const body = { email: 'limited.refresh@example.com', password: 'correct horse battery', name: 'Limited' };
  first = (await unlimited('POST', '/v1/auth/register', { body })).body.refresh_token;
});

const refresh = (token: string, call = limited) => call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });

test('a refresh that its limit refuses changes nothing for the client: the token is as good as before', async () => {
  const second = (await refresh(first)).body.refresh_token;
  const third = (await refresh(second)).body.refresh_token;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    expect(await refresh(third)).toMatchObject({ status: 429, body: { code: 'RATE_LIMITED' } });
  }
  const fourth = await refresh(third, unlimited);
  expect(fourth).toMatchObject({ status: 200 });
  const again = await refresh(third, unlimited);
  expect(again.body.refresh_token).toBe(fourth.body.refresh_token);
  const me = await unlimited('GET', '/v1/users/me', { token: again.body.access_token });
  expect(me).toMatchObject({ status: 200 });
  expect(await refresh(fourth.body.refresh_token, unlimited)).toMatchObject({ status: 200 });
});

test('a refresh token that was used is found out where the limit refuses it as well', async () => {
  // Its successor was used.
  expect(await refresh(first, fresh())).toMatchObject({ status: 429 });
  const after = await refresh(first, unlimited);
  expect(after).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
});
