import { inject } from 'vitest';

import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import type { Answer, Call } from '../../support/client.ts';
import { startFaultyRedis } from '../../support/faults.ts';
import type { FaultyRedis } from '../../support/faults.ts';
import type { Mailbox } from '../../support/mailbox.ts';

/** Short breaker times, the product's own deadlines, and limits that no test reaches. */
export const SETTINGS = {
  ...UNLIMITED,
  KEY_PREFIX: 'app',
  REDIS_GUARD_DEADLINE_MS: '200',
  REDIS_AUTH_DEADLINE_MS: '1000',
  REDIS_CALL_TIMEOUT_MS: '2000',
  DATABASE_DEADLINE_MS: '2000',
  BREAKER_WINDOW_MS: '2000',
  BREAKER_MIN_CALLS: '8',
  BREAKER_PROBE_MS: '100',
  BREAKER_PROBE_MAX_MS: '400',
  SESSIONS_PER_USER: '100',
};

export interface Account {
  id: string;
  email: string;
  password: string;
  name: string;
}

/** A session with its newest tokens. */
export interface SignedIn {
  access: string;
  refresh: string;
  /** `<userId>.<random>` */
  sessionId: string;
  userId: string;
}

export interface Scene extends AsyncDisposable {
  redis: FaultyRedis;
  app: RunningApp;
  call: Call;
  /** Registers a user: one password hash. */
  newAccount(): Promise<Account & SignedIn>;
  /** Another session: one password hash. */
  signIn(account: Account): Promise<SignedIn>;
}

/** @param email where the app's mails go; without it, it sends none */
export async function startScene(settings: Record<string, string> = {}, email?: Mailbox): Promise<Scene> {
  const redis = await startFaultyRedis();
  const app = await startApp({
    bundle: inject('workerBundle'),
    redis,
    settings: { ...SETTINGS, ...settings },
    ...(email !== undefined && { email }),
  });
  // Each from an address of its own, so that nothing that is counted by address adds up.
  let client = 0;
  const elsewhere = () => clientOf(app.url, `198.51.100.${(client = (client % 250) + 1)}`);
  return {
    redis,
    app,
    call: clientOf(app.url),
    async newAccount() {
      const account = newcomer();
      const answer = await elsewhere()('POST', '/v1/auth/register', { body: account });
      return { ...account, ...signedIn(answer), id: (answer.body as { user: { id: string } }).user.id };
    },
    async signIn({ email, password }) {
      return signedIn(await elsewhere()('POST', '/v1/auth/login', { body: { email, password } }));
    },
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
    },
  };
}

/** The session of an answer with tokens. */
export function signedIn({ status, body }: Answer): SignedIn {
  const { access_token: access, refresh_token: refresh } = body as { access_token?: string; refresh_token?: string };
  if (access === undefined || refresh === undefined) throw new Error(`no tokens: ${status} ${JSON.stringify(body)}`);
  const payload = Buffer.from(access.split('.')[1] ?? '', 'base64url').toString();
  const { sub, sid } = JSON.parse(payload) as { sub: string; sid: string };
  return { access, refresh, sessionId: sid, userId: sub };
}

/** Which of the app's checks did not work as they should have; empty when all did. */
export function degraded({ headers }: Answer): string {
  return headers.get('Gatehouse-Degraded') ?? '';
}

export async function timed<T>(work: () => Promise<T>): Promise<{ result: T; ms: number }> {
  const startMs = performance.now();
  const result = await work();
  return { result, ms: performance.now() - startMs };
}

/** Waits until something holds. The error names what it waited for. @returns milliseconds waited */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  { withinMs = 60_000, everyMs = 25 }: { withinMs?: number; everyMs?: number } = {},
): Promise<number> {
  const startMs = performance.now();
  while (!(await holds())) {
    if (performance.now() - startMs > withinMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
  return performance.now() - startMs;
}

export const isAvailable = async (call: Call): Promise<boolean> =>
  ((await call('GET', '/health')).body as { redisAvailable: boolean }).redisAvailable;

/** Three undegraded reads in a row: the app relies on Redis again. */
export async function untilRecovered({ call }: Scene, token: string, withinMs = 60_000): Promise<number> {
  let inARow = 0;
  return until(
    'the app relies on Redis again',
    async () => {
      const answer = await call('GET', '/v1/users/me', { token });
      inARow = answer.status === 200 && degraded(answer) === '' ? inARow + 1 : 0;
      return inARow >= 3;
    },
    { withinMs },
  );
}

/** What Redis says of a session: the end of what its denial covers, or `null`. */
export function denialOf({ redis }: Scene, { userId, sessionId }: SignedIn): Promise<unknown> {
  return redis.engine('HGET', `app:auth:blacklist:{${userId}}`, `s:${sessionId}`);
}

/** Ends a session as another isolate would: in the database, and in Redis when that can be reached; this isolate is not notified. */
export async function endElsewhere(
  { app, redis }: Scene,
  { userId, sessionId }: SignedIn,
  { redisKnows }: { redisKnows: boolean },
): Promise<void> {
  const nowMs = Date.now();
  await app.sql("UPDATE sessions SET ended_at_ms = ?, ended_reason = 'logout' WHERE id = ?", nowMs, sessionId);
  if (redisKnows) await redis.engine('HSET', `app:auth:blacklist:{${userId}}`, `s:${sessionId}`, nowMs + 3_600_000);
}
