import { readFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { abandon } from './questions/memory/abandon.ts';
import { PASSWORD, bearer, start } from './questions/memory/setUp.ts';
import type { User } from './questions/memory/setUp.ts';
import { heapOf } from './support/inspector.ts';
import { load, rounded } from './support/measure.ts';
import { startServerRedis } from './support/redis.ts';
import type { Target } from './support/load.ts';

/**
 * Mixed traffic on two isolates for a long time, at a modest rate: does anything grow? Prints heap and resident memory
 * once a minute. `node test/bench/soak.ts [--minutes 30] [--rate 100]`
 */
const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, rate: { type: 'string', default: '100' } },
});
const minutes = Number(values.minutes);
const rate = Number(values.rate);

/** Requests of each kind in a round, of each isolate. */
const KIND = 10;
const ISOLATES = ['gatehouse', 'second'] as const;
type Isolate = (typeof ISOLATES)[number];
/** Users of each isolate who are signed in all the time; one connection each. */
const SIGNED_IN = 8;

await using redis = await startServerRedis();
await using setUp = await start(redis);

let n = 0;
let requests = 0;
/** What went wrong since the last report. */
let failures: string[] = [];

for (let minute = 0; ; minute += 1) {
  await report(minute);
  if (minute >= minutes) break;
  const endMs = performance.now() + 60_000;
  while (performance.now() < endMs) {
    const startMs = performance.now();
    const before = requests;
    await Promise.all(ISOLATES.map(round));
    const dueMs = startMs + ((requests - before) / rate) * 1_000;
    await setTimeout(Math.max(0, Math.min(dueMs, endMs) - performance.now()));
  }
  // A short outage of Redis every fifth minute.
  if (minute % 5 !== 4) continue;
  await redis.setState('away');
  await Promise.all(ISOLATES.map((isolate) => me(isolate, 200)));
  await redis.setState('up');
}

async function report(minute: number): Promise<void> {
  const { inspector = '', urls, pid } = setUp.workers;
  const heaps = await Promise.all(ISOLATES.map((name) => heapOf(inspector, { name, url: urls.get(name) ?? '' })));
  // Pages of 4 KiB; absent where there is no /proc.
  const statm = await readFile(`/proc/${pid}/statm`, 'utf8').catch(() => '');
  const rssMiB = rounded((Number(statm.split(' ')[1]) * 4_096) / 1_048_576, 1);
  process.stdout.write(
    `${JSON.stringify({ minute, requests, heapMiB: heaps.map((bytes) => rounded(bytes / 1_048_576, 2)), rssMiB, failures })}\n`,
  );
  failures = [];
}

/** Some of every kind. */
async function round(isolate: Isolate): Promise<void> {
  const plain = (path: () => string, status = 200) =>
    send(isolate, KIND, { status, next: () => ({ path: path() }) }, '/', 2);
  await plain(() => '/bench/query/hit');
  await plain(() => `/bench/query/soak-${(n += 1)}`);
  await plain(() => `/bench/cached?n=${(n += 1)}`);
  await plain(() => '/bench/stale');
  await plain(() => '/bench/cached-stale');
  await plain(() => '/bench/wait-until');
  await plain(() => `/nothing/${(n += 1)}`, 404);
  await plain(() => '/v1/users/me', 401);
  const user = (connection: number) => userOf(isolate, connection);
  await send(
    isolate,
    KIND,
    {
      next: (connection) => ({ body: JSON.stringify({ refresh_token: user(connection).refreshToken }) }),
      answered: (body, connection) => {
        const tokens = JSON.parse(body) as { access_token: string; refresh_token: string };
        Object.assign(user(connection), { accessToken: tokens.access_token, refreshToken: tokens.refresh_token });
      },
    },
    '/v1/auth/refresh',
  );
  await me(isolate, 4 * KIND);
  // Sessions of a user beyond the tenth end: so this one has none that is refreshed.
  const { email } = user(SIGNED_IN);
  await send(
    isolate,
    1,
    { next: () => ({ body: JSON.stringify({ email, password: PASSWORD }) }) },
    '/v1/auth/login',
    1,
  );
  await abandon(setUp.target(isolate, '/bench/slow'), {
    connections: 4,
    requests: KIND,
    waitMs: (request) => request % 12,
  });
  requests += KIND;
}

async function me(isolate: Isolate, count: number): Promise<void> {
  await send(
    isolate,
    count,
    { next: (connection) => ({ headers: bearer(userOf(isolate, connection)) }) },
    '/v1/users/me',
  );
}

/** The users are split between the isolates: each refresh token is rotated by one connection. */
function userOf(isolate: Isolate, connection: number): User {
  const user = setUp.users[ISOLATES.indexOf(isolate) * 16 + connection];
  if (user === undefined) throw new Error('there are not so many users');
  return user;
}

async function send(
  isolate: Isolate,
  count: number,
  target: Partial<Target>,
  path: string,
  connections = SIGNED_IN,
): Promise<void> {
  requests += count;
  try {
    await load(path, setUp.target(isolate, path, target), connections, { requests: count });
  } catch (error) {
    failures.push((error as Error).message);
  }
}
