import { expect, inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { startApp, UNLIMITED } from '../../support/app.ts';
import { testBindings } from '../../support/bindings.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer } from '../../support/client.ts';

/** More than all requests together could get through. */
const USERS = 4_000;
const SLICE = 100;

/** Two Workers with the same settings and one Redis between them are asked for slices of one job at the same time. */
test('two isolates warm one job: each slice runs once, and a request that meets a running slice gets 409', async () => {
  const token = 'workers-token';
  await using gateway = await startGateway({ token, port: 0 });
  const redis = { url: gateway.url, token };
  const deadlines = {
    REDIS_GUARD_DEADLINE_MS: '10000',
    REDIS_AUTH_DEADLINE_MS: '10000',
    REDIS_CALL_TIMEOUT_MS: '20000',
  };
  const settings = { ...testBindings(redis), ...UNLIMITED, ...deadlines };
  const start = () => startApp({ bundle: inject('workerBundle'), redis, settings });
  await using first = await start();
  await using second = await start();

  // An administrator of each: they share Redis, not a database.
  const admins = await Promise.all(
    [first, second].map(async (app) => {
      const call = clientOf(app.url);
      const person = newcomer();
      await call('POST', '/v1/auth/register', { body: person });
      await app.sql(`update users set role = 'admin' where email = ?`, person.email);
      const { email, password } = person;
      const { body } = await call('POST', '/v1/auth/login', { body: { email, password } });
      await app.sql(
        `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
         with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < ?)
         select 'w' || i || '.x', 'w' || i, '', '', 1, ?, ?, 1 from n`,
        USERS,
        Date.now(),
        Date.now() + 86_400_000,
      );
      return () => call('POST', '/v1/admin/warming/active-users', { token: body.access_token });
    }),
  );

  const answers: Answer[] = [];
  for (let round = 0; round < 3; round += 1) {
    answers.push(...(await Promise.all(Array.from({ length: 10 }, (_, i) => admins[i % 2]!()))));
  }
  const slices = answers.filter(({ status }) => status === 202).map(({ body }) => Number(body.done));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202, 409]));
  // No slice was done twice, and none was lost.
  expect(slices.sort((a, b) => a - b)).toEqual(slices.map((_, index) => (index + 1) * SLICE));
  expect(slices.length).toBeGreaterThanOrEqual(3);
});
