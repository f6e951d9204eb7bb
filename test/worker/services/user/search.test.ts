import { env } from 'cloudflare:workers';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

import { UserService } from '../../../../src/services/user.service';
import { fold } from '../../../../src/util/fold';
import { tappedD1 } from '../../support/database';
import { inRequest, isolateFor } from '../../support/request';

const isolate = isolateFor();
const as = <T>(work: () => Promise<T>) => inRequest(work, { isolate });
const found = async (q: string) => {
  const { items, total } = await as(() => UserService.getUsers({ page: 1, limit: 50, q }));
  expect(total).toBe(items.length);
  return items.map(({ name }) => name);
};

/** As the version before the column wrote it. */
const addOld = (id: string, name: string) =>
  env.DB.prepare(
    `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms) VALUES (?, ?, ?, '', 1, 1)`,
  )
    .bind(id, `${id}@example.com`, name)
    .run();
const searchOf = async (id: string) =>
  (await env.DB.prepare('SELECT search FROM users WHERE id = ?').bind(id).first<{ search: string | null }>())?.search;

beforeEach(() => env.DB.prepare('DELETE FROM users').run());
// Other files list their own.
afterAll(() => env.DB.prepare('DELETE FROM users').run());

describe('rows from before the column', () => {
  test('are found by A to Z at once, and by every letter once they are filled', async () => {
    await addOld('old-1', 'Émile ZOLA');
    expect(await found('zola')).toEqual(['Émile ZOLA']);
    expect(await found('OLD-1@EXAMPLE')).toEqual(['Émile ZOLA']);
    expect(await found('émile')).toEqual([]);
    expect(await as(() => UserService.fillSearch())).toBe(1);
    // The list that was cached a moment ago has gone with it.
    expect(await found('émile')).toEqual(['Émile ZOLA']);
    expect(await searchOf('old-1')).toBe('émile zola\nold-1@example.com');
    expect(await as(() => UserService.fillSearch())).toBe(0);
  });

  test('are filled 5,000 a call, by two queries for each 500, and the next call goes on', async () => {
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5100)
       INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms)
       SELECT 'many-' || i, 'many-' || i || '@example.com', 'É ' || i, '', 1, 1 FROM n`,
    ).run();
    let queries = 0;
    const db = tappedD1((query) => {
      queries += 1;
      return query();
    });
    expect(await inRequest(() => UserService.fillSearch(), { isolate, db })).toBe(5_000);
    expect(queries).toBeLessThanOrEqual(20);
    const left = () => env.DB.prepare('SELECT count(*) AS n FROM users WHERE search IS NULL').first<{ n: number }>();
    expect(await left()).toEqual({ n: 100 });
    expect(await as(() => UserService.fillSearch())).toBe(100);
    expect(await left()).toEqual({ n: 0 });
    expect(await as(() => UserService.getUsers({ page: 1, limit: 1, q: 'é' }))).toMatchObject({ total: 5_100 });
  });

  test('that change while they are filled keep the change', async () => {
    await addOld('race', 'Before');
    const db = tappedD1(async (query) => {
      const result = await query();
      // Between reading the row and writing its text.
      await env.DB.prepare("UPDATE users SET name = 'ÀFTER' WHERE id = 'race' AND name = 'Before'").run();
      return result;
    });
    await inRequest(() => UserService.fillSearch(), { isolate, db });
    expect(await searchOf('race')).toBeNull();
    await as(() => UserService.fillSearch());
    expect(await searchOf('race')).toBe('àfter\nrace@example.com');
  });
});

describe('a change of the name', () => {
  test.each([
    ['to another', 'Émile', 'Zoë'],
    ['of its case alone, which folds as before', 'Émile', 'éMILE'],
    ['of its normal form alone', 'Émile', 'E\u0301mile'],
    ['to the same', 'Émile', 'Émile'],
  ])('%s is searched for at once', async (_, before, after) => {
    await addOld('renamed', before);
    await as(() => UserService.fillSearch());
    await as(() => UserService.updateUser('renamed', { name: after }));
    expect(await searchOf('renamed')).toBe(`${fold(after)}\nrenamed@example.com`);
    expect(await found(after.toUpperCase())).toEqual([after]);
  });

  test('by a statement that does not know of the search text leaves none that is wrong', async () => {
    await addOld('raw', 'Émile');
    await as(() => UserService.fillSearch());
    await env.DB.prepare("UPDATE users SET name = 'ZOË' WHERE id = 'raw'").run();
    expect(await searchOf('raw')).toBeNull();
    await as(() => UserService.fillSearch());
    expect(await searchOf('raw')).toBe('zoë\nraw@example.com');
    await env.DB.prepare("UPDATE users SET email = 'other@example.com' WHERE id = 'raw'").run();
    expect(await searchOf('raw')).toBeNull();
    // Neither does one that changes something else.
    await as(() => UserService.fillSearch());
    await env.DB.prepare("UPDATE users SET epoch = epoch + 1, name = name WHERE id = 'raw'").run();
    expect(await searchOf('raw')).toBe('zoë\nother@example.com');
  });
});

/** The database, which notes the SQL that it is given. */
function noted<T extends D1Database | D1DatabaseSession>(database: T, seen: string[]): T {
  return new Proxy(database, {
    get(target, name) {
      if (name === 'prepare') {
        return (sql: string) => {
          seen.push(sql);
          return target.prepare(sql);
        };
      }
      const member = Reflect.get(target, name) as unknown;
      if (typeof member !== 'function') return member;
      const method = member.bind(target) as (...args: unknown[]) => unknown;
      if (name !== 'withSession') return method;
      return (...args: unknown[]) => noted(method(...args) as D1DatabaseSession, seen);
    },
  });
}

test('a search goes through its index in the order of the list, and sorts nothing; unfilled rows are found by theirs', async () => {
  const seen: string[] = [];
  const options = { isolate: isolateFor(), db: noted(env.DB, seen) };
  await inRequest(() => UserService.getUsers({ page: 1, limit: 20, q: 'nobody' }), options);
  await inRequest(() => UserService.getUsers({ page: 1, limit: 20 }), options);
  await inRequest(() => UserService.fillSearch(), options);
  const plans: string[] = [];
  // Other work of the isolate, such as a delivery behind the response, may ask as well.
  for (const sql of seen.filter((text) => text.includes('"search"') || text.includes('order by'))) {
    const values = Array.from(sql.matchAll(/\?/g), () => 1);
    const explain = env.DB.prepare(`EXPLAIN QUERY PLAN ${sql}`).bind(...values);
    const { results } = await explain.all<{ detail: string }>();
    plans.push(results.map(({ detail }) => detail).join('; '));
  }
  const lists = plans.filter((plan) =>
    /^SCAN users USING (?:COVERING )?INDEX users_search(?:;|$)/.test(plan.replace('MATERIALIZE found; ', '')),
  );
  expect(lists).toHaveLength(2);
  expect(plans.filter((plan) => plan === 'SCAN users USING INDEX users_unfolded').length).toBeGreaterThan(0);
  expect(plans.join('; ')).not.toContain('TEMP B-TREE');
});

describe('a search looks at each account once', () => {
  const ACCOUNTS = 450;
  beforeEach(async () => {
    await env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ACCOUNTS})
       INSERT INTO users (id, email, name, search, password_hash, created_at_ms, updated_at_ms)
       SELECT 'p-' || i, 'p-' || i || '@example.com', 'Page ' || i, 'page ' || i || char(10) || 'p-' || i || '@example.com', '',
         i / 7, 1 FROM n`,
    ).run();
  });

  /** Rows that the database reads for the searches: the users that they find are read by their ids. */
  function counting() {
    const read = { rows: 0 };
    const db = tappedD1(async (query) => {
      const result = await query();
      if (Array.isArray(result))
        for (const { meta } of result as Partial<D1Result>[]) read.rows += meta?.rows_read ?? 0;
      return result;
    });
    return { db, read };
  }

  test('for the ids and the total of several pages, whether few or many are found', async () => {
    const { db, read } = counting();
    const isolate = isolateFor();
    // In one request, which keeps what it has read: another one may come before the cache is filled.
    const pages = (q: string, ...numbers: number[]) => {
      const work = () => Promise.all(numbers.map((page) => UserService.getUsers({ page, limit: 20, q })));
      return inRequest(work, { isolate, db });
    };
    for (const list of await pages('nobody here', 1, 2)) expect(list).toMatchObject({ items: [], total: 0 });
    // To count apart from the list, and for each page anew, would read 1,800.
    expect(read.rows).toBeGreaterThan(0);
    expect(read.rows).toBeLessThanOrEqual(ACCOUNTS + 5);
    read.rows = 0;
    const numbers = Array.from({ length: 10 }, (_, index) => index + 1);
    for (const list of await pages('page', ...numbers)) expect(list.total).toBe(ACCOUNTS);
    // The 200 ids of the block are read three times, but twice from memory.
    expect(read.rows).toBeLessThanOrEqual(ACCOUNTS + 2 * 200 + 10);
  });

  test.each([7, 20, 100])('and pages of %i, whatever block they stand in, list each account once', async (limit) => {
    const isolate = isolateFor();
    const listed: string[] = [];
    for (let page = 1; page <= Math.ceil(ACCOUNTS / limit) + 1; page += 1) {
      const list = await inRequest(() => UserService.getUsers({ page, limit, q: 'PAGE' }), { isolate });
      expect(list).toMatchObject({ page, limit, total: ACCOUNTS });
      listed.push(...list.items.map(({ id }) => id));
    }
    const { results } = await env.DB.prepare('select id from users order by created_at_ms, id').all();
    expect(listed).toEqual(results.map(({ id }) => id));
  });

  test('also a page after the last block knows the total', async () => {
    expect(await as(() => UserService.getUsers({ page: 50, limit: 20, q: 'page' }))).toMatchObject({
      items: [],
      total: ACCOUNTS,
    });
  });
});
