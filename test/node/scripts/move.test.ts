import { randomUUID } from 'node:crypto';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { Client } from 'pg';

import { startGateway } from '../../../src/gateway/gateway.ts';
import { UNLIMITED, startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { testBindings } from '../../support/bindings.ts';
import { bundleWorker } from '../../support/buildWorker.ts';
import { clientOf, newcomer } from '../../support/client.ts';
import { expectTokens, login } from '../../support/flow.ts';
import { POSTGRES_MISSING, execute, hasPostgres, startPostgres } from '../../support/postgres.ts';
import type { PostgresProcess } from '../../support/postgres.ts';
import { ROOT, runScript, startScript } from './project.ts';

const TOKEN = 'move-token';
/** Keys are the same before and after. */
const { SIGNING_KEYS = '', REFRESH_KEYS = '' } = testBindings({ url: '', token: '' });
const SETTINGS = { ...UNLIMITED, KEY_PREFIX: 'app', SIGNING_KEYS, REFRESH_KEYS };
const BIG = 2 ** 52 + 1;
const ACCOUNTS = 300;

describe.skipIf(!hasPostgres)(`npm run move${hasPostgres ? '' : `: ${POSTGRES_MISSING}`}`, () => {
  let postgres: PostgresProcess;
  let bundle: Awaited<ReturnType<typeof bundleWorker>>;
  let gateway: Awaited<ReturnType<typeof startGateway>>;
  let app: RunningApp;
  let url: string;
  let file: string;
  /** Addresses of the first isolate, which refuses changes, and of the second one, which accepts them. */
  let closed: string;
  let open: string;

  beforeAll(async () => {
    [postgres, bundle, gateway] = await Promise.all([
      startPostgres(),
      bundleWorker('postgres'),
      startGateway({ token: TOKEN, port: 0 }),
    ]);
    url = await postgres.database();
    app = await startApp({
      bundle: inject('workerBundle'),
      redis: { url: gateway.url, token: TOKEN },
      settings: SETTINGS,
      isolates: 2,
      settingsOf: [{ READ_ONLY: 'true' }],
    });
    file = await app.file();
    [closed, open] = app.urls as [string, string];
  });
  afterAll(async () => {
    await app[Symbol.asyncDispose]();
    await gateway[Symbol.asyncDispose]();
    await postgres.stop();
    await bundle.remove();
  });

  const run = (args: readonly string[]) =>
    runScript(ROOT, 'move', ['--file', file, ...args], { env: { DATABASE_URL: url } });

  it('moves a deployment, is killed in the middle and goes on, and its users stay signed in', async () => {
    const call = clientOf(open);
    const person = newcomer();
    const registered = await call('POST', '/v1/auth/register', { body: person });
    const first = expectTokens(registered, 201);
    const second = expectTokens(await login(call, person, 'Tablet'), 200);
    await crowd(app);
    // A number that was given and deleted is not given again.
    await app.sql(`insert into audit (seq, at_ms, by, action) values (7000, ${BIG}, 'x', 'renamed')`);
    await app.sql(`insert into audit (at_ms, by, action) values (1, 'x', 'renamed')`);
    await app.sql('delete from audit where seq = 7001');
    await app.sql(`insert into revoked_tokens (id, user_id, expires_at_ms) values ('expired', 'u-1', 1)`);
    await app.sql(
      `insert into outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
       values ('waiting', '{"kind":"none"}', 'pending', 0, 1, ?)`,
      Date.now() + 600_000,
    );

    expect(await run(['--url', open])).toMatchObject({ code: 1, stderr: expect.stringContaining('accepts changes') });
    const undrained = await run(['--url', closed]);
    expect(undrained).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^1 messages of the outbox were not delivered/),
    });
    // The cron trigger of a Worker that refuses changes delivers, and deletes nothing.
    await app.scheduled();
    expect(await app.sql(`select (select state from outbox where id = 'waiting') as state`)).toEqual([
      { state: 'delivered' },
    ]);
    expect(await app.sql(`select id from revoked_tokens where id = 'expired'`)).toHaveLength(1);

    // Another transaction holds a key of a later lot: the run waits there, and is killed.
    const holder = new Client({ connectionString: url });
    await holder.connect();
    await holder.query('begin');
    await holder.query(
      `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       values ('s-150', '', '', '', 1, 1, 1, 1)`,
    );
    const killed = startScript(ROOT, 'move', ['--file', file, '--url', closed, '--lot', '40'], {
      env: { DATABASE_URL: url },
    });
    const waiting = `select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into "sessions"%'`;
    await expect.poll(() => execute(url, waiting), { timeout: 60_000 }).toHaveLength(1);
    const meanwhile = await run(['--url', closed]);
    expect(meanwhile).toMatchObject({ code: 1, stderr: expect.stringContaining('Another run') });
    killed.child.kill('SIGKILL');
    await killed.ended;
    await holder.query('rollback');
    await holder.end();
    const others = 'select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()';
    await expect.poll(() => execute(url, others), { timeout: 60_000 }).toHaveLength(0);
    const [partly] = await execute(url, 'select count(*)::int as n from sessions');
    const loaded = Number(partly!['n']);
    expect(loaded).toBeGreaterThan(0);
    expect(loaded).toBeLessThan(ACCOUNTS);
    expect(loaded % 40).toBe(0);

    const resumed = await run(['--url', closed, '--lot', '40']);
    expect(resumed.stderr).not.toMatch(/Copying|^audit:/m);
    expect(resumed.stderr).toContain(`sessions: ${ACCOUNTS + 2} rows`);
    expect(resumed).toMatchObject({ code: 0, stdout: expect.stringContaining('Counts and digests agree') });
    const again = await run(['--url', closed]);
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining('Everything was moved before') });
    for (const { stdout, stderr } of [undrained, meanwhile, killed.output, resumed, again]) {
      expect(stdout + stderr).not.toMatch(/postgres:postgres|127\.0\.0\.1:\d+\/app|@example\.com|scrypt/);
    }

    // Exactly the same rows, whatever is in them.
    const odd = 'select id, name, search, email_verified_at_ms, epoch from users where id like ? order by id limit 3';
    const known = await app.sql(odd, 'u-%');
    const types = 'select id, name, search, email_verified_at_ms::float8, epoch::float8';
    expect(await execute(url, `${types} from users where id like 'u-%' order by id limit 3`)).toEqual(known);
    expect(await execute(url, `select seq::int, at_ms::text from audit`)).toEqual([{ seq: 7000, at_ms: String(BIG) }]);
    expect(await execute(url, `select nextval(pg_get_serial_sequence('audit', 'seq'))::int as n`)).toEqual([
      { n: 7002 },
    ]);
    const [{ seq: lastOutbox }] = (await app.sql(`select seq from sqlite_sequence where name = 'outbox'`)) as [
      { seq: number },
    ];

    await using moved = await startApp({
      bundle: bundle.path,
      redis: { url: gateway.url, token: TOKEN },
      settings: SETTINGS,
      postgres: url,
    });
    const served = clientOf(moved.url);
    const me = await served('GET', '/v1/users/me', { token: first.access });
    expect([me.status, me.body.email]).toEqual([200, person.email]);
    const refreshed = await served('POST', '/v1/auth/refresh', { body: { refresh_token: second.refresh } });
    const tokens = expectTokens(refreshed, 200);
    const sessions = await served('GET', '/v1/sessions', { token: tokens.access });
    expect(sessions.body.total).toBe(2);
    expect((await served('POST', '/v1/auth/logout', { token: tokens.access })).status).toBe(204);
    const newest = await execute(url, 'select max(seq)::int as seq from outbox');
    expect(newest[0]!['seq']).toBeGreaterThan(lastOutbox);
    expect((await served('GET', '/ready')).body.status).toBe('ready');
  });

  it('leaves no copy behind when it was killed between the copy and its record', async () => {
    const fresh = await postgres.database();
    // The record of the copy waits for a lock that the test holds.
    await execute(
      fresh,
      `create function held() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(7); return new; end $$`,
    );
    await execute(
      fresh,
      `create function hold() returns event_trigger language plpgsql as $$ begin
         if exists (select 1 from pg_event_trigger_ddl_commands() where object_identity = 'gatehouse_move.run') then
           create trigger held before update on gatehouse_move.run for each row execute function public.held();
         end if; end $$`,
    );
    await execute(
      fresh,
      `create event trigger hold on ddl_command_end when tag in ('CREATE TABLE') execute function hold()`,
    );
    const holder = new Client({ connectionString: fresh });
    await holder.connect();
    await holder.query('select pg_advisory_lock(7)');
    const env = { DATABASE_URL: fresh };
    const killed = startScript(ROOT, 'move', ['--file', file], { env });
    const waiting = `select pid from pg_stat_activity where wait_event = 'advisory' and query like 'update gatehouse_move.run%'`;
    await expect.poll(() => execute(fresh, waiting), { timeout: 60_000 }).toHaveLength(1);
    killed.child.kill('SIGKILL');
    await killed.ended;
    // The server would write the record of a client that is gone, once it has the lock.
    await execute(fresh, `select pg_terminate_backend(pid) from (${waiting}) as those`);
    await expect.poll(() => execute(fresh, waiting), { timeout: 60_000 }).toEqual([]);
    await holder.end();
    const [run] = await execute(fresh, 'select copy, copied from gatehouse_move.run');
    const copies = () =>
      readdirSync(join(ROOT, '.wrangler/move')).filter((name) => name.startsWith(String(run!['copy'])));
    expect([run!['copied'], copies()]).toEqual([false, [`${String(run!['copy'])}.sqlite`]]);
    expect(statSync(join(ROOT, '.wrangler/move')).mode & 0o077).toBe(0);
    // As a kill during the copy leaves it.
    for (const name of ['part', 'part.sql', 'part-journal']) {
      writeFileSync(join(ROOT, '.wrangler/move', `${String(run!['copy'])}.sqlite.${name}`), 'a hash');
    }

    const others = 'select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()';
    await expect.poll(() => execute(fresh, others), { timeout: 60_000 }).toHaveLength(0);
    const again = await runScript(ROOT, 'move', ['--file', file], { env });
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining('Counts and digests agree') });
    expect(again.stderr).toContain('Copying');
    expect(await execute(fresh, 'select copy from gatehouse_move.run')).toEqual([{ copy: run!['copy'] }]);
    expect(copies()).toEqual([]);

    // Killed before it deleted the copy of a move that is finished.
    writeFileSync(join(ROOT, '.wrangler/move', `${String(run!['copy'])}.sqlite`), 'a hash');
    expect((await runScript(ROOT, 'move', ['--file', file], { env })).stdout).toContain('Everything was moved before');
    expect(copies()).toEqual([]);
  });

  it('refuses a database that is in use, one without migrations, and values that PostgreSQL cannot store', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gatehouse-move-'));
    try {
      const own = join(folder, 'd1.sqlite');
      copyOf(file, own);
      const move = async (target: string, ...args: string[]) =>
        runScript(ROOT, 'move', ['--file', own, ...args], { env: { DATABASE_URL: target } });
      const used = await postgres.database();
      await execute(used, `insert into audit (at_ms, by, action) values (1, 'x', 'renamed')`);
      expect(await move(used)).toMatchObject({ code: 1, stderr: expect.stringContaining('has rows in audit already') });
      const empty = await postgres.database();
      await execute(empty, 'drop schema drizzle cascade');
      expect(await move(empty)).toMatchObject({ code: 1, stderr: expect.stringContaining('npm run db:migrate') });
      const away = await move('postgres://nobody:geheim@127.0.0.1:1/none');
      expect(away).toMatchObject({ code: 1, stderr: expect.stringContaining('cannot be reached (ECONNREFUSED)') });
      expect(away.stderr).not.toMatch(/geheim|127\.0\.0\.1/);

      const fresh = await postgres.database();
      const edit = (sql: string) => {
        using database = new DatabaseSync(own);
        database.exec(sql);
      };
      edit(`update sessions set device = 'a' || char(0) || 'b' where id = 's-7'`);
      const refused = await move(fresh, '--lot', '50');
      expect(refused).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/sessions\.device, rowid \d+, holds a NUL/),
      });
      expect(refused.stderr.trim().split('\n').at(-1)).not.toContain('    at ');
      edit(`update sessions set device = 'a' where id = 's-7'; update users set epoch = x'00' where id = 'u-7'`);
      const blob = await move(fresh, '--restart');
      expect(blob.stderr).toMatch(/users\.epoch, rowid \d+, holds a blob, and PostgreSQL’s column is int8/);
      edit(`update users set epoch = 3 where id = 'u-7'`);
      // The copy of the former run has the blob still.
      expect((await move(fresh)).code).toBe(1);
      expect(await move(fresh, '--restart')).toMatchObject({
        code: 0,
        stdout: expect.stringContaining('digests agree'),
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

/** Accounts with a session each, written past the app. */
async function crowd(app: RunningApp): Promise<void> {
  const rows = JSON.stringify(Array.from({ length: ACCOUNTS }, (_, index) => ({ n: index, uuid: randomUUID() })));
  await app.sql(
    `insert into users (id, email, name, search, password_hash, epoch, created_at_ms, updated_at_ms, email_verified_at_ms)
     select 'u-' || (value ->> 'n'), (value ->> 'uuid') || '@example.com', 'Zoë "' || char(10) || '\\n' || (value ->> 'n'),
       case (value ->> 'n') % 2 when 0 then null else 'zoe' end, 'x', ${BIG}, 1, 1, case (value ->> 'n') % 3 when 0 then null else ${BIG} end
     from json_each(?)`,
    rows,
  );
  await app.sql(
    `insert into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch, data)
     select 's-' || (value ->> 'n'), 'u-' || (value ->> 'n'), 'Phone', '203.0.113.7', 1, 1, ${BIG}, ${BIG}, '{"a": [1, null]}'
     from json_each(?)`,
    rows,
  );
}

function copyOf(file: string, copy: string): void {
  using database = new DatabaseSync(file, { readOnly: true });
  database.prepare('vacuum into ?').run(copy);
}
