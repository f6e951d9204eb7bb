import { setTimeout } from 'node:timers/promises';

import { hasPostgres } from '../../../support/postgres.ts';
import { hasRedisServer, startCluster } from '../../../support/redisServers.ts';
import type { CaseResult, LoadFigures, Question } from '../../question.ts';
import { rounded } from '../../support/measure.ts';
import { NO_POSTGRES } from '../../support/postgres.ts';
import { startBenchRedis, startServerRedis } from '../../support/redis.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { bundleApp } from '../../support/workers.ts';
import { deliverBacklog, fillOutbox } from './backlog.ts';
import { start } from './setUp.ts';
import type { Engine, SetUp, Side } from './setUp.ts';
import { isOnDeadShard, measure, registerUsers } from './states.ts';

const ROUNDS = 3;
const EACH = 5;
const BACKLOG = 100_000;
const RUNS = 2;
const DELIVERED = 50_000;

/**
 * What does an outage of Redis cost, request by request, and how fast does the outbox make up for it?
 *
 * Each state is made for real: the proxy before the gateway cuts its connections (`away`), FLUSHALL before each round
 * (`flushed`: each user's first request afterwards), a Redis Cluster whose third master and its replica are killed. A
 * request's costs include the work after its response; those of background probes are in them as well.
 */
export const outages: Question = {
  name: 'outages',
  asks: 'What do a guarded GET and a refresh cost while Redis is wrong, and how fast does the outbox deliver?',
  setUp:
    'D1 is SQLite in workerd, which counts queries and rows as D1 does; PostgreSQL is a server on this machine that waits for ' +
    'no disk, without Hyperdrive; 96 users in turn, 4 connections, no added delay. ' +
    'flushed: the first request of each user after FLUSHALL. One dead shard needs redis-server. Outbox: 100,000 ends of ' +
    'sessions, of a user each. Ratios are to redis up.',

  async run(progress, { rounds = ROUNDS } = {}) {
    progress('bundling the Worker');
    const sides: Side[] = [{ engine: 'd1', app: await bundleApp() }];
    if (hasPostgres) sides.push({ engine: 'postgres', app: await bundleApp('postgres') });
    else progress(NO_POSTGRES);
    const cases: CaseResult[] = [];
    for (const side of sides) {
      const report: Progress = (line) => progress(`${SHOWN[side.engine]}: ${line}`);
      cases.push(...(await singleServer(side, report, rounds)), ...(await deadShard(side, report, rounds)));
    }
    return { question: 'outages', cases };
  },
};

type Progress = (line: string) => void;

const SHOWN: Record<Engine, string> = { d1: 'D1', postgres: 'PostgreSQL' };

async function singleServer(side: Side, progress: Progress, rounds: number): Promise<CaseResult[]> {
  await using redis = await startServerRedis();
  await using setUp = await start(side, { url: redis.delayedUrl, token: redis.token });
  progress(`Redis: ${redis.backend}; registering users`);
  const users = await registerUsers(setUp);
  const options = { each: EACH, rounds };
  await measure(setUp, redis, users, { each: 2, rounds: 1 });

  progress('Redis up');
  const cases = [caseOf(setUp, 'redis up', await measure(setUp, redis, users, options))];
  progress('Redis flushed');
  const before = () => flush(redis);
  cases.push(caseOf(setUp, 'redis flushed', await measure(setUp, redis, users, { each: 1, rounds, before })));
  progress('the outbox');
  cases.push(...(await outboxCases(setUp, progress)));
  progress('Redis away');
  await redis.setState('away');
  await measure(setUp, redis, users, { each: 1, rounds: 1 });
  const away = caseOf(setUp, 'redis away', await measure(setUp, redis, users, options));
  return [...cases.slice(0, 1), away, ...cases.slice(1)];
}

async function flush({ url, token }: BenchRedis): Promise<void> {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(['FLUSHALL']) });
  if (!response.ok) throw new Error(`FLUSHALL: ${response.status}`);
  await response.text();
}

async function deadShard(side: Side, progress: Progress, rounds: number): Promise<CaseResult[]> {
  if (!hasRedisServer) {
    progress('no redis-server: one dead shard is left out');
    return [];
  }
  const cluster = await startCluster();
  try {
    await using redis = await startBenchRedis(cluster.url);
    await using setUp = await start(side, { url: redis.delayedUrl, token: redis.token });
    progress('a cluster; registering users');
    const users = await registerUsers(setUp);
    await measure(setUp, redis, users, { each: 2, rounds: 1 });
    for (const node of [cluster.nodes[2], cluster.nodes[5]]) await node?.kill();
    progress('one shard of three is dead');
    const ofShard = users.filter(isOnDeadShard);
    const others = users.filter((user) => !isOnDeadShard(user));
    // Until the isolate has found out.
    await measure(setUp, redis, ofShard, { each: 2, rounds: 1 });
    await setTimeout(2_500);
    await measure(setUp, redis, users, { each: 1, rounds: 1 });
    const options = { each: EACH, rounds };
    return [
      caseOf(setUp, 'dead shard: its users', await measure(setUp, redis, ofShard, options)),
      caseOf(setUp, 'dead shard: the others', await measure(setUp, redis, others, options)),
    ];
  } finally {
    await cluster.stop();
  }
}

const nameOf = ({ engine }: SetUp, name: string) => (engine === 'd1' ? name : `${name}, PostgreSQL`);

/** The guarded GET's figures are the headline. */
function caseOf(setUp: SetUp, name: string, loads: LoadFigures[]): CaseResult {
  const { load: _, connections: __, ...headline } = loads[0]!;
  return { name: nameOf(setUp, name), database: setUp.engine, ...headline, loads };
}

async function outboxCases(setUp: SetUp, progress: Progress): Promise<CaseResult[]> {
  // What the registrations and the flushes have left behind is not measured.
  await setUp.scheduled();
  await setUp.scheduled();
  await fillOutbox(setUp, BACKLOG, 'pending');
  progress(`${BACKLOG} messages are undelivered`);
  const { leftAfterRun, runsMs, cost } = await deliverBacklog(setUp, RUNS);
  if (leftAfterRun.at(-1) !== 0) {
    throw new Error(`after ${RUNS} scheduled runs ${leftAfterRun.at(-1)} messages were undelivered`);
  }
  const elapsedMs = runsMs.reduce((sum, ms) => sum + ms, 0);
  const messagesPerSecond = rounded((BACKLOG / elapsedMs) * 1_000, 0);
  // A run has 25 s for undelivered messages, and there is one each minute.
  const sustainedPerSecond = rounded(messagesPerSecond * (RUN_MS / MINUTE_MS), 0);
  progress(`${messagesPerSecond} messages/s, first delivery`);

  await setUp.database.run('DELETE FROM outbox');
  await fillOutbox(setUp, DELIVERED, 'delivered');
  await setUp.database.run('UPDATE redis_state SET repeated_seq = (SELECT max(seq) + 1 FROM outbox)');
  await setUp.scheduled();
  const look = await setUp.database.costOf(() => setUp.scheduled());
  await setUp.database.run('DELETE FROM outbox');
  return [
    {
      name: nameOf(setUp, 'outbox: 100,000 undelivered'),
      database: setUp.engine,
      messagesPerSecond,
      databaseQueries: rounded(cost.queries / BACKLOG, 4),
      rowsRead: rounded(cost.rowsRead / BACKLOG),
      rowsWritten: rounded(cost.rowsWritten / BACKLOG),
      notes: [
        `undelivered after each run: ${leftAfterRun.join(', ')}; runs took ${runsMs.map((ms) => (ms / 1_000).toFixed(1)).join(' and ')} s`,
        `a run has 25 s of each minute for first deliveries, so runs alone keep up with ${sustainedPerSecond} messages/s; second deliveries follow in the next run and are not in these figures`,
      ],
    },
    {
      name: nameOf(setUp, 'outbox: none undelivered beside 50,000'),
      database: setUp.engine,
      databaseQueries: look.queries,
      rowsRead: look.rowsRead,
      rowsWritten: look.rowsWritten,
      notes: ['figures are of one whole scheduled run'],
    },
  ];
}

const RUN_MS = 25_000;
const MINUTE_MS = 60_000;
