import { and, asc, eq, sql } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';

import { ConstraintViolation, StatementMistake, isUniqueViolation } from '../../../src/db/client';
import type { Database, Drizzle } from '../../../src/db/client';
import {
  anyOf,
  asNumber,
  asText,
  flag,
  greatest,
  jsonMap,
  jsonObject,
  least,
  nextNumber,
  positionOf,
  rowsOf,
} from '../../../src/db/portable';
import { audit, counters, outbox, sessions, users } from '../../../src/db/schema';

const SECRET = 'grace.hopper@example.com';
let made = 0;

const newUser = (id = `contract-${(made += 1)}`, email = `${id}@example.com`) => ({
  id,
  email,
  name: 'Grace',
  passwordHash: '',
  createdAtMs: 1,
  updatedAtMs: 1,
});
const newSession = (userId: string) => ({
  id: `${userId}.${crypto.randomUUID()}`,
  userId,
  device: 'Phone',
  address: '',
  createdAtMs: 1,
  lastSeenAtMs: 1,
  expiresAtMs: 2,
  epoch: 1,
});
const newMessage = () => ({ id: crypto.randomUUID(), message: '{}', dueAtMs: 0, createdAtMs: 1, expiresAtMs: 2 });

/**
 * What services rely on, of each engine.
 *
 * @param open a database as one request has it
 */
export function databaseContract(open: () => Database): void {
  const known = async (id: string) =>
    (await open().run((db) => db.select({ id: users.id }).from(users).where(eq(users.id, id)))).length === 1;
  const failureOf = async (work: Promise<unknown>): Promise<Error> =>
    work.then(
      () => Promise.reject(new Error('it did not fail')),
      (error: Error) => error,
    );

  describe('a batch', () => {
    test('returns the rows of each statement, in order; an empty one returns none', async () => {
      const user = newUser();
      const database = open();
      const results = await database.batch((db) => [
        db.insert(users).values(user).returning({ id: users.id }),
        db
          .update(users)
          .set({ epoch: sql`${users.epoch} + 1` })
          .where(eq(users.id, user.id))
          .returning(),
        db.select({ epoch: users.epoch, verified: users.emailVerifiedAtMs }).from(users).where(eq(users.id, user.id)),
        db.delete(users).where(eq(users.id, user.id)).returning({ role: users.role }),
        db.select().from(users).where(eq(users.id, user.id)),
      ]);
      expect(results[0]).toEqual([{ id: user.id }]);
      expect(results[1]).toMatchObject([{ ...user, epoch: 2, accessVersion: 1, status: 'active', search: null }]);
      expect(results[2]).toEqual([{ epoch: 2, verified: null }]);
      expect(results[3]).toEqual([{ role: 'user' }]);
      expect(results[4]).toEqual([]);
      expect(await database.batch(() => [])).toEqual([]);
    });

    test('changes all or nothing, and says which constraint it met', async () => {
      const first = newUser();
      const second = newUser(undefined, first.email);
      const error = await failureOf(
        open().batch((db) => [db.insert(users).values(first), db.insert(users).values(second)]),
      );
      expect(isUniqueViolation(error)).toBe(true);
      expect(await known(first.id)).toBe(false);
      // The connection goes on.
      await open().batch((db) => [db.insert(users).values(first)]);
      expect(await known(first.id)).toBe(true);
      const other = await failureOf(
        open().batch((db) => [
          db.insert(users).select(sql`select ${'x'}, null, 'n', null, 'user', 'active', null, '', 1, 1, 1, 1`),
        ]),
      );
      expect(other).toMatchObject({ constraint: 'not-null' });
      expect(other).toBeInstanceOf(ConstraintViolation);
      expect(isUniqueViolation(other)).toBe(false);
    });

    test('runs as if it were alone: of 24 that look before they insert, as many insert as there is room', async () => {
      const { id } = newUser();
      const begun = await Promise.all(
        Array.from({ length: 24 }, () => {
          const { id: sessionId, device, address } = newSession(id);
          const row = sql`select ${sessionId}, ${id}, ${device}, ${address}, 1, 1, 2, 1, 1, null, null, 0, '{}', null, null
            where (select count(*) from ${sessions} where ${sessions.userId} = ${id}) < 5`;
          return open().batch((db) => [db.insert(sessions).select(row).returning({ id: sessions.id })]);
        }),
      );
      expect(begun.filter(([rows]) => rows.length > 0)).toHaveLength(5);
      const rows = await open().run((db) => db.select().from(sessions).where(eq(sessions.userId, id)));
      expect(rows).toHaveLength(5);
    });

    test('adds up the numbers of 24 transactions at once', async () => {
      const user = newUser();
      await open().batch((db) => [db.insert(users).values(user)]);
      await Promise.all(
        Array.from({ length: 24 }, () =>
          open().batch((db) => [
            db
              .update(users)
              .set({ epoch: sql`${users.epoch} + 1` })
              .where(eq(users.id, user.id)),
            db.insert(sessions).values(newSession(user.id)),
          ]),
        ),
      );
      const [row] = await open().run((db) => db.select().from(users).where(eq(users.id, user.id)));
      expect(row).toMatchObject({ epoch: 25 });
    });
  });

  test.each<[string, (db: Drizzle) => PromiseLike<unknown>]>([
    [
      'a missing table',
      (db) =>
        db
          .select({ one: sql`1` })
          .from(sql`nowhere`)
          .where(sql`x = ${SECRET}`),
    ],
    [
      'a missing column',
      (db) =>
        db
          .select({ nil: sql`nil` })
          .from(users)
          .where(eq(users.email, SECRET)),
    ],
    [
      'a syntax error',
      (db) =>
        db
          .select({ one: sql`selec selec selec` })
          .from(users)
          .where(eq(users.email, SECRET)),
    ],
    ['nothing to set', (db) => db.update(users).set({}).where(eq(users.email, SECRET))],
  ])('%s is a mistake, and its log line has no value', async (_, work) => {
    const error = await failureOf(open().run(async (db) => work(db)));
    expect(error).toBeInstanceOf(StatementMistake);
    expect(JSON.stringify([error.message, (error as StatementMistake).logFields])).not.toContain('grace');
  });

  test('functions that engines write differently give the same', async () => {
    const user = { ...newUser(), name: 'Ada', epoch: 7 };
    await open().batch((db) => [db.insert(users).values(user)]);
    const only = eq(users.id, user.id);
    const [row] = await open().run((db) =>
      db
        .select({
          greatest: greatest(users.epoch, 9).as('greatest'),
          least: least(users.epoch, 9, sql`${users.epoch} - 1`).as('least'),
          found: positionOf('da', users.name).as('found'),
          missing: positionOf('%', users.name).as('missing'),
          object: jsonObject({
            kind: sql`'epoch'`,
            id: users.id,
            epoch: users.epoch,
            text: 'a"b',
            number: 3,
            none: null,
          }).as('object'),
          map: jsonMap(users.id, users.epoch).as('map'),
          yes: flag(eq(users.name, 'Ada')).as('yes'),
          no: flag(eq(users.name, 'Bob')).as('no'),
          text: asText('t').as('t'),
          number: asNumber(4_000_000_000_000).as('n'),
        })
        .from(users)
        .where(only)
        .groupBy(users.id, users.epoch, users.name),
    );
    expect(row).toMatchObject({ greatest: 9, least: 6, found: 2, missing: 0, yes: 1, no: 0, text: 't', number: 4e12 });
    expect(JSON.parse(row!.object)).toEqual({
      kind: 'epoch',
      id: user.id,
      epoch: 7,
      text: 'a"b',
      number: 3,
      none: null,
    });
    expect(JSON.parse(row!.map)).toEqual({ [user.id]: 7 });
    const [empty] = await open().run((db) =>
      db
        .select({ map: jsonMap(users.id, users.epoch).as('map') })
        .from(users)
        .where(eq(users.id, '')),
    );
    expect(JSON.parse(empty!.map)).toEqual({});
  });

  test('lists of any length are one value: of texts, of numbers, of none, and of rows', async () => {
    const database = open();
    const added = Array.from({ length: 300 }, () => newUser());
    await database.batch((db) =>
      added.map((user) => db.insert(users).values({ ...user, createdAtMs: 900_000 + Number(user.id.split('-')[1]) })),
    );
    const count = async (where: ReturnType<typeof sql>) =>
      (await database.run((db) => db.select({ id: users.id }).from(users).where(where))).length;
    expect(await count(sql`${users.id} in ${anyOf(added.map(({ id }) => id))}`)).toBe(300);
    const numbers = added.slice(0, 120).map(({ id }) => 900_000 + Number(id.split('-')[1]));
    expect(await count(sql`${users.createdAtMs} in ${anyOf(numbers)}`)).toBe(120);
    expect(await count(sql`${users.id} in ${anyOf([])}`)).toBe(0);
    const rows = added.map(({ id }) => ({ id, name: `N'"\\ ${id}` }));
    const changed = await database.run((db) =>
      db
        .update(users)
        .set({ name: sql`listed.name` })
        .from(rowsOf('listed', ['id', 'name'], rows))
        .where(sql`${users.id} = listed.id`)
        .returning({ id: users.id, name: users.name }),
    );
    expect(changed.toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual(rows.toSorted((a, b) => (a.id < b.id ? -1 : 1)));
  });

  test('texts sort byte by byte', async () => {
    const ids = ['é', 'b', 'a', '_', 'B', ':', '1', 'z'].map((letter) => `order-${letter}`);
    await open().batch((db) => ids.map((id) => db.insert(users).values(newUser(id))));
    const rows = await open().run((db) =>
      db
        .select({ id: users.id })
        .from(users)
        .where(and(sql`${users.id} >= 'order-'`, sql`${users.id} < 'order.'`))
        .orderBy(asc(users.id)),
    );
    // In UTF-8: digits, `:`, capitals, `_`, small letters, all others.
    expect(rows.map(({ id }) => id.slice('order-'.length)).join('')).toBe('1:B_abzé');
  });

  test('numbers grow with each insertion, also after rows were given later ones', async () => {
    const database = open();
    const insert = async () => {
      const [rows] = await database.batch((db) => [
        db.insert(outbox).values(newMessage()).returning({ seq: outbox.seq }),
      ]);
      return rows[0]!.seq;
    };
    const [first, second] = [await insert(), await insert()];
    expect(second).toBeGreaterThan(first);
    const moved = second + 1_000;
    await database.batch((db) => [db.update(outbox).set({ seq: moved }).where(eq(outbox.seq, first))], {
      renumbered: outbox,
    });
    const third = await insert();
    expect(third).toBeGreaterThan(moved);
    const values = sql`${nextNumber(audit.seq)}, 1, 'someone', 'renamed', null, '{}'`;
    const [a, b] = await database.batch((db) => [
      db
        .insert(audit)
        .select(sql`select ${values}`)
        .returning({ seq: audit.seq }),
      db
        .insert(audit)
        .select(sql`select ${values}`)
        .returning({ seq: audit.seq }),
    ]);
    expect(b[0]!.seq).toBeGreaterThan(a[0]!.seq);
    const [newest] = await database.batch(
      (db) => [db.select({ seq: sql<number>`max(${outbox.seq})`.as('seq') }).from(outbox)],
      { settled: outbox },
    );
    expect(newest).toEqual([{ seq: third }]);
  });

  test('the number of users is kept, and a new name leaves no search text of the former one', async () => {
    const database = open();
    const total = async () =>
      (
        await database.run((db) => db.select({ n: counters.value }).from(counters).where(eq(counters.name, 'users')))
      )[0]!.n;
    const before = await total();
    const some = Array.from({ length: 150 }, () => ({ ...newUser(), search: 'grace' }));
    for (const user of some) await database.batch((db) => [db.insert(users).values(user)]);
    const gone = some.slice(0, 70).map(({ id }) => id);
    await database.run((db) => db.delete(users).where(sql`${users.id} in ${anyOf(gone)}`));
    expect(await total()).toBe(before + 80);
    const { id } = some[100]!;
    const search = async () =>
      (await database.run((db) => db.select({ search: users.search }).from(users).where(eq(users.id, id))))[0]!.search;
    await database.run((db) => db.update(users).set({ epoch: 2 }).where(eq(users.id, id)));
    expect(await search()).toBe('grace');
    await database.run((db) => db.update(users).set({ name: 'Ada', search: 'ada' }).where(eq(users.id, id)));
    expect(await search()).toBe('ada');
    await database.run((db) => db.update(users).set({ name: 'Bob' }).where(eq(users.id, id)));
    expect(await search()).toBeNull();
  });

  test('nothing is wrong on the way to it', async () => {
    expect(await open().check()).toBeUndefined();
  });
}
