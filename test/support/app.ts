import { readFile, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Miniflare } from 'miniflare';

import { testBindings } from './bindings.ts';
import type { Mailbox } from './mailbox.ts';

const migrations = fileURLToPath(new URL('../../src/db/migrations', import.meta.url));

/** The numbers of the default policy get in the way of tests that are about something else. */
export const UNLIMITED = {
  LIMIT_REGISTER: '10000/1m',
  LIMIT_LOGIN: '10000/1m',
  LIMIT_LOGIN_ADDRESS: '10000/1m',
  LIMIT_API: '10000/1m',
  LIMIT_REFRESH: '10000/1m',
  LIMIT_RECOVERY: '10000/1m',
  LIMIT_RECOVERY_ACCOUNT: '10000/1m',
  LIMIT_VERIFICATION: '10000/1m',
  LIMIT_ONE_TIME_TOKEN: '10000/1m',
};

export interface RunningApp extends AsyncDisposable {
  url: string;
  /** The app's own database, to look behind its back. */
  sql(query: string, ...values: unknown[]): Promise<Record<string, unknown>[]>;
  /** Runs the cron trigger. */
  scheduled(): Promise<void>;
  logs: string[];
}

const COMPATIBILITY_DATE = '2026-10-20';

/** A Worker of one module, beside the app. */
function workerOf(name: string, contents: string) {
  const manifest = { mainModule: 'index.js', modules: { 'index.js': { type: 'esm' as const, contents } } };
  return { config: { name, compatibilityDate: COMPATIBILITY_DATE, manifest } };
}

/** Starts the built Worker in workerd with a fresh local D1. */
export async function startApp(options: {
  bundle: string;
  redis: { url: string; token: string };
  settings?: Record<string, string>;
  /** What `EMAIL` is: a mailbox of ours, or Miniflare's own stand-in for the platform. */
  email?: Mailbox | 'miniflare';
}): Promise<RunningApp> {
  const { email } = options;
  const mail = email !== undefined && { MAILER: 'cloudflare', MAIL_FROM: 'hello@example.net' };
  const bindings = { ...testBindings(options.redis), ...mail, ...options.settings };
  const logs: string[] = [];
  const miniflare = new Miniflare({
    host: '127.0.0.1',
    port: 0,
    handleStructuredLogs: ({ message }) => logs.push(message),
    workers: [
      {
        config: {
          name: 'gatehouse',
          compatibilityDate: COMPATIBILITY_DATE,
          manifest: {
            mainModule: 'index.js',
            modules: { 'index.js': { type: 'esm', contents: await readFile(options.bundle, 'utf8') } },
          },
          env: {
            DB: { type: 'd1', id: 'gatehouse' },
            ...(email === 'miniflare' && { EMAIL: { type: 'send-email' } }),
            ...(typeof email === 'object' && { EMAIL: { type: 'worker', worker: 'mailbox', exportName: 'Mailbox' } }),
            ...Object.fromEntries(Object.entries(bindings).map(([name, value]) => [name, { type: 'text', value }])),
          },
        },
      },
      ...(typeof email === 'object' ? [workerOf('mailbox', email.worker)] : []),
    ],
  });
  const url = String(await miniflare.ready).replace(/\/$/, '');
  const db = await miniflare.getD1Database('DB');
  for (const file of (await readdir(migrations)).filter((name) => name.endsWith('.sql')).sort()) {
    const text = await readFile(`${migrations}/${file}`, 'utf8');
    for (const statement of text.split('--> statement-breakpoint')) await db.prepare(statement).run();
  }
  return {
    url,
    logs,
    async sql(query, ...values) {
      const { results } = await db
        .prepare(query)
        .bind(...values)
        .all<Record<string, unknown>>();
      return results;
    },
    async scheduled() {
      const worker = (await miniflare.getWorker()) as unknown as {
        scheduled(options: { cron: string }): Promise<{ outcome: string }>;
      };
      const { outcome } = await worker.scheduled({ cron: '* * * * *' });
      if (outcome !== 'ok') throw new Error(`scheduled: ${outcome}`);
    },
    async [Symbol.asyncDispose]() {
      await miniflare.dispose();
    },
  };
}
