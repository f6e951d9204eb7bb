import { env } from 'cloudflare:workers';
import { expect, test } from 'vitest';

import { createDatabase } from '../../../src/db/client';
import { createAuditService } from '../../../src/services/audit.service';
import { createAdministration } from '../../../src/services/session/administration';
import { createDeletion } from '../../../src/services/user/deletion';
import { UserService } from '../../../src/services/user.service';
import { cacheScene } from '../support/cache';
import { tappedD1 } from '../support/database';
import { bindings, inRequest, isolateFor } from '../support/request';

let made = 0;

async function newUser(name = 'Ada', db: D1Database = env.DB): Promise<string> {
  const id = `listed-${(made += 1)}`;
  await db
    .prepare(
      `insert into users (id, email, name, password_hash, created_at_ms, updated_at_ms) values (?, ?, ?, '', ?, 1)`,
    )
    .bind(id, `${id}@example.com`, name, made)
    .run();
  return id;
}

test('the total of a list is exact, and is not counted', async () => {
  const scene = cacheScene();
  const ids = await Promise.all(Array.from({ length: 40 }, () => newUser()));
  await env.DB.prepare('delete from users where id in (?, ?)').bind(ids[0], ids[1]).run();
  let rowsRead = 0;
  const db = tappedD1(async (query) => {
    const result = await query();
    // Of a batch: the list and its total. Its users are read by their ids.
    if (Array.isArray(result)) for (const { meta } of result as Partial<D1Result>[]) rowsRead += meta?.rows_read ?? 0;
    return result;
  });
  const list = await scene.run(async () => UserService.getUsers({ page: 1, limit: 5 }), scene.isolate, db);
  const exact = await env.DB.prepare('select count(*) as n from users').first<number>('n');
  expect(list).toMatchObject({ page: 1, limit: 5, total: exact });
  expect(list.items).toHaveLength(5);
  expect(rowsRead).toBeGreaterThan(0);
  // Five of the index, at most with their rows, and the counter's.
  expect(rowsRead).toBeLessThanOrEqual(2 * 5 + 2);
});

/** The tests' database, and the rows that its batches read. */
function readingD1() {
  const read = { rows: 0 };
  const db = tappedD1(async (query) => {
    const result = await query();
    for (const { meta } of [result].flat() as Partial<D1Result>[]) read.rows += meta?.rows_read ?? 0;
    return result;
  });
  return { read, database: createDatabase(db, { deadlineMs: 5_000 }) };
}

test.each([
  ['of one account', 'audited'],
  ['of all', undefined],
])('the audit %s has an exact total on each page, and looks at each entry once', async (_, userId) => {
  await env.DB.prepare('delete from audit').run();
  await env.DB.prepare(
    `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
     INSERT INTO audit (at_ms, by, action, user_id) SELECT i, 'someone', 'renamed', iif(i % 4 = 0, 'audited', null) FROM n`,
  ).run();
  const total = userId === undefined ? 400 : 100;
  const { read, database } = readingD1();
  const service = createAuditService({ database, now: Date.now });
  const listed: number[] = [];
  for (let page = 1; page <= total / 25; page += 1) {
    read.rows = 0;
    const list = await service.list({ page, limit: 25, userId });
    expect(list.total).toBe(total);
    listed.push(...list.items.map(({ seq }) => seq));
    expect(read.rows).toBeGreaterThanOrEqual(total);
    // The rows of the page are read again: for their number, the last one, and in their order.
    expect(read.rows).toBeLessThanOrEqual(total + 4 * 25);
  }
  expect(new Set(listed).size).toBe(total);
  expect(listed).toEqual(listed.toSorted((a, b) => b - a));
  expect(await service.list({ page: 99, limit: 25, userId })).toEqual({ items: [], total });
  expect(await service.list({ page: 1, limit: 25, userId: 'nobody' })).toEqual({ items: [], total: 0 });
});

test('a page of a user’s sessions that is not full is not counted', async () => {
  const { read, database } = readingD1();
  const sessionsOf = async (userId: string, number: number) =>
    env.DB.prepare(
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
       INSERT INTO sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       SELECT ?1 || '.' || i, ?1, iif(i = 1, '', 'Phone'), '', i / 3, 1, 9 - i, 1 FROM n`,
    )
      .bind(userId, number)
      .run();
  // One names no device.
  await sessionsOf('seldom', 13);
  const deps = { database, lastSeen: async () => new Map(), idleMs: 1, now: () => 10 };
  const service = createAdministration(deps as unknown as Parameters<typeof createAdministration>[0]);

  read.rows = 0;
  expect(await service.history('seldom', { page: 1, limit: 20 })).toMatchObject({ total: 12 });
  // Found, sorted, and given in order; to count them would read 13 more.
  expect(read.rows).toBeGreaterThan(0);
  expect(read.rows).toBeLessThanOrEqual(13 + 4 * 12);
});

test('a change is seen in lists at once, without ending those that it does not change', async () => {
  const scene = cacheScene();
  const id = await newUser('Before');
  const list = () => scene.run(async () => UserService.getUsers({ page: 1, limit: 100 }));
  const shown = async () => (await list()).items.find((user) => user.id === id);
  expect(await shown()).toMatchObject({ name: 'Before', role: 'user' });
  const { keys } = scene.isolate;
  const lists = keys.namespaceVersion('users');

  const written = async (change: Parameters<typeof UserService.updateUser>[1]) => {
    scene.state.sent = [];
    await scene.run(async () => UserService.updateUser(id, change));
    return scene.state.sent.flatMap((commands) =>
      commands.flatMap(([name, key]) => (name === 'SET' ? [String(key)] : [])),
    );
  };
  expect(await written({ role: 'admin' })).toEqual([keys.userVersion(id)]);
  expect(await shown()).toMatchObject({ role: 'admin' });
  const renamed = await written({ name: 'After' });
  expect(renamed).toContain(keys.userVersion(id));
  expect(renamed).not.toContain(lists);
  expect(await shown()).toMatchObject({ name: 'After' });
});

test('a search finds a new name at once', async () => {
  const scene = cacheScene();
  const id = await newUser('Wolfhard');
  const search = (q: string) => scene.run(async () => UserService.getUsers({ page: 1, limit: 10, q }));
  expect(await search('wolfhard')).toMatchObject({ total: 1 });
  expect(await search('siegrun')).toMatchObject({ total: 0 });
  await scene.run(async () => UserService.updateUser(id, { name: 'Siegrun' }));
  expect(await search('wolfhard')).toMatchObject({ total: 0, items: [] });
  expect(await search('siegrun')).toMatchObject({ total: 1, items: [{ id, name: 'Siegrun' }] });
});

test('a cached list costs no query, and neither do its users', async () => {
  const scene = cacheScene();
  await newUser();
  const list = (db?: D1Database) =>
    scene.run(async () => UserService.getUsers({ page: 1, limit: 3 }), scene.isolate, db);
  const first = await list();
  const asked = tappedD1(() => Promise.reject(new Error('D1_ERROR: it was asked')));
  expect(await list(asked)).toEqual(first);
});

test('the text of a search does not stand in Redis', async () => {
  const scene = cacheScene();
  await scene.run(async () => UserService.getUsers({ page: 1, limit: 3, q: 'somebody@example.com' }));
  const sent = JSON.stringify(scene.state.sent);
  expect(sent).toContain('"SET"');
  expect(sent).not.toContain('somebody');
});

test('a deletion that a new session overtakes does nothing, and is made with that session as well', async () => {
  const id = await newUser();
  const session = (name: string) =>
    env.DB.prepare(
      `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       values (?, ?, 'Phone', '', 1, 1, ?, 1)`,
    )
      .bind(`${id}.${name}`, id, Date.now() + 600_000)
      .run();
  await session('first');
  let batches = 0;
  const overtaken = tappedD1(async (query, kind) => {
    if (kind === 'batch' && (batches += 1) === 1) await session('second');
    return query();
  });
  const delivered: string[] = [];
  const scene = cacheScene();
  const database = createDatabase(overtaken, { deadlineMs: 5_000 });
  const deletion = createDeletion({
    database,
    idempotency: { batch: (statements) => database.batch(statements) },
    audit: createAuditService({ database: createDatabase(env.DB, { deadlineMs: 5_000 }), now: Date.now }),
    copiesOf: () => ({ kind: 'invalidate' }),
    personal: [],
    now: Date.now,
    outbox: {
      ...scene.isolate,
      prepare: (messages: readonly { kind: string; sessionId?: string }[]) => ({
        statements: () => [],
        deliver: async () => {
          delivered.push(...messages.flatMap(({ sessionId }) => sessionId ?? []));
          return { pending: false };
        },
      }),
      prepareVersions: () => ({ statements: () => [], deliver: async () => ({ pending: false }) }),
    } as unknown as Parameters<typeof createDeletion>[0]['outbox'],
  });
  const rows = () => env.DB.prepare('select id from users where id = ?').bind(id).all();
  expect(await deletion.attempt(id)).toBe('overtaken');
  expect((await rows()).results).toHaveLength(1);
  expect(delivered).toEqual([]);
  expect(await deletion.attempt(id)).toBe('deleted');
  expect((await rows()).results).toEqual([]);
  expect(delivered.sort()).toEqual([`${id}.first`, `${id}.second`]);
  // Who asks again finds it done.
  expect(await deletion.attempt(id)).toBe('missing');
});

test('a change to a user who is gone leaves no message behind', async () => {
  const scene = cacheScene();
  const messages = async () => env.DB.prepare('select coalesce(max(seq), 0) as newest from outbox').first('newest');
  const before = await messages();
  for (const change of [{ name: 'Nora' }, { role: 'admin' }, { status: 'active' }, { status: 'disabled' }] as const) {
    await expect(scene.run(async () => UserService.updateUser('gone', change))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  }
  expect(await messages()).toBe(before);
});

test('the row of a session goes an hour after its absolute end, whenever it has ended', async () => {
  const userId = await newUser();
  const nowMs = Date.now();
  const insert = env.DB.prepare(
    `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, epoch, expires_at_ms, ended_at_ms)
     values (?, ?, '', '', 1, 1, 1, ?, ?)`,
  );
  const hourMs = 3_600_000;
  await env.DB.batch([
    insert.bind('over', userId, nowMs - hourMs - 1, null),
    insert.bind('ended-and-over', userId, nowMs - hourMs - 1, 2),
    insert.bind('just-over', userId, nowMs - hourMs, null),
    insert.bind('ended-long-ago', userId, nowMs + 1, 2),
  ]);
  const scene = { isolate: isolateFor(), now: () => nowMs };
  await inRequest(({ services }) => services.session.purge(), scene);
  const { results } = await env.DB.prepare('select id from sessions where user_id = ? order by id').bind(userId).all();
  expect(results).toEqual([{ id: 'ended-long-ago' }, { id: 'just-over' }]);
});

test('never verified accounts are deleted twenty a run, the oldest first, but for one that is verified at that moment', async () => {
  // Older than any other account of these tests.
  const ids = await Promise.all(Array.from({ length: 21 }, () => newUser()));
  for (const [index, id] of ids.entries())
    await env.DB.prepare('update users set created_at_ms = ? where id = ?')
      .bind(index - 1_000, id)
      .run();
  const verify = () => env.DB.prepare('update users set email_verified_at_ms = 1 where id = ?').bind(ids[3]).run();
  let verified: Promise<unknown> | undefined;
  // Once they have been looked for, and before the first of them is deleted.
  const db = tappedD1(async (query, kind) => {
    if (kind === 'batch') await (verified ??= verify());
    return query();
  });
  const isolate = isolateFor(bindings({ UNVERIFIED_TTL_SECONDS: '604800', MAILER: 'console' }));
  expect(await inRequest(({ services }) => services.user.purgeUnverified(), { isolate, db })).toBe(19);
  const { results } = await env.DB.prepare('select id from users where created_at_ms < 0 order by created_at_ms').all();
  expect(results).toEqual([{ id: ids[3] }, { id: ids[20] }]);
  await env.DB.prepare('delete from users where created_at_ms < 0').run();
});
