import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { start } from '../../bench/questions/outages/setUp.ts';
import type { SetUp } from '../../bench/questions/outages/setUp.ts';
import { startBenchRedis } from '../../bench/support/redis.ts';
import type { BenchRedis } from '../../bench/support/redis.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Call } from '../../support/client.ts';
import { pages } from '../docs/pages.ts';

/** Round trips and commands of Redis; queries and written rows of D1. */
interface Cost {
  redis: string;
  statements: number;
  rows: number;
}

const page = pages.find(({ name }) => name === 'docs/scaling.md')!.text;

/** A row of the table of unit costs. */
function stated(name: string): Cost {
  const [, redis = '', d1 = ''] =
    new RegExp(String.raw`^\| ${name} \| (\d+ / \d+) \| ([^|]*) \|`, 'm').exec(page) ?? [];
  const [, statements, rows] = /^(?:\d+ \/ )?(\d+)(?: statements,| \/) (\d+)/.exec(d1) ?? [];
  return { redis, statements: Number(statements), rows: Number(rows) };
}

let redis: BenchRedis;
let setUp: SetUp;
let call: Call;

beforeAll(async () => {
  redis = await startBenchRedis();
  const app = await readFile(inject('workerBundle'), 'utf8');
  setUp = await start({ engine: 'd1', app }, { url: redis.delayedUrl, token: redis.token });
  await setUp.scheduled();
  call = clientOf(setUp.url);
  // A server that does not know a script costs one more trip, once.
  const { email, password, token, refresh_token } = await user();
  await call('PATCH', '/v1/users/me', { token, body: { name: 'First' } });
  await call('POST', '/v1/auth/refresh', { body: { refresh_token } });
  await call('POST', '/v1/auth/login', { body: { email, password } });
  await call('POST', '/v1/auth/logout', { token });
});
afterAll(async () => {
  await setUp[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

/** Until nothing more is sent to Redis: the work after earlier responses is done. */
async function idle(): Promise<void> {
  let last = -1;
  const isSame = async () => {
    const { commands } = await redis.counts();
    const wasSame = commands === last;
    last = commands;
    return wasSame;
  };
  await expect.poll(isSame, { interval: 300, timeout: 20_000 }).toBe(true);
}

/** What an operation costs, work after its response included: counted until it is as much as `expected`. */
async function expectCost(expected: Cost, operation: () => Promise<unknown>): Promise<void> {
  await idle();
  const before = await redis.counts();
  const sum = { statements: 0, rows: 0 };
  const count = async (work: () => Promise<unknown>) => {
    const { queries, rowsWritten } = await setUp.database.costOf(work);
    sum.statements += queries;
    sum.rows += rowsWritten;
    const { trips, commands } = await redis.counts();
    return { redis: `${trips - before.trips} / ${commands - before.commands}`, ...sum };
  };
  await count(operation);
  await expect.poll(() => count(async () => undefined), { timeout: 20_000 }).toEqual(expected);
}

const tokensOf = ({ body }: Awaited<ReturnType<Call>>) => body as { access_token: string; refresh_token: string };

/** A user whose session is in use: what its first request costs beside is over. */
async function user() {
  const person = newcomer();
  const { access_token: token, refresh_token } = tokensOf(await call('POST', '/v1/auth/register', { body: person }));
  for (let read = 0; read < 3; read += 1) await call('GET', '/v1/users/me', { token });
  return { ...person, token, refresh_token };
}

describe('the unit costs of docs/scaling.md', () => {
  test('guarded read that hits the cache', async () => {
    const { token } = await user();
    await expectCost({ redis: stated('guarded read that hits the cache').redis, statements: 0, rows: 0 }, () =>
      call('GET', '/v1/users/me', { token }),
    );
  });

  test('refresh', async () => {
    const { refresh_token } = await user();
    await expectCost(stated('refresh'), () => call('POST', '/v1/auth/refresh', { body: { refresh_token } }));
  });

  test('new name', async () => {
    const { token } = await user();
    await expectCost(stated('new name'), () => call('PATCH', '/v1/users/me', { token, body: { name: 'New' } }));
  });

  test('logout', async () => {
    const { token } = await user();
    await expectCost(stated('logout'), () => call('POST', '/v1/auth/logout', { token }));
  });

  test('login that ends the oldest session', async () => {
    const { email, password } = await user();
    const login = () => call('POST', '/v1/auth/login', { body: { email, password } });
    for (let sessions = 1; sessions < 10; sessions += 1) await login();
    await expectCost(stated('login that ends the oldest session'), login);
  });
});
