import { randomUUID } from 'node:crypto';

import { testBindings } from '../../../support/bindings.ts';
import type { Target, Variation } from '../../support/load.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';
import type { RunningWorkers } from '../../support/workers.ts';

/**
 * `gatehouse` and `second`: the app behind a proxy that makes Redis fail; `patient`: the same, whose breaker never opens and
 * whose deadlines for Redis are short, so that every request meets the failure; `hurried`: `patient` with a short deadline
 * for D1; `clock`: sends scheduled events to `gatehouse`.
 */
export const ISOLATES = ['gatehouse', 'second', 'patient', 'hurried', 'documented-stack', 'bare-hono'] as const;
export type Isolate = (typeof ISOLATES)[number];

/** Few, so that the maps that an isolate bounds are full before anything is measured. */
const USERS = 32;
/** Others, who only log in: their eleventh session ends their first. */
const LOGINS = 8;
const UNLIMITED = '100000000/1h';

export interface User {
  email: string;
  accessToken: string;
  refreshToken: string;
}

export interface SetUp extends AsyncDisposable {
  workers: RunningWorkers;
  users: readonly User[];
  /** Those who only log in. */
  logins: readonly User[];
  /** Requests to this path, as one of the users. */
  target: (worker: Isolate | 'clock', path: string, more?: Partial<Target>) => Target;
  /** Makes D1 fail for all Workers, or well again. */
  setDatabase(state: 'up' | 'away' | 'hanging'): Promise<void>;
}

export const PASSWORD = 'correct horse battery';
const ADDRESS = { 'CF-Connecting-IP': '203.0.113.7' };

/** Starts an isolate for each of {@link ISOLATES} in one workerd with its inspector. */
export async function start(redis: BenchRedis): Promise<SetUp> {
  const [app, clock, documented, bare] = await Promise.all(
    ['memory/gatehouse.ts', 'memory/clock.ts', 'guarded-get/documented-stack.ts', 'guarded-get/bare-hono.ts'].map(
      bundlePeer,
    ),
  );
  const settings = testBindings({ url: redis.delayedUrl, token: redis.token });
  const limits = Object.fromEntries(
    ['API', 'ACCOUNT', 'LOGIN', 'LOGIN_ADDRESS', 'REGISTER', 'REFRESH', 'RECOVERY_ACCOUNT'].map((name) => [
      `LIMIT_${name}`,
      UNLIMITED,
    ]),
  );
  const bindings = {
    ...settings,
    ...limits,
    PREFIX: `bench-${randomUUID().slice(0, 8)}`,
    PUBLIC_KEY: publicKeyOf(settings['SIGNING_KEYS'] ?? ''),
    LIMIT_REGISTER: '10000/1m',
    LIMIT_REGISTER_DAY: '10000/1m',
    // Reports of metrics are part of what a request may leave behind.
    METRICS_INTERVAL_MS: '1000',
    // The cheapest: a hash is one buffer, whatever it costs.
    SCRYPT_LN: '1',
    // The run is longer than the 15 minutes that a token lasts otherwise.
    ACCESS_TOKEN_TTL_SECONDS: '86400',
    // Busy machines are slow, and slowness is not what is measured.
    REDIS_GUARD_DEADLINE_MS: '2000',
    REDIS_AUTH_DEADLINE_MS: '2000',
    REDIS_CALL_TIMEOUT_MS: '3000',
    DATABASE_DEADLINE_MS: '30000',
  };
  const patient = {
    ...bindings,
    BREAKER_MIN_CALLS: '1000000000',
    REDIS_GUARD_DEADLINE_MS: '20',
    REDIS_AUTH_DEADLINE_MS: '20',
    REDIS_CALL_TIMEOUT_MS: '100',
  };
  const workers = await startWorkers(
    [
      { name: 'gatehouse', script: app ?? '', bindings },
      { name: 'second', script: app ?? '', bindings },
      { name: 'patient', script: app ?? '', bindings: patient },
      { name: 'hurried', script: app ?? '', bindings: { ...patient, DATABASE_DEADLINE_MS: '50' } },
      { name: 'documented-stack', script: documented ?? '', bindings },
      { name: 'bare-hono', script: bare ?? '', bindings },
      { name: 'clock', script: clock ?? '', bindings: {}, services: { WORKER: 'gatehouse' } },
    ],
    { inspector: true },
  );
  try {
    const urlOf = (name: string) => workers.urls.get(name) ?? '';
    const users: User[] = [];
    for (let index = 0; index < USERS + LOGINS; index += 1) users.push(await register(urlOf('gatehouse'), index));
    return {
      workers,
      users: users.slice(0, USERS),
      logins: users.slice(USERS),
      target: (worker, path, more = {}) => ({
        url: `${urlOf(worker)}${path}`,
        headers: ADDRESS,
        next: (connection: number): Variation => ({ headers: bearer(users[connection % USERS]) }),
        ...more,
      }),
      async setDatabase(state) {
        const response = await fetch(`${workers.databaseUrl}/state/${state}`);
        if (!response.ok) throw new Error(`the database answered ${response.status}`);
        await response.text();
      },
      [Symbol.asyncDispose]: () => workers[Symbol.asyncDispose](),
    };
  } catch (error) {
    await workers[Symbol.asyncDispose]();
    throw error;
  }
}

export function bearer(user: User | undefined): Record<string, string> {
  return { Authorization: `Bearer ${user?.accessToken}` };
}

async function register(url: string, index: number): Promise<User> {
  const email = `bench${index}@example.com`;
  const response = await fetch(`${url}/v1/auth/register`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...ADDRESS },
    body: JSON.stringify({ email, password: PASSWORD, name: `Bench ${index}` }),
  });
  if (response.status !== 201) throw new Error(`the app answered ${response.status} to a registration`);
  const tokens = (await response.json()) as { access_token: string; refresh_token: string };
  return { email, accessToken: tokens.access_token, refreshToken: tokens.refresh_token };
}

function publicKeyOf(signingKeys: string): string {
  const { keys } = JSON.parse(signingKeys) as { keys: Record<string, string>[] };
  const { kty, crv, x } = keys[0] ?? {};
  return JSON.stringify({ kty, crv, x });
}
