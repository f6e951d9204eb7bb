import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getTableColumns, getTableName, gte, is } from 'drizzle-orm';
import { PgTable } from 'drizzle-orm/pg-core';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { DatabaseUnavailable, createDatabase } from '../../../src/db/client';
import type { Binding } from '../../../src/db/client';
import * as schema from '../../../src/db/schema';
import { accountChangeSql, endEveryoneSql, POSTGRES_DIALECT } from '../../../src/scripts/adminSql.ts';
import { UserError } from '../../../src/scripts/cli.ts';
import { migratePostgres, transact, withPostgres } from '../../../src/scripts/postgres.ts';
import {
  LOT,
  PURGE_ROWS,
  deliveredLot,
  markDelivered,
  pendingLot,
  purgeStatement,
} from '../../../src/services/outbox/rows';
import { startGateway } from '../../../src/gateway/gateway.ts';
import { chunks } from '../../../src/util/chunks';
import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { bundleWorker } from '../../support/buildWorker.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import { operations } from '../../support/contract/contract.ts';
import type { Documented } from '../../support/contract/contract.ts';
import { MOST_SESSIONS, contention } from '../../support/database/contention.ts';
import { databaseContract } from '../../support/database/contract.ts';
import { listsContract } from '../../support/database/lists.ts';
import { expectTokens, login, wholeFlow } from '../../support/flow.ts';
import { startLink } from '../../support/link.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { POSTGRES_MISSING, execute, hasPostgres, startPostgres } from '../../support/postgres.ts';
import type { PostgresProcess } from '../../support/postgres.ts';
import { freePort } from '../../support/redisServers.ts';
import { VALID } from '../contract/requests.ts';
import { senderTo } from '../contract/world.ts';
import type { World } from '../contract/world.ts';
import type { Account, SignedIn } from '../faults/scene.ts';
import { copyProject, ROOT, runScript, startScript } from '../scripts/project.ts';

const { outbox, users } = schema;
const TOKEN = 'postgres-token';
const METRICS_TOKEN = 'a-token-of-a-scraper';

/** Entries that scans of tables and indexes have returned, once all connections have ended and PostgreSQL's statistics have theirs. */
async function entriesRead(url: string): Promise<number> {
  const others = `select 1 from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`;
  await expect.poll(() => execute(url, others), { timeout: 30_000 }).toEqual([]);
  const [row] = await execute(
    url,
    `select (select sum(seq_tup_read) from pg_stat_user_tables) + (select sum(idx_tup_read) from pg_stat_user_indexes) as entries`,
  );
  return Number(row!['entries']);
}

/** This file's types are those of D1, its engine is the other one. */
const databaseAt = (connectionString: string) =>
  createDatabase({ connectionString } as unknown as Binding, { deadlineMs: 20_000 });

describe.skipIf(!hasPostgres)(`the Worker on PostgreSQL${hasPostgres ? '' : `: ${POSTGRES_MISSING}`}`, () => {
  /** Whatever has been started, also when something after it could not be. */
  const stack = new AsyncDisposableStack();
  let postgres: PostgresProcess;
  let gateway: Awaited<ReturnType<typeof startGateway>>;
  let mailbox: Mailbox;
  let app: RunningApp;
  let url: string;

  beforeAll(async () => {
    const bundling = bundleWorker('postgres');
    stack.defer(async () => (await bundling).remove());
    postgres = await startPostgres();
    stack.defer(() => postgres.stop());
    url = await postgres.database();
    gateway = stack.use(await startGateway({ token: TOKEN, port: 0 }));
    mailbox = stack.use(await startMailbox());
    const bundle = await bundling;
    app = await startApp({
      bundle: bundle.path,
      redis: { url: gateway.url, token: TOKEN },
      settings: {
        ...UNLIMITED,
        KEY_PREFIX: 'app',
        METRICS_TOKEN,
        METRICS_INTERVAL_MS: '10000',
        SESSIONS_PER_USER: String(MOST_SESSIONS),
      },
      isolates: 2,
      email: mailbox,
      postgres: url,
    });
    stack.use(app);
  });
  afterAll(() => stack.disposeAsync());

  describe('as a database', () => {
    let own: string;
    const opened: ReturnType<typeof createDatabase>[] = [];
    /** As a request has it. */
    const open = () => {
      const database = databaseAt(own);
      opened.push(database);
      return database;
    };
    beforeAll(async () => {
      own = await postgres.database();
    });
    afterAll(() => {
      for (const database of opened) database.close();
    });

    databaseContract(open);
    listsContract(open);

    test('a batch that must see all numbers waits for those that were given and are not committed', async () => {
      const writer = new Client({ connectionString: own });
      await writer.connect();
      await writer.query('begin');
      const { rows } = await writer.query<{ seq: string }>(
        `insert into outbox (id, message, due_at_ms, created_at_ms, expires_at_ms) values ('open', '{}', 0, 1, 2) returning seq`,
      );
      const given = Number(rows[0]!.seq);
      const later = { id: 'later', message: '{}', dueAtMs: 0, createdAtMs: 1, expiresAtMs: 2 };
      const database = open();
      await database.batch((db) => [db.insert(outbox).values(later)]);
      let isSeen = false;
      const seen = database
        .batch((db) => [db.select({ seq: outbox.seq }).from(outbox).where(gte(outbox.seq, given))], { settled: outbox })
        .then(([found]) => {
          isSeen = true;
          return found.map(({ seq }) => seq);
        });
      // Until the lock is asked for.
      const waiting = `select 1 from pg_locks where not granted and relation = 'outbox'::regclass`;
      await expect.poll(() => execute(own, waiting)).toHaveLength(1);
      expect(isSeen).toBe(false);
      await writer.query('commit');
      await writer.end();
      expect(await seen).toEqual([given, given + 1]);
    });

    test('a backlog is delivered, sent again and deleted without reading all of it for each lot', async () => {
      const LOTS = 10;
      const messages = LOTS * LOT;
      const backlog = await postgres.database();
      // At once, so that the server has no statistics of it; rows are as long as real ones.
      await execute(
        backlog,
        `insert into outbox (id, message, due_at_ms, created_at_ms, expires_at_ms)
         select gen_random_uuid()::text, repeat('m', 120), 0, 1, 2 from generate_series(1, ${messages})`,
      );
      const readBy = async (work: (database: ReturnType<typeof createDatabase>) => Promise<void>) => {
        const before = await entriesRead(backlog);
        const database = databaseAt(backlog);
        await work(database);
        database.close();
        return (await entriesRead(backlog)) - before;
      };
      const delivery = await readBy(async (database) => {
        for (let lot = 0; lot < LOTS; lot += 1) {
          const rows = await pendingLot(database, 5);
          expect(rows.map(({ seq }) => seq)).toEqual(Array.from({ length: LOT }, (_, index) => lot * LOT + index + 1));
          await database.batch((db) => [
            markDelivered(
              db,
              rows.map(({ seq }) => seq),
            ),
          ]);
        }
      });
      const replay = await readBy(async (database) => {
        for (let before = messages + 1; before > 1; before -= LOT) {
          expect((await deliveredLot(database, 1, before)).at(-1)).toMatchObject({ seq: before - LOT });
        }
      });
      const purge = await readBy(async (database) => {
        for (let fromSeq = 1; fromSeq < messages; fromSeq += PURGE_ROWS) {
          const range = { createdBeforeMs: 2, fromSeq, beforeSeq: messages + 1 };
          await database.batch((db) => [purgeStatement(db, range)], { alongIndex: true });
        }
      });
      expect(await execute(backlog, 'select count(*)::int as n from outbox')).toEqual([{ n: 0 }]);
      // Each lot that reads all that is left reads ten times as many.
      for (const entries of [delivery, replay, purge]) {
        expect(entries).toBeGreaterThanOrEqual(messages);
        expect(entries).toBeLessThan(5 * messages);
      }
    });

    test('the migrations make the tables of the schema, whose texts compare byte by byte', async () => {
      const rows = await execute(
        own,
        `select table_name as "table", column_name as "name", data_type as "type", is_nullable = 'YES' as "isNullable",
           collation_name as "collation" from information_schema.columns where table_schema = 'public'`,
      );
      const tables = Object.values(schema).filter((value) => is(value, PgTable));
      expect(tables.length).toBeGreaterThan(10);
      for (const made of tables) {
        const table = getTableName(made);
        // A view, whose columns may all be null.
        const isView = table === 'counters';
        const expected = Object.values(getTableColumns(made)).map((column) => ({
          table,
          name: column.name,
          type: column.dataType === 'string' ? 'text' : 'bigint',
          isNullable: isView || !column.notNull,
          collation: column.dataType === 'string' && !isView ? 'C' : null,
        }));
        const found = rows.filter((row) => row['table'] === table);
        expect(found).toHaveLength(expected.length);
        expect(found).toEqual(expect.arrayContaining(expected));
      }
    });

    test('a cache of queries on the way to it is found', async () => {
      const cached = await postgres.database();
      await execute(cached, 'drop view "clock"');
      await execute(cached, 'create table "clock" as select 1::bigint as "now"');
      const database = databaseAt(cached);
      expect(await database.check()).toContain('--caching-disabled');
    });

    test('its spans name PostgreSQL', async () => {
      const spans: unknown[] = [];
      const database = createDatabase({ connectionString: own } as unknown as Binding, {
        deadlineMs: 20_000,
        inSpan: (name, attributes, work) => {
          spans.push({ name, ...attributes });
          return work();
        },
      });
      opened.push(database);
      await database.run((db) => db.select({ id: users.id }).from(users));
      expect(spans).toEqual([{ name: 'database query', 'db.system.name': 'postgresql', 'db.operation.name': 'query' }]);
    });

    describe('after a query that failed, the next one of the same request uses another connection', () => {
      async function behindLink(deadlineMs: number) {
        const address = new URL(own);
        const port = Number(address.port);
        const link = await startLink(port);
        address.port = String(link.port);
        const database = createDatabase({ connectionString: address.href } as unknown as Binding, { deadlineMs });
        opened.push(database);
        const read = async () => {
          try {
            await database.run((db) => db.select({ id: users.id }).from(users));
            return 'served';
          } catch (error) {
            return error instanceof DatabaseUnavailable ? 'unavailable' : error;
          }
        };
        return { link, port, read };
      }

      test('because its connection was cut', async () => {
        const { link, port, read } = await behindLink(20_000);
        await using _ = link;
        expect(await read()).toBe('served');
        link.to(port);
        await expect.poll(read).toBe('served');
      });

      test('because the server could not be reached', async () => {
        const { link, port, read } = await behindLink(20_000);
        await using _ = link;
        link.to(await freePort());
        expect(await read()).toBe('unavailable');
        link.to(port);
        await expect.poll(read).toBe('served');
      });

      test('because there was no response in time', async () => {
        const { link, read } = await behindLink(1_000);
        await using _ = link;
        await expect.poll(read).toBe('served');
        link.hold();
        expect(await read()).toBe('unavailable');
        await expect.poll(read).toBe('served');
      });
    });

    test('a batch without statements sends the server nothing', async () => {
      const nowhere = databaseAt(`postgres://postgres:postgres@127.0.0.1:${await freePort()}/app`);
      expect(await nowhere.batch(() => [])).toEqual([]);
    });

    test('a server that is not there is an outage', async () => {
      const nowhere = `postgres://postgres:postgres@127.0.0.1:${await freePort()}/app`;
      const database = databaseAt(nowhere);
      for (const work of [
        database.run((db) => db.select({ id: users.id }).from(users)),
        database.batch((db) => [db.select().from(users)]),
      ]) {
        await expect(work).rejects.toBeInstanceOf(DatabaseUnavailable);
      }
    });
  });

  describe('behind the Worker', () => {
    test("serves a client's whole life", async () => {
      await wholeFlow(app, () => app.scheduled());
      expect(app.logs.join('\n')).not.toMatch(/@example\.com|horse battery|grt1\.|eyJ/);
    });

    test('serves every operation of the contract, with an Idempotency-Key', async () => {
      const call = clientOf(app.url);
      const newUser = async (): Promise<Account & SignedIn> => {
        const person = newcomer();
        const answer = await call('POST', '/v1/auth/register', { body: person });
        const { access, refresh } = expectTokens(answer, 201);
        const { id } = answer.body.user as { id: string };
        const { items } = (await call('GET', '/v1/sessions', { token: access })).body as { items: { id: string }[] };
        return { ...person, id, userId: id, access, refresh, sessionId: items[0]!.id };
      };
      const admin = await newUser();
      await app.sql(`update users set role = 'admin' where id = '${admin.id}'`);
      Object.assign(admin, expectTokens(await login(call, admin), 200));
      // As much of a world as the requests need.
      const engine = (...command: string[]) =>
        fetch(gateway.url, {
          method: 'POST',
          headers: { Authorization: `Bearer ${TOKEN}` },
          body: JSON.stringify(command),
        });
      const world = { scene: { call, app, redis: { engine } }, mailbox, admin, newUser } as unknown as World;
      const { send, faults } = senderTo(app.url);
      const refused: string[] = [];
      const isAdmins = ({ operation }: Documented) =>
        operation.responses['403']?.content?.['application/problem+json']?.examples?.['FORBIDDEN'] !== undefined;
      const serve = async (target: Documented) => {
        const caller = isAdmins(target) ? admin : await newUser();
        const request = (await VALID[target.name]?.(world, caller)) ?? { token: caller.access };
        const attempt = () => send(target, { ...request, headers: { 'Idempotency-Key': `"${randomUUID()}"` } });
        let response = await attempt();
        // Another operation on the same job runs at the same time.
        for (; response.status === 409 && response.headers.has('Retry-After'); response = await attempt())
          await sleep(1_000 * Number(response.headers.get('Retry-After')));
        const { status, body } = response;
        if (status >= 400) refused.push(`${target.name}: ${status} ${JSON.stringify(body)}`);
      };
      // A warming run holds a lock, so its operations would refuse each other.
      const isWarming = ({ name }: Documented) => name.includes('/warming/');
      // Mostly they wait for mails.
      for (const some of chunks(
        operations.filter((one) => !isWarming(one)),
        8,
      ))
        await Promise.all(some.map(serve));
      for (const one of operations.filter(isWarming)) await serve(one);
      expect(refused).toEqual([]);
      expect(faults).toEqual([]);
    });

    test('a search lists each account once, whatever the pages, and finds one whose search text is filled later', async () => {
      const ACCOUNTS = 250;
      const call = clientOf(app.url);
      const person = newcomer();
      expect((await call('POST', '/v1/auth/register', { body: person })).status).toBe(201);
      await app.sql(`update users set role = 'admin' where email = '${person.email}'`);
      const { access } = expectTokens(await login(call, person), 200);
      await app.sql(
        `insert into users (id, email, name, search, password_hash, created_at_ms, updated_at_ms)
         select 'p-' || i, 'p-' || i || '@example.net', 'Seite ' || i, case when i <> 7 then 'seite ' || i || chr(10) || 'p-' || i end,
           '', i / 7, 1 from generate_series(1, ${ACCOUNTS}) as i`,
      );
      await app.scheduled();
      const inOrder = await execute(url, `select id from users where name like 'Seite %' order by created_at_ms, id`);
      for (const limit of [20, 100]) {
        const listed: string[] = [];
        for (let page = 1; page <= Math.ceil(ACCOUNTS / limit) + 1; page += 1) {
          const { body } = await call('GET', `/v1/users?q=SEITE&page=${page}&limit=${limit}`, { token: access });
          expect(body).toMatchObject({ page, limit, total: ACCOUNTS });
          listed.push(...(body.items as { id: string }[]).map(({ id }) => id));
        }
        expect(listed).toEqual(inOrder.map(({ id }) => id));
      }
    });

    test('is ready, and says so', async () => {
      const { status, body } = await clientOf(app.url)('GET', '/ready');
      expect(status).toBe(200);
      expect(body).toMatchObject({ status: 'ready', dependencies: { database: { status: 'up' } } });
    });

    test('its metrics name PostgreSQL', async () => {
      const metrics = await fetch(`${app.url}/metrics`, { headers: { Authorization: `Bearer ${METRICS_TOKEN}` } });
      const systems = Array.from((await metrics.text()).matchAll(/db_system_name="(\w+)"/g), ([, name]) => name);
      expect(new Set(systems)).toEqual(new Set(['redis', 'postgresql']));
    });

    contention(() => ({ app, mailbox }));

    test('no connection outlives its request', async () => {
      const open = `select count(*)::int as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`;
      await expect.poll(async () => (await execute(url, open))[0]!['n']).toBe(0);
    });
  });

  describe('on the command line', () => {
    const PASSWORD = 's3cret-of-ada';
    /** An address with a password: the server trusts every client, and the output must not have it all the same. */
    const addressOf = async (name: string) => {
      await execute(url, `create database ${name}`);
      const address = new URL(url);
      address.password = PASSWORD;
      address.pathname = `/${name}`;
      return address;
    };

    test('npm run dev migrates an empty database, serves from it, and npm run admin makes the first administrator', async () => {
      using project = copyProject();
      const address = await addressOf('dev');
      const [port, gatewayPort] = [await freePort(), await freePort()];
      const env = { DATABASE_URL: address.href, PORT: String(port), GATEWAY_PORT: String(gatewayPort) };
      const { child, output, ended } = startScript(project.root, 'dev', [], { env });
      const outcomes: { stdout: string; stderr: string }[] = [];
      try {
        const isUp = () => output.stdout.includes('Ctrl-C stops all of it') || child.exitCode !== null;
        await expect.poll(isUp, { timeout: 240_000 }).toBe(true);
        expect(output.stdout + output.stderr).toContain(`Database  PostgreSQL, at ${address.host}/dev\n`);
        expect(output.stdout).toContain('it needs the same DATABASE_URL');

        const call = clientOf(`http://127.0.0.1:${port}`);
        const person = newcomer();
        expect((await call('POST', '/v1/auth/register', { body: person })).status).toBe(201);
        expect(await execute(address.href, 'select email, role from users')).toEqual([
          { email: person.email, role: 'user' },
        ]);

        const admin = async (...args: string[]) => {
          const outcome = await runScript(project.root, 'admin', args, { env });
          outcomes.push(outcome);
          return outcome;
        };
        expect(await admin('grant', person.email)).toMatchObject({
          code: 0,
          stderr: '',
          stdout: expect.stringContaining(`${person.email} is an admin now (PostgreSQL database).`) as string,
        });
        expect((await admin('list')).stdout).toBe(`${person.email}\t${person.name}\tactive\n`);
        const { access } = expectTokens(await login(call, person), 200);
        expect((await call('GET', '/v1/users', { token: access })).status).toBe(200);

        // The message for Redis, the history and the audit are those of D1.
        const messages = await execute(address.href, `select id, message from outbox order by seq desc limit 2`);
        const [{ id: userId, version } = {}] = await execute(
          address.href,
          'select id, access_version::int as version from users',
        );
        expect(version).toBeGreaterThan(1);
        expect(messages.map(({ message }) => JSON.parse(String(message)) as unknown)).toEqual([
          { kind: 'invalidate', users: [userId], namespaces: ['users'] },
          { kind: 'epoch', userId, epoch: 1, accessVersion: version, accessVersionRaised: 1 },
        ]);
        for (const { id } of messages) expect(id).toMatch(/^[\da-f]{8}-([\da-f]{4}-){3}[\da-f]{12}$/);

        // Past the command, which is started anew each time.
        const change = { email: person.email, nowMs: Date.now() };
        const begun = { startedMs: change.nowMs, nowMs: change.nowMs };
        const [all, again, disabled, signedOut, enabled, revoked, noMore] = await withPostgres(
          address.href,
          async (client) => {
            const found: unknown[] = [];
            for (const sql of [
              endEveryoneSql(begun, POSTGRES_DIALECT),
              endEveryoneSql(begun, POSTGRES_DIALECT),
              ...(['disable', 'end-sessions', 'enable', 'revoke', 'revoke'] as const).map((name, index) =>
                accountChangeSql(name, { ...change, nowMs: change.nowMs + index }, POSTGRES_DIALECT),
              ),
            ])
              found.push((await transact(client, sql)).map((rows) => rows[0]).filter((row) => row !== undefined));
            return found;
          },
        );
        const state = (role: string, status: string, admins: number) => ({ email: person.email, role, status, admins });
        const own = { id: userId };
        expect([all, again]).toEqual([[own], []]);
        expect(disabled).toEqual([own, state('admin', 'disabled', 0)]);
        expect(signedOut).toEqual([own, state('admin', 'disabled', 0)]);
        expect(enabled).toEqual([own, state('admin', 'active', 1)]);
        expect([revoked, noMore]).toEqual([[own, state('user', 'active', 0)], [state('user', 'active', 0)]]);
        const audit = await execute(address.href, `select by, action, user_id, detail from audit order by seq`);
        expect(
          audit.map(({ action, user_id, detail }) => [action, user_id, JSON.parse(String(detail)) as unknown]),
        ).toEqual([
          ['role-changed', userId, { role: 'admin' }],
          ['everyone-signed-out', null, { users: 1 }],
          ['disabled', userId, {}],
          ['sessions-ended', userId, {}],
          ['enabled', userId, {}],
          ['role-changed', userId, { role: 'user' }],
        ]);
        expect(audit.every(({ by }) => by === 'command-line')).toBe(true);
        const ends = await execute(
          address.href,
          `select ended_reason, address from sessions where ended_at_ms is null`,
        );
        expect(ends).toEqual([]);

        // Neither in a list of processes nor on the disk.
        const shown = readdirSync('/proc')
          .filter((name) => /^\d+$/.test(name))
          .map((pid) => commandOf(pid));
        expect(shown.filter((command) => command.includes(PASSWORD))).toEqual([]);
        expect(readFileSync(`${project.root}/.wrangler.dev.${port}.toml`, 'utf8')).not.toContain(PASSWORD);
      } finally {
        child.kill('SIGTERM');
        await ended;
      }
      outcomes.push(output);
      expect(outcomes.map(({ stdout, stderr }) => stdout + stderr).join('\n')).not.toContain(PASSWORD);
      expect(readdirSync(project.root).filter((name) => name.startsWith('.wrangler.dev'))).toEqual([]);
    });

    test('a merge that brings an older migration of the same number applies it, and keeps the tables of the own one', async () => {
      const address = await addressOf('merged');
      const folder = mkdtempSync(join(tmpdir(), 'gatehouse-migrations-'));
      try {
        cpSync(join(ROOT, 'src/db/postgres/migrations'), folder, { recursive: true });
        const theirs = readFileSync(join(folder, 'meta/_journal.json'), 'utf8');
        const journal = JSON.parse(theirs) as { entries: { idx: number; tag: string; when: number }[] };
        const last = journal.entries.at(-1)!;
        const named = (name: string, idx = last.idx + 1) => `${String(idx).padStart(4, '0')}_${name}`;
        /** As it stands after `npm run db:generate`, with the snapshots of that side alone. */
        const made = (name: string, afterMs: number, sql: string, idx?: number) => {
          writeFileSync(join(folder, `${named(name, idx)}.sql`), sql);
          const entry = { ...last, idx: idx ?? last.idx + 1, tag: named(name, idx), when: last.when + afterMs };
          writeFileSync(
            join(folder, 'meta/_journal.json'),
            JSON.stringify({ ...journal, entries: [...journal.entries, entry] }),
          );
        };
        made(
          'notes',
          2_000,
          'create table notes (id text primary key);--> statement-breakpoint\ncreate index on notes (id)',
        );
        await migratePostgres(address.href, folder);
        await execute(address.href, `insert into notes values ('kept')`);
        // Theirs was made earlier, and theirs is the journal.
        made('badges', 1_000, 'create table badges (id text primary key); alter table users add column badge text');
        for (let run = 0; run < 2; run += 1) await migratePostgres(address.href, folder);
        expect(
          await execute(address.href, 'select id, (select count(*)::int from badges) as badges from notes'),
        ).toEqual([{ id: 'kept', badges: 0 }]);
        // What was made again under the next number: refused until it is emptied.
        made('repeated', 3_000, 'create table notes (id text primary key)', last.idx + 2);
        await expect(migratePostgres(address.href, folder)).rejects.toThrow(
          /has what a migration makes: after a merge, empty the one that repeats yours \(docs\/routes\.md\)/,
        );
        made('repeated', 3_000, '-- notes has made it.\nselect 1', last.idx + 2);
        await migratePostgres(address.href, folder);
        // A fresh database gets all of it.
        const fresh = await addressOf('merged_fresh');
        await migratePostgres(fresh.href, folder);
        const applied = 'select hash from drizzle.__drizzle_migrations order by hash';
        expect(await execute(fresh.href, applied)).toEqual(await execute(address.href, applied));
      } finally {
        rmSync(folder, { recursive: true });
      }
    });

    test('a database that Drizzle has migrated is not migrated again, also after a comment of a migration was edited', async () => {
      const known = await postgres.database();
      const before = await execute(known, 'select hash, created_at from drizzle.__drizzle_migrations');
      await migratePostgres(known);
      await execute(known, `update drizzle.__drizzle_migrations set hash = 'of another text'`);
      await migratePostgres(known);
      expect(await execute(known, 'select hash from drizzle.__drizzle_migrations')).toHaveLength(before.length);
    });

    test('of several that migrate an empty database at once, one does', async () => {
      const address = await addressOf('at_once');
      await Promise.all(Array.from({ length: 4 }, () => migratePostgres(address.href)));
      const { entries } = JSON.parse(readFileSync(`${ROOT}/src/db/postgres/migrations/meta/_journal.json`, 'utf8')) as {
        entries: unknown[];
      };
      const applied = await execute(address.href, 'select hash from drizzle.__drizzle_migrations');
      expect(applied).toHaveLength(entries.length);
      // The lock ends with the connection.
      const locks = `select 1 from pg_locks where locktype = 'advisory'`;
      await expect.poll(() => execute(address.href, locks), { timeout: 30_000 }).toEqual([]);
    });

    test('a database that the app cannot use is refused in one line', async () => {
      const taken = await addressOf('taken');
      await execute(taken.href, 'create table users (id int)');
      const missing = new URL(taken);
      missing.pathname = '/missing';
      const stranger = new URL(taken);
      stranger.username = 'stranger';
      const bare = await addressOf('bare');
      for (const [address, problem] of [
        [taken, 'has tables that the migrations did not make: give the app a database of its own.'],
        [missing, 'has no such database: create it first (createdb).'],
        [stranger, 'refuses the user or the password.'],
      ] as const) {
        const error: unknown = await migratePostgres(address.href).catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(UserError);
        expect(String(error)).toContain(problem);
        expect(String(error)).not.toMatch(new RegExp(`\\n|${PASSWORD}`));
      }
      for (const [args, problem] of [
        [['list'], 'The PostgreSQL database has no tables yet: run `npm run db:migrate`.'],
        [['list', '--remote'], '--local, --remote, --env and --persist-to are about D1'],
      ] as const) {
        const { code, stdout, stderr } = await runScript(ROOT, 'admin', args, { env: { DATABASE_URL: bare.href } });
        expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
        expect(stderr).toContain(problem);
        expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      }
    });
  });
});

/** `''` for a process that has gone. */
function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}
