import { randomBytes, randomUUID } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { getMigrations } from 'better-auth/db/migration';

import { testBindings } from '../../../support/bindings.ts';
import { OPTIONS } from '../../peers/refresh/options.ts';
import { databaseAt } from '../../support/database.ts';
import type { BenchDatabase } from '../../support/database.ts';
import type { Target } from '../../support/load.ts';
import type { BenchPostgres } from '../../support/postgres.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { bundleApp, bundlePeer, startWorkers } from '../../support/workers.ts';

export const CASES = ['gatehouse', 'gatehouse on PostgreSQL', 'better-auth'] as const;
export type CaseName = (typeof CASES)[number];
export const LOADS = ['refresh', 'read'] as const;
export type LoadName = (typeof LOADS)[number];

/** Each is a client of its own: a user, a session, and what it was given last. */
export const CONNECTIONS = 4;

const BASE_URL = 'http://bench.example';
const ADDRESS = { 'CF-Connecting-IP': '203.0.113.7' };
const person = (index: number) => ({
  email: `bench-${index}-${randomUUID()}@example.com`,
  password: 'correct horse battery',
  name: 'Bench',
});

export interface SetUp extends AsyncDisposable {
  /** By case; PostgreSQL's only where there is a server. */
  targets: ReadonlyMap<CaseName, Record<LoadName, Target>>;
  databaseOf(name: CaseName): BenchDatabase;
  /** The Worker that signs and verifies. */
  joseUrl: string;
}

export async function start(redis: BenchRedis, postgres: BenchPostgres | undefined): Promise<SetUp> {
  const ours = await bundleApp();
  const [forPostgres, theirs, jose, schema] = await Promise.all([
    postgres && bundleApp('postgres'),
    bundlePeer('refresh/better-auth.ts'),
    bundlePeer('refresh/jose.ts'),
    betterAuthSchema(),
  ]);
  const settings = testBindings({ url: redis.delayedUrl, token: redis.token });
  const betterAuth = (name: LoadName, updateAgeSeconds: number) => ({
    name: `better-auth-${name}`,
    script: theirs,
    bindings: {
      ...settings,
      PREFIX: `bench-${randomUUID().slice(0, 8)}`,
      SECRET: randomBytes(32).toString('base64url'),
      BASE_URL,
      UPDATE_AGE_SECONDS: String(updateAgeSeconds),
    },
  });
  const gatehouse = {
    ...settings,
    LIMIT_REFRESH: '100000000/1h',
    LIMIT_REGISTER: '1000/1m',
    LIMIT_REGISTER_DAY: '1000/1m',
    LIMIT_API: '100000000/1h',
    // The peer waits for Redis as long as it takes.
    REDIS_GUARD_DEADLINE_MS: '10000',
    REDIS_AUTH_DEADLINE_MS: '10000',
    REDIS_CALL_TIMEOUT_MS: '30000',
  };
  const onPostgres = {
    name: 'gatehouse-postgres',
    script: forPostgres ?? '',
    bindings: { ...gatehouse, KEY_PREFIX: 'postgres' },
    postgres: postgres?.url,
  };
  const running = await startWorkers(
    [
      { name: 'gatehouse', script: ours, bindings: gatehouse },
      ...(postgres === undefined ? [] : [onPostgres]),
      betterAuth('refresh', 0),
      betterAuth('read', 86_400),
      { name: 'jose', script: jose, bindings: {} },
    ],
    { schema },
  );
  const urlOf = (name: string) => running.urls.get(name) ?? '';
  try {
    const targets = new Map<CaseName, Record<LoadName, Target>>();
    targets.set('gatehouse', await signUpGatehouse(urlOf('gatehouse')));
    if (postgres !== undefined) {
      targets.set('gatehouse on PostgreSQL', await signUpGatehouse(urlOf('gatehouse-postgres')));
    }
    targets.set('better-auth', {
      refresh: await signUpBetterAuth(urlOf('better-auth-refresh')),
      read: await signUpBetterAuth(urlOf('better-auth-read')),
    });
    const d1 = databaseAt(running.databaseUrl);
    return {
      targets,
      databaseOf: (name) => (name === 'gatehouse on PostgreSQL' ? (postgres?.database ?? d1) : d1),
      joseUrl: urlOf('jose'),
      [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
    };
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** The tables that better-auth's own migrations make. */
async function betterAuthSchema(): Promise<string[]> {
  const database = new DatabaseSync(':memory:');
  try {
    const { compileMigrations } = await getMigrations({ ...OPTIONS, database });
    return (await compileMigrations()).split(';').filter((statement) => statement.trim() !== '');
  } finally {
    database.close();
  }
}

interface Tokens {
  access_token: string;
  refresh_token: string;
}

/** Every refresh presents the token of the response before it. */
async function signUpGatehouse(url: string): Promise<Record<LoadName, Target>> {
  const clients: Tokens[] = [];
  for (let i = 0; i < CONNECTIONS; i += 1) {
    clients.push(await register(url, person(i)));
  }
  const headers = ADDRESS;
  const forbiddenHeader = 'Gatehouse-Degraded';
  return {
    refresh: {
      url: `${url}/v1/auth/refresh`,
      headers,
      forbiddenHeader,
      next: (connection) => ({ body: JSON.stringify({ refresh_token: clients[connection]?.refresh_token }) }),
      answered(body, connection) {
        const tokens = JSON.parse(body) as Tokens;
        if (tokens.refresh_token === clients[connection]?.refresh_token) throw new Error('a refresh did not rotate');
        clients[connection] = tokens;
      },
    },
    read: {
      url: `${url}/v1/users/me`,
      headers,
      forbiddenHeader,
      next: (connection) => ({ headers: { Authorization: `Bearer ${clients[connection]?.access_token}` } }),
    },
  };
}

interface BetterAuthSession {
  session: { expiresAt: string };
  user: { email: string };
}

async function signUpBetterAuth(url: string): Promise<Target> {
  const cookies: string[] = [];
  for (let i = 0; i < CONNECTIONS; i += 1) {
    const answer = await fetch(`${url}/api/auth/sign-up/email`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Origin: BASE_URL },
      body: JSON.stringify(person(i)),
    });
    if (!answer.ok) throw new Error(`better-auth answered ${answer.status} to a registration: ${await answer.text()}`);
    cookies.push(
      answer.headers
        .getSetCookie()
        .map((cookie) => cookie.split(';')[0])
        .join('; '),
    );
  }
  return {
    url: `${url}/api/auth/get-session`,
    next: (connection) => ({ headers: { Cookie: cookies[connection] ?? '' } }),
    answered(body) {
      if ((JSON.parse(body) as BetterAuthSession | null) === null) throw new Error('better-auth knows no such session');
    },
  };
}

/** When a session of better-auth ends, as its response says. */
export async function expiryOf({ url, next }: Target): Promise<number> {
  const answer = await fetch(url, { headers: next?.(0).headers ?? {} });
  const { session } = (await answer.json()) as BetterAuthSession;
  return Date.parse(session.expiresAt);
}

async function register(url: string, body: object): Promise<Tokens> {
  const answer = await fetch(`${url}/v1/auth/register`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...ADDRESS },
    body: JSON.stringify(body),
  });
  if (answer.status !== 201) throw new Error(`the app answered ${answer.status} to a registration`);
  return (await answer.json()) as Tokens;
}
