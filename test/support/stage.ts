import { randomBytes, randomUUID, scryptSync } from 'node:crypto';
import { inject } from 'vitest';

import { createRefreshTokens } from '../../src/services/token/refreshToken.ts';
import { UNLIMITED, startApp } from './app.ts';
import type { RunningApp } from './app.ts';
import type { RunningBackend } from './backends.ts';
import { testBindings } from './bindings.ts';
import { clientOf } from './client.ts';
import type { Answer, Call } from './client.ts';
import { startFaultyRedis } from './faults.ts';
import type { FaultyRedis } from './faults.ts';

const DAY_MS = 86_400_000;
const PREFIX = 'stage';
export const PASSWORD = 'correct horse battery';

/** A session as a client has it: its newest tokens. */
export interface Held {
  id: string;
  userId: string;
  refresh: string;
  /** `''` until its first refresh. */
  access: string;
  /** Absolute end. */
  expiresAtMs: number;
}

export interface Person {
  id: string;
  email: string;
  sessions: Held[];
}

export interface Changes {
  role?: 'user' | 'admin';
  /** How long a user's sessions last, one after the other. @default 30 days */
  livesMs?: readonly number[];
}

/** Isolates of one Worker on one database and one Redis. */
export interface Stage extends AsyncDisposable {
  app: RunningApp;
  redis: FaultyRedis;
  /** One client for each isolate. */
  isolates: readonly [Call, Call];
  /** Accounts with sessions that D1 alone knows, as after a loss of Redis: no password is hashed for them. */
  people(count: number, sessionsEach: number, changes?: Changes): Promise<Person[]>;
  keyOf: { blacklist(userId: string): string; session(sessionId: string): string };
}

const SETTINGS = { ...UNLIMITED, KEY_PREFIX: PREFIX, SESSIONS_PER_USER: '100' };

/** @param options `faults: false` takes the way past them, which costs less */
export async function startStage(
  { redisUrl }: Pick<RunningBackend, 'redisUrl'> = {},
  { settings = {}, faults = true }: { settings?: Record<string, string>; faults?: boolean } = {},
): Promise<Stage> {
  const redis = await startFaultyRedis(redisUrl);
  const server = faults ? redis : redis.direct;
  const bindings: Record<string, string> = { ...testBindings(server), ...SETTINGS, ...settings };
  const app = await startApp({ bundle: inject('workerBundle'), redis: server, settings: bindings, isolates: 2 });
  const tokens = createRefreshTokens(JSON.parse(bindings['REFRESH_KEYS']!), Date.now);
  const [first, second] = app.urls;

  async function people(count: number, sessionsEach: number, { role = 'user', livesMs = [] }: Changes = {}) {
    const nowMs = Date.now();
    const made = Array.from({ length: count }, () => {
      const id = randomUUID();
      return { id, email: `${id}@example.com`, sessions: ids(id, sessionsEach) };
    });
    await app.sql(
      `INSERT INTO users (id, email, name, role, password_hash, created_at_ms, updated_at_ms)
       SELECT value ->> 'id', value ->> 'email', 'Somebody', ?, ?, ?, ? FROM json_each(?)`,
      role,
      cheapHash(PASSWORD),
      nowMs,
      nowMs,
      JSON.stringify(made.map(({ id, email }) => ({ id, email }))),
    );
    const endOf = (index: number) => nowMs + (livesMs[index] ?? 30 * DAY_MS);
    await app.sql(
      `INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       SELECT value ->> 'id', value ->> 'user', 'Phone', '203.0.113.7', ?, ?, value ->> 'end', 1 FROM json_each(?)`,
      nowMs,
      nowMs,
      JSON.stringify(
        made.flatMap(({ id: user, sessions }) => sessions.map((id, index) => ({ id, user, end: endOf(index) }))),
      ),
    );
    return made.map(({ id: userId, email, sessions }) => ({
      id: userId,
      email,
      sessions: sessions.map((id, index) => {
        const expiresAtMs = endOf(index);
        const token = tokens.mint({ sessionId: id, generation: 1, epoch: 1, expiresAtMs });
        return { id, userId, refresh: token, access: '', expiresAtMs };
      }),
    }));
  }

  return {
    app,
    redis,
    isolates: [clientOf(first!), clientOf(second!)],
    people,
    keyOf: {
      blacklist: (userId) => `${PREFIX}:auth:blacklist:{${userId}}`,
      session: (sessionId) => `${PREFIX}:session:{${sessionId.split('.')[0]}}.${sessionId.split('.')[1]}`,
    },
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
    },
  };
}

const ids = (userId: string, count: number) =>
  Array.from({ length: count }, () => `${userId}.${randomBytes(16).toString('base64url')}`);

/** With parameters that the app reads but would not choose: a quarter of a second less for each. */
function cheapHash(password: string): string {
  const salt = randomBytes(16);
  const text = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '');
  return `$scrypt$ln=4,r=8,p=1$${text(salt)}$${text(scryptSync(password, salt, 32, { N: 16, r: 8, p: 1 }))}`;
}

/** Asks with the session's newest refresh token. */
export const refresh = (call: Call, { refresh: token }: Pick<Held, 'refresh'>): Promise<Answer> =>
  call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });

export const me = (call: Call, { access }: Pick<Held, 'access'>): Promise<Answer> =>
  call('GET', '/v1/users/me', { token: access });

/** The session with the tokens of an answer. @throws when it holds none */
export function renewed(session: Held, { status, body }: Answer): Held {
  if (status !== 200) throw new Error(`no tokens: ${status} ${JSON.stringify(body)}`);
  const { access_token: access, refresh_token: next } = body as { access_token: string; refresh_token: string };
  return { ...session, access, refresh: next };
}

/** What a client does first: from then on it has both tokens, and Redis knows the session. */
export async function wake(call: Call, session: Held): Promise<Held> {
  return renewed(session, await refresh(call, session));
}

/** Runs work over items, a few at a time. */
export async function eachOf<T, R>(items: readonly T[], width: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = items.entries();
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const [index, item] of queue) results[index] = await work(item);
    }),
  );
  return results;
}

/** Lets time pass for a session, as far as Redis and D1 have noted it. */
export async function age({ app, redis, keyOf }: Stage, { id }: Held, ms: number): Promise<void> {
  for (const field of ['ct', 'ls']) await redis.engine('HINCRBY', keyOf.session(id), field, -ms);
  await app.sql('UPDATE sessions SET last_seen_at_ms = last_seen_at_ms - ? WHERE id = ?', ms, id);
}

export const REVOKED = { status: 401, body: { code: 'TOKEN_REVOKED' } };
