import { env } from 'cloudflare:workers';
import { eq, sql } from 'drizzle-orm';
import { describe, expect, test, vi } from 'vitest';

import { ConstraintViolation, DatabaseUnavailable, StatementMistake, createDatabase } from '../../../src/db/client';
import type { Drizzle } from '../../../src/db/client';
import { users } from '../../../src/db/schema';
import { tappedD1 } from '../support/database';

const database = createDatabase(env.DB, { deadlineMs: 5_000 });
const SECRET = 'grace.hopper@example.com';

/** What a run of `work` fails with, on a real D1. */
async function failureOf(work: (db: Drizzle) => Promise<unknown>, binding: D1Database = env.DB): Promise<unknown> {
  try {
    await createDatabase(binding, { deadlineMs: 5_000 }).run(work);
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

const row = (id: string, email = `${id}@example.com`) => ({
  id,
  email,
  name: 'Grace',
  passwordHash: '',
  createdAtMs: 1,
  updatedAtMs: 1,
});

describe('a mistake in a statement', () => {
  test.each<[string, (db: Drizzle) => Promise<unknown>, RegExp]>([
    [
      'a missing table',
      (db) => db.run(sql`select * from ${sql.identifier('nowhere')} where x = ${SECRET}`),
      /no such table: nowhere/,
    ],
    ['a missing column', (db) => db.run(sql`select nil from users where email = ${SECRET}`), /no such column: nil/],
    ['a syntax error', (db) => db.run(sql`selec * from users where email = ${SECRET}`), /syntax error/],
    ['an empty set({})', (db) => db.update(users).set({}).where(eq(users.email, SECRET)), /No values to set/],
    ['no rows to insert', (db) => db.insert(users).values([]), /values\(\) must be called with at least one value/],
    ['a value of no type that D1 knows', (db) => db.run(sql`select ${() => SECRET}`), /D1_TYPE_ERROR/],
    [
      'one of a batch',
      (db) => db.batch([db.select().from(users), db.delete(users).where(sql`nil = ${SECRET}`)]),
      /no such column: nil/,
    ],
    ['a malformed literal', (db) => db.run(sql.raw(`select json('${SECRET}')`)), /malformed JSON/],
  ])('is reported as such, and never as an outage: %s', async (_, work, message) => {
    const error = await failureOf(work);
    expect(error).toBeInstanceOf(StatementMistake);
    const { logFields: fields } = error as StatementMistake;
    expect(fields['message']).toMatch(message);
    expect(JSON.stringify({ ...fields, text: String(error) })).not.toContain(SECRET);
  });

  test('is logged with the statement’s shape', async () => {
    const error = await failureOf((db) =>
      db.run(
        sql.raw(
          `select a, 'x''y' /* ${SECRET} */ from "nowhere" where b = "${SECRET}" and c in (1, 2.5, 3) -- ${SECRET}`,
        ),
      ),
    );
    expect((error as StatementMistake).logFields['statement']).toBe(
      'select a, ? from "nowhere" where b = ? and c in (?, …)',
    );
  });
});

describe('a constraint', () => {
  test.each<[string, (db: Drizzle) => Promise<unknown>, string]>([
    [
      'unique',
      (db) => db.batch([db.insert(users).values(row('twin1', SECRET)), db.insert(users).values(row('twin2', SECRET))]),
      'unique',
    ],
    [
      'primary key',
      (db) => db.insert(users).values([row('same', 'a@example.com'), row('same', 'b@example.com')]),
      'unique',
    ],
    ['not null', (db) => db.run(sql`insert into users (id, email) values ('nameless', ${SECRET})`), 'not-null'],
  ])('is reported as such: %s', async (_, work, constraint) => {
    const error = await failureOf(work);
    expect(error).toBeInstanceOf(ConstraintViolation);
    expect(error).toMatchObject({ constraint });
    expect(JSON.stringify((error as ConstraintViolation).logFields)).not.toContain(SECRET);
  });
});

/** https://developers.cloudflare.com/d1/observability/debug-d1/#error-list, and what SQLite says when it is not to blame. */
const UNAVAILABLE = [
  'D1_ERROR: D1 DB reset because its code was updated.',
  'D1_ERROR: Internal error while starting up D1 DB storage caused object to be reset.',
  'D1_ERROR: Network connection lost.',
  'D1_ERROR: Internal error in D1 DB storage caused object to be reset.',
  'D1_ERROR: Cannot resolve D1 DB due to transient issue on remote node.',
  "D1_ERROR: Can't read from request stream because client disconnected.",
  'D1_ERROR: disk I/O error: SQLITE_IOERR',
  'D1_ERROR: something that D1 has never said before',
  'Network connection lost.',
];
const OVERLOADED = [
  'D1_ERROR: D1 DB storage operation exceeded timeout which caused object to be reset.',
  'D1_ERROR: D1 DB is overloaded. Requests queued for too long.',
  'D1_ERROR: D1 DB is overloaded. Too many requests queued.',
  "D1_ERROR: D1 DB's isolate exceeded its memory limit and was reset.",
  'D1_ERROR: D1 DB exceeded its CPU time limit and was reset.',
  'D1_ERROR: database is locked: SQLITE_BUSY',
  'Too many API requests by single Worker invocation.',
];

describe('an outage', () => {
  test.each([...UNAVAILABLE.map((text) => [text, false] as const), ...OVERLOADED.map((text) => [text, true] as const)])(
    '%s',
    async (text, overloaded) => {
      const failing = tappedD1(() => Promise.reject(new Error(text)));
      for (const work of [
        (db: Drizzle) => db.select().from(users),
        (db: Drizzle) => db.batch([db.select().from(users)]),
      ]) {
        const error = await failureOf(work, failing);
        expect(error).toBeInstanceOf(DatabaseUnavailable);
        expect(error).toMatchObject({ overloaded });
      }
    },
  );

  test('is also a database that does not respond in time', async () => {
    vi.useFakeTimers();
    try {
      const silent = createDatabase(
        tappedD1(() => new Promise(() => {})),
        { deadlineMs: 2_000 },
      );
      const failed = silent.run((db) => db.select().from(users)).catch((error: unknown) => error);
      await vi.advanceTimersByTimeAsync(2_000);
      expect(await failed).toBeInstanceOf(DatabaseUnavailable);
    } finally {
      vi.useRealTimers();
    }
  });

  test('is not an error that the work itself throws', async () => {
    const own = new TypeError('a mistake of the caller');
    expect(await failureOf(() => Promise.reject(own))).toBe(own);
  });
});

describe('with read replicas', () => {
  test('every query and batch is the first of a session that begins at the primary', async () => {
    // Of a session, only the first query is certain to reach the primary; without one, all do.
    const places: (string | undefined)[] = [];
    const recording = tappedD1((query, _, place) => {
      places.push(place);
      return query();
    });
    const request = createDatabase(recording, { deadlineMs: 5_000 });
    await request.run((db) => db.select().from(users).limit(1));
    await request.batch((db) => [db.select().from(users).limit(1), db.delete(users).where(eq(users.id, 'nobody'))]);
    await request.run(async (db) => {
      await db.select().from(users).limit(1);
      await db.batch([db.select().from(users).limit(1), db.select().from(users).where(eq(users.id, 'nobody'))]);
      await db.run(sql`select 1`);
    });
    expect(places).toEqual(Array.from({ length: 5 }, () => 'first-primary 1'));
  });
});

test('works after all that', async () => {
  expect(await database.run((db) => db.select().from(users).where(eq(users.id, 'nobody')))).toEqual([]);
});
