import { execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import { Client } from 'pg';

import { freePort } from './redisServers.ts';

const run = promisify(execFile);
const MIGRATIONS = fileURLToPath(new URL('../../src/db/postgres/migrations', import.meta.url));

/** Debian's newest server, or that of POSTGRES_BIN. */
const BIN = process.env['POSTGRES_BIN'] ?? newest('/usr/lib/postgresql');
/** The server refuses to run as root: Debian's package makes a user for it. */
const OWNER: { uid?: number; gid?: number } | undefined = process.getuid?.() === 0 ? ownerOf('postgres') : {};

/** Whether a PostgreSQL server can be started here. */
export const hasPostgres = BIN !== undefined && existsSync(join(BIN, 'initdb')) && OWNER !== undefined;
/** For titles of tests that are skipped. */
export const POSTGRES_MISSING = 'needs PostgreSQL (apt-get install postgresql, or POSTGRES_BIN)';

/** A server of a test's own, without anything on a disk that lasts. */
export interface PostgresProcess {
  /** A new database with the app's tables. @returns its address */
  database(): Promise<string>;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<PostgresProcess> {
  if (BIN === undefined || OWNER === undefined) throw new Error(POSTGRES_MISSING);
  const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'gatehouse-postgres-'));
  if (OWNER.uid !== undefined && OWNER.gid !== undefined) await chown(folder, OWNER.uid, OWNER.gid);
  const data = join(folder, 'data');
  // Texts of a language: the app's own columns must compare byte by byte all the same.
  const locale = ['--encoding', 'UTF8', '--locale', 'C.UTF-8', '--locale-provider', 'icu', '--icu-locale', 'en'];
  await run(join(BIN, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', ...locale], {
    ...OWNER,
    cwd: folder,
  });
  const port = await freePort();
  const settings = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: folder,
    fsync: 'off',
    synchronous_commit: 'off',
    full_page_writes: 'off',
    shared_buffers: '32MB',
    max_connections: 200,
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const server = spawn(join(BIN, 'postgres'), ['-D', data, ...args], { ...OWNER, cwd: folder, stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  // A program that is interrupted leaves neither a server nor its folder behind.
  const abandon = () => {
    server.kill('SIGQUIT');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', abandon);
  const urlOf = (database: string) => `postgres://postgres:postgres@127.0.0.1:${port}/${database}`;

  const stop = async () => {
    process.off('exit', abandon);
    // Fast shutdown: clients that are still there are sent away.
    server.kill('SIGINT');
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await untilReady(urlOf('postgres'));
    await execute(urlOf('postgres'), 'create database template_app');
    await migrated(urlOf('template_app'));
  } catch (error) {
    await stop();
    throw error;
  }
  let made = 0;
  return {
    async database() {
      const name = `app_${(made += 1)}`;
      await execute(urlOf('postgres'), `create database ${name} template template_app`);
      return urlOf(name);
    },
    stop,
  };
}

/** Runs one statement on a connection of its own. */
export async function execute(url: string, text: string, ...values: unknown[]): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text, values)).rows;
  } finally {
    await client.end();
  }
}

async function migrated(url: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await migrate(drizzle({ client }), { migrationsFolder: MIGRATIONS });
  } finally {
    await client.end();
  }
}

async function untilReady(url: string): Promise<void> {
  for (let tried = 1; ; tried += 1) {
    try {
      await execute(url, 'select 1');
      return;
    } catch (error) {
      if (tried === 2_400) throw error;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}

function newest(folder: string): string | undefined {
  if (!existsSync(folder)) return undefined;
  const versions = readdirSync(folder).map(Number).filter(Number.isInteger);
  return versions.length === 0 ? undefined : join(folder, String(Math.max(...versions)), 'bin');
}

function ownerOf(name: string): { uid?: number; gid?: number } | undefined {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${name}:`));
  const [, , uid, gid] = line?.split(':') ?? [];
  return uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}
