import { Hono } from 'hono';
import { eq } from 'drizzle-orm';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { users } from '../../../src/db/schema';
import { onError } from '../../../src/middlewares/error.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { CacheService } from '../../../src/services/cache.service';
import { tappedD1 } from '../support/database';
import { bindings, callerOf, isolateFor } from '../support/request';

const SECRET = 'ada@example.com';
const row = { id: 'twin', email: SECRET, name: 'Ada', passwordHash: '', createdAtMs: 1, updatedAtMs: 1 };
const clock = { aheadMs: 0 };
let failure: string | undefined;

const DB = tappedD1((query) => (failure === undefined ? query() : Promise.reject(new Error(failure))));
const bound = bindings({ DB });
const isolate = isolateFor(bound);
const database = (c: { var: AppEnv['Variables'] }) => c.var.request.database;

const app = new Hono<AppEnv>()
  .use(services({ isolate, now: () => Date.now() + clock.aheadMs }))
  .get('/users', async (c) =>
    c.json(await database(c).run((db) => db.select({ id: users.id }).from(users).where(eq(users.email, SECRET)))),
  )
  .get('/empty', async (c) =>
    c.json(await database(c).run((db) => db.update(users).set({}).where(eq(users.email, SECRET)))),
  )
  .get('/twins', async (c) =>
    c.json(await database(c).run((db) => db.insert(users).values([row, { ...row, id: 'other' }]))),
  )
  .get('/nameless', async (c) =>
    c.json(await database(c).run((db) => db.insert(users).values({ ...row, name: null as unknown as string }))),
  )
  .get('/cached', async (c) =>
    c.json(
      await CacheService.query({ namespace: 'errors', args: 1, ttlSeconds: 60, staleIfErrorSeconds: 600 }, () =>
        database(c).run(async (db) => (await db.select({ id: users.id }).from(users).limit(1)).length),
      ),
    ),
  );
app.onError(onError);

const call = callerOf(app, bound);
let lines: string[] = [];

beforeEach(() => {
  lines = [];
  failure = undefined;
  for (const level of ['error', 'warn'] as const) {
    vi.spyOn(console, level).mockImplementation((line: string) => void lines.push(line));
  }
});
afterEach(() => vi.restoreAllMocks());

const logged = (event: string) => lines.filter((line) => line.includes(`"event":"${event}"`)).join('\n');

describe('an error of the database', () => {
  test.each([
    ['D1_ERROR: Network connection lost.', '5'],
    ['D1_ERROR: D1 DB is overloaded. Too many requests queued.', '10'],
  ])('that another try may heal is a 503 with Retry-After: %s', async (text, retryAfter) => {
    failure = text;
    const answer = await call('GET', '/users');
    expect(answer).toMatchObject({ status: 503, body: { code: 'SERVICE_UNAVAILABLE' } });
    expect(answer.headers.get('Retry-After')).toBe(retryAfter);
    expect(logged('database.unavailable')).toContain(text);
  });

  test('that is a mistake is a 500, logged with its cause', async () => {
    failure = 'D1_ERROR: no such table: users: SQLITE_ERROR';
    const answer = await call('GET', '/users');
    expect(answer).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
    expect(answer.headers.get('Retry-After')).toBeNull();
    expect(logged('database.mistake')).toContain('no such table: users');
    expect(logged('database.mistake')).toContain('where \\"users\\".\\"email\\" = ?');
    expect(JSON.stringify(answer.body)).not.toMatch(/table|SQLITE/);
  });

  test('that Drizzle finds by itself is one as well', async () => {
    expect(await call('GET', '/empty')).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
    expect(logged('database.mistake')).toContain('No values to set');
  });

  test('a constraint that data violate is a conflict, one that code violates a 500', async () => {
    expect(await call('GET', '/twins')).toMatchObject({ status: 409, body: { code: 'CONFLICT' } });
    expect(logged('database.constraint')).toContain('UNIQUE constraint failed: users.email');
    expect(await call('GET', '/nameless')).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
    expect(logged('database.mistake')).toContain('NOT NULL constraint failed: users.name');
  });

  test('an outage is bridged by the cached value; a mistake is not hidden by it', async () => {
    expect(await call('GET', '/cached')).toMatchObject({ status: 200 });
    clock.aheadMs += 120_000;
    failure = 'D1_ERROR: Network connection lost.';
    const stale = await call('GET', '/cached');
    expect(stale.status).toBe(200);
    expect(stale.headers.get('Gatehouse-Degraded')).toBe('cache=stale');
    // The load that failed is not tried again at once.
    clock.aheadMs += 60_000;
    failure = 'D1_ERROR: no such column: nil: SQLITE_ERROR';
    expect(await call('GET', '/cached')).toMatchObject({ status: 500 });
    failure = undefined;
    expect(await call('GET', '/cached')).toMatchObject({ status: 200 });
  });

  test('never shows a value, in the response or in the log', async () => {
    for (const text of [
      undefined,
      `D1_ERROR: near "${SECRET}": syntax error: SQLITE_ERROR`,
      `D1_TYPE_ERROR: Type 'x' not supported for value '${SECRET}'`,
    ]) {
      failure = text;
      for (const path of ['/users', '/empty', '/twins', '/nameless']) {
        const { body } = await call('GET', path);
        expect(JSON.stringify(body)).not.toContain(SECRET);
      }
    }
    expect(lines.join('\n')).not.toContain(SECRET);
  });
});
