import { env } from 'cloudflare:workers';
import { beforeEach, describe, expect, test } from 'vitest';

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

  test('that change while they are filled keep what they are then', async () => {
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
  const lists = plans.filter((plan) => /^SCAN users USING (?:COVERING )?INDEX users_search$/.test(plan));
  expect(lists).toHaveLength(2);
  expect(plans.filter((plan) => plan === 'SCAN users USING INDEX users_unfolded').length).toBeGreaterThan(0);
  expect(plans.join('; ')).not.toContain('TEMP B-TREE');
});
