import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pid as ownPid } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Miniflare } from 'miniflare';

import { PATIENT_DEADLINES, testBindings } from './bindings.ts';
import { BREAKABLE } from './breakableDatabase.ts';
import type { Mailbox } from './mailbox.ts';
import { execute } from './postgres.ts';
import { SPAN_TAIL } from './spans.ts';

export { UNLIMITED } from './unlimited.ts';

const migrations = fileURLToPath(new URL('../../src/db/migrations', import.meta.url));

/** A database in memory outlives its workerd as well as one on a disk, and writes in a tenth of the time. */
const MEMORY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** Nothing is late on a busy machine, and the breaker stays closed: only tests of faults set numbers of their own. */
export const PATIENT = { ...PATIENT_DEADLINES, BREAKER_MIN_CALLS: '1000000' };

export interface RunningApp extends AsyncDisposable {
  url: string;
  /** One for each isolate, the first of which is {@link url}'s. They share the database, and nothing else. */
  urls: string[];
  /** The app's own database, to look behind its back. */
  sql(query: string, ...values: unknown[]): Promise<Record<string, unknown>[]>;
  /**
   * Every query of the app fails from now on, or no longer: its database cannot be reached. `lossy=<table>`: batches that
   * insert into it are committed, and their results are lost.
   */
  database(state: 'here' | 'away' | `lossy=${string}`): Promise<void>;
  /** The file of its D1. */
  file(): Promise<string>;
  /** Runs the cron trigger of the first isolate. */
  scheduled(): Promise<void>;
  /** Kills workerd in the middle of whatever it does (SIGKILL); new isolates come up on the same database and addresses. */
  kill(): Promise<void>;
  logs: string[];
}

const COMPATIBILITY_DATE = '2026-10-20';

/** A Worker of one module, or of the app and one before it. */
function workerOf(name: string, contents: string, app?: string) {
  const esm = (text: string) => ({ type: 'esm' as const, contents: text });
  const modules = { 'index.js': esm(contents), ...(app !== undefined && { 'app.js': esm(app) }) };
  const manifest = { mainModule: 'index.js', modules };
  return { config: { name, compatibilityDate: COMPATIBILITY_DATE, manifest } };
}

/** Starts the built Worker in workerd with a fresh local D1, or on a PostgreSQL database. */
export async function startApp(options: {
  bundle: string;
  redis: { url: string; token: string };
  settings?: Record<string, string>;
  /** What `EMAIL` is: a mailbox of ours, or Miniflare's own stand-in for the platform. */
  email?: Mailbox | 'miniflare';
  /** Every request is traced, and `logs` hold the events of its spans (`spansIn`). */
  traced?: boolean;
  /** How many isolates of the same Worker run on the one database. @default 1 */
  isolates?: number;
  /** Further settings of each isolate, the first one's first. */
  settingsOf?: readonly Record<string, string>[];
  /** Address of the PostgreSQL database that it runs on, through a Hyperdrive binding; the bundle must be made for it. */
  postgres?: string | undefined;
}): Promise<RunningApp> {
  const { email, postgres } = options;
  const mail = email !== undefined && { MAILER: 'cloudflare', MAIL_FROM: 'hello@example.net' };
  const bindings = { ...testBindings(options.redis), ...PATIENT, ...mail, ...options.settings };
  const logs: string[] = [];
  const contents = await readFile(options.bundle, 'utf8');
  const names = Array.from({ length: options.isolates ?? 1 }, (_, index) => `gatehouse${index === 0 ? '' : index}`);
  const others = new Set(await workerdsOf(ownPid));
  const folder = await mkdtemp(join(MEMORY, 'gatehouse-d1-'));
  const miniflare = new Miniflare({
    host: '127.0.0.1',
    port: 0,
    resourcePersistencePath: folder,
    handleStructuredLogs: ({ message }) => logs.push(message),
    workers: [
      ...names.map((name, index) => ({
        config: {
          ...(postgres === undefined ? workerOf(name, BREAKABLE, contents) : workerOf(name, contents)).config,
          ...(options.traced === true && { tailConsumers: [{ worker: 'spans', streaming: true }] }),
          env: {
            ...(postgres === undefined
              ? { DB: { type: 'd1' as const, id: 'gatehouse' } }
              : { HYPERDRIVE: { type: 'hyperdrive' as const, id: 'gatehouse', dev: { connectionString: postgres } } }),
            ...(email === 'miniflare' && { EMAIL: { type: 'send-email' as const } }),
            ...(typeof email === 'object' && {
              EMAIL: { type: 'worker' as const, worker: 'mailbox', exportName: 'Mailbox' },
            }),
            ...Object.fromEntries(
              Object.entries({ ...bindings, ...options.settingsOf?.[index] }).map(([key, value]) => [
                key,
                { type: 'text' as const, value },
              ]),
            ),
          },
        },
        dev: { unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }] },
      })),
      ...(options.traced === true ? [workerOf('spans', SPAN_TAIL)] : []),
      ...(typeof email === 'object' ? [workerOf('mailbox', email.worker)] : []),
    ],
  });
  const url = String(await miniflare.ready).replace(/\/$/, '');
  const direct = await Promise.all(names.map((name) => miniflare.unsafeGetDirectURL(name)));
  const urls = direct.map((address) => String(address).replace(/\/$/, ''));
  const query = async (statements: readonly { sql: string; values?: unknown[] }[]) => {
    const response = await fetch(`${url}/__sql`, { method: 'POST', body: JSON.stringify(statements) });
    if (!response.ok) throw new Error(await response.text());
    return (await response.json()) as Record<string, unknown>[];
  };
  if (postgres === undefined) await query((await migrationStatements()).map((sql) => ({ sql })));
  return {
    url,
    urls,
    logs,
    sql: (sql, ...values) => (postgres === undefined ? query([{ sql, values }]) : execute(postgres, sql, ...values)),
    async database(state) {
      await Promise.all(urls.map((base) => fetch(`${base}/__database?${state}`)));
    },
    async file() {
      const databases = join(folder, 'd1/miniflare-D1DatabaseObject');
      const found = (await readdir(databases)).filter((name) => name.endsWith('.sqlite') && name !== 'metadata.sqlite');
      if (found.length !== 1) throw new Error(`which database? ${found.join(', ')}`);
      return join(databases, found[0]!);
    },
    async scheduled() {
      const worker = (await miniflare.getWorker()) as unknown as {
        scheduled(options: { cron: string }): Promise<{ outcome: string }>;
      };
      const { outcome } = await worker.scheduled({ cron: '* * * * *' });
      if (outcome !== 'ok') throw new Error(`scheduled: ${outcome}`);
    },
    async kill() {
      const own = (await workerdsOf(ownPid)).filter((pid) => !others.has(pid));
      if (own.length !== 1) throw new Error(`which workerd? ${own.join(', ')}`);
      process.kill(own[0]!, 'SIGKILL');
      // Miniflare starts another one at once.
      for (const base of urls) {
        while ((await fetch(`${base}/health`).catch(() => undefined))?.ok !== true) await sleep(20);
      }
      await miniflare.ready;
    },
    async [Symbol.asyncDispose]() {
      await miniflare.dispose();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function migrationStatements(): Promise<string[]> {
  const names = (await readdir(migrations)).filter((name) => name.endsWith('.sql')).sort();
  const texts = await Promise.all(names.map((name) => readFile(`${migrations}/${name}`, 'utf8')));
  return texts.flatMap((text) => text.split('--> statement-breakpoint'));
}

/** The workerd processes that a process has started. */
async function workerdsOf(parent: number): Promise<number[]> {
  // Where there is no such directory, nothing can be killed.
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      // `pid (comm) state ppid …`; a process may be gone by now.
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      return stat.includes('(workerd)') && Number(/\) \S (\d+)/.exec(stat)?.[1]) === parent ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}
