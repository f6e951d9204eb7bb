import { readFile } from 'node:fs/promises';

import { afterAll, beforeAll, beforeEach, expect, inject, it } from 'vitest';

import { deliverBacklog, fillOutbox, undelivered } from '../../bench/questions/outages/backlog.ts';
import { start } from '../../bench/questions/outages/setUp.ts';
import type { SetUp } from '../../bench/questions/outages/setUp.ts';
import { startBenchRedis } from '../../bench/support/redis.ts';
import type { BenchRedis } from '../../bench/support/redis.ts';
import { pages } from '../docs/pages.ts';

/** Rows of a lot, as the service reads, delivers and marks them. */
const LOT = 1_000;

let redis: BenchRedis;
let setUp: SetUp;

beforeAll(async () => {
  redis = await startBenchRedis();
  const app = await readFile(inject('workerBundle'), 'utf8');
  setUp = await start({ engine: 'd1', app }, redis);
  await setUp.scheduled();
});
afterAll(async () => {
  await setUp[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});
beforeEach(() => setUp.database.run('DELETE FROM outbox'));

it('delivers 20,000 messages within two scheduled runs, and a lot costs a few queries', async () => {
  const messages = 20_000;
  await fillOutbox(setUp, messages, 'pending');
  const { leftAfterRun, cost } = await deliverBacklog(setUp, 2);

  expect(leftAfterRun.at(-1)).toBe(0);
  // Ten times as many are within the 1,000 queries of one invocation.
  expect(cost.queries).toBeLessThanOrEqual(4 * (messages / LOT) + 60);
  expect(cost.rowsRead / messages).toBeLessThan(6.5);
  expect(cost.rowsWritten / messages).toBeLessThan(1.5);
});

it('reads a handful of rows when nothing is undelivered beside 50,000 delivered ones', async () => {
  await fillOutbox(setUp, 50_000, 'delivered');
  // All are delivered twice, so nothing is left to be done.
  await setUp.database.run('UPDATE redis_state SET repeated_seq = (SELECT max(seq) + 1 FROM outbox)');
  await setUp.scheduled();

  const cost = await setUp.database.costOf(() => setUp.scheduled());
  expect(cost.rowsRead).toBeLessThan(60);
  // The row of docs/scaling.md.
  const { text } = pages.find(({ name }) => name === 'docs/scaling.md')!;
  const [, queries, rows] = /finds nothing to do \|\s*\| (\d+) statements, (\d+) rows/.exec(text) ?? [];
  expect([cost.queries, cost.rowsWritten]).toEqual([Number(queries), Number(rows)]);
});

it('forgets old rows though more undeliverable ones than a purge looks at stand before them', async () => {
  const { database } = setUp;
  await fillOutbox(setUp, 5_001, 'pending');
  await database.run('UPDATE outbox SET due_at_ms = ?', Date.now() + 3_600_000);
  await fillOutbox(setUp, 10, 'delivered');
  await database.run('UPDATE outbox SET created_at_ms = 1000');
  await database.run('UPDATE redis_state SET repeated_seq = (SELECT max(seq) + 1 FROM outbox)');
  await setUp.scheduled();

  expect(await undelivered(setUp)).toBe(5_001);
  expect(await database.run('SELECT count(*) FROM outbox')).toEqual([[5_001]]);
});
