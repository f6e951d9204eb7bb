import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';

import { UserError } from '../../../src/scripts/cli.ts';
import { databaseUrl, placeOf, withPostgres } from '../../../src/scripts/postgres.ts';

test('without DATABASE_URL the database is D1', () => {
  expect([databaseUrl({}), databaseUrl({ DATABASE_URL: ' ' })]).toEqual([undefined, undefined]);
});

test.each(['postgres://ada:s3cret@db.example:6000/app', 'postgresql://ada:s3cret@db.example:6000/app?sslmode=require'])(
  'of %s the place is shown, without user, password and options',
  (text) => {
    expect(databaseUrl({ DATABASE_URL: text })).toBe(text);
    expect(placeOf(text)).toBe('db.example:6000/app');
  },
);

test.each(['mysql://ada:s3cret@db.example/app', 'postgres://ada:s3cret@db.example', 's3cret', 'postgres:///app'])(
  'DATABASE_URL=%s is refused, and not repeated',
  (text) => {
    const read = () => databaseUrl({ DATABASE_URL: text });
    expect(read).toThrow(UserError);
    expect(read).toThrow(/^DATABASE_URL must be postgres:\/\/USER:PASSWORD@HOST:PORT\/DATABASE\.(?!.*s3cret)/);
  },
);

test('a server of another kind gives another error than one that is not there', async () => {
  await using http = createServer((_, response) => void response.end());
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  const asked = withPostgres(`postgres://ada:s3cret@127.0.0.1:${port}/app`, () => Promise.resolve());
  await expect(asked).rejects.toThrow(
    `What listens at the address of DATABASE_URL (127.0.0.1:${port}/app) is not a PostgreSQL server`,
  );
});
