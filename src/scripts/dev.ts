import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { stop as stopEsbuild } from 'esbuild';

import { buildAssets } from './buildAssets.ts';
import { ROOT, runProgram } from './cli.ts';
import { otherLocalDatabase, watchSettings } from './devChanges.ts';
import { untilHealthy } from './devHealth.ts';
import { devDatabase } from './devDatabase.ts';
import { startRedis } from './devRedis.ts';
import { screen } from './devScreen.ts';
import { readDevSettings } from './devSettings.ts';
import type { DevSettings } from './devSettings.ts';
import { makePrivate, readText, writeSecrets } from './devVars.ts';
import { startWorker } from './devWorker.ts';
import { announce } from './devTwins.ts';
import { watchMigrations } from './migrations.ts';
import { assertPortFree, authority, callable } from './ports.ts';

const HELP = `npm run dev

Runs everything on this machine: Redis over REST (the gateway), a local D1 database (or a PostgreSQL one of yours) and the
Worker in workerd.
Generates .dev.vars when it is missing, applies the migrations, runs the cron trigger each minute, and reloads the
Worker when its code changes. .dev.vars and wrangler.toml are read at the start only. Ctrl-C stops all of it. Another program
stops it with SIGTERM to npm: the shell that npm starts does not pass on a SIGINT that only npm receives.

Environment:
  PORT, HOST        where the Worker listens (8787, 127.0.0.1)
  GATEWAY_PORT      where the gateway listens (8079)
  DATABASE_URL      a PostgreSQL database (15 or later) of the app's own, postgres://USER:PASSWORD@HOST:PORT/DATABASE;
                    without it a local D1 database
  REDIS_URL         a Redis server for the gateway, such as redis://127.0.0.1:6379, or
  REDIS_HOST, REDIS_PORT, REDIS_PASSWORD; without them an embedded engine, in memory
`;

const CRON_EVERY_MS = 60_000;

await runProgram(async () => {
  const { values } = parseArgs({ options: { help: { type: 'boolean', short: 'h' } } });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }

  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stop.abort());
  if (process.env['npm_lifecycle_event'] !== undefined) stopWithParent(stop);
  try {
    await dev(stop.signal);
  } catch (error) {
    // Whatever breaks off because it was asked to is no failure.
    if (!stop.signal.aborted) throw error;
  }
});
// A socket that lingers, or a timer of the embedded engine, must not keep the terminal.
process.exit();

async function dev(stop: AbortSignal): Promise<void> {
  const startedAtMs = Date.now();
  const devVarsPath = join(ROOT, '.dev.vars');
  const settings = await readDevSettings(process.env, readText(devVarsPath));
  const database = devDatabase(process.env);
  await assertPortsFree(settings);
  // Before anything is written: its server may not be there. A local D1 needs no such question.
  if (database.isPostgres) await database.migrate(stop);
  const { text, added } = settings.devVars;
  if (added.length > 0) writeSecrets(devVarsPath, text);
  else if (makePrivate(devVarsPath))
    console.error('.dev.vars could be read by other users of this machine: not any more.');
  console.error('Starting Gatehouse …');
  await buildAssets();
  // esbuild's own process, which would stay as long as this one does. Nothing else is being built here.
  await stopEsbuild();

  await using stack = new AsyncDisposableStack();
  const notice = (line: string) => console.error(line);
  stack.defer(watchSettings(notice));
  const [redis] = await Promise.all([
    startRedis(settings, stop),
    database.isPostgres ? undefined : database.migrate(stop),
  ]);
  stack.defer(() => redis.close());
  stop.throwIfAborted();
  const other = database.isPostgres ? undefined : otherLocalDatabase();
  if (other !== undefined) notice(other);
  notice('Redis and the database are ready. Building the Worker …');

  const worker = startWorker(settings, { redisUrl: redis.url, database }, stop);
  stack.defer(() => worker.stop());
  const url = `http://${authority(callable(settings.host), settings.port)}`;
  await Promise.race([untilHealthy(url, { notice, signal: stop }), worker.died]);

  stack.defer(watchMigrations({ folder: database.migrations, migrate: database.migrate, notice, signal: stop }));
  stack.defer(announce({ url, embeddedRedis: redis.embedded, database: database.description }, notice));
  const description = await redis.describe();
  const startMs = Date.now() - startedAtMs;
  const { description: named, isPostgres } = database;
  const hasAdmin = await database.hasAdmin();
  const shown = { url, redis: description, database: named, isPostgres, generated: added, startMs, hasAdmin };
  process.stdout.write(screen(shown));
  const cron = setInterval(() => void runCron(url), CRON_EVERY_MS);
  stack.defer(() => clearInterval(cron));
  await Promise.race([aborted(stop), worker.died]);
  console.error('Stopping …');
}

async function assertPortsFree({ host, port, gateway }: DevSettings): Promise<void> {
  await assertPortFree(host, port, `choose another port: PORT=${port + 1} npm run dev`);
  if (gateway === undefined || gateway.port === 0) return;
  const remedy = `choose another port for the gateway: GATEWAY_PORT=${gateway.port + 1} npm run dev`;
  await assertPortFree(gateway.host, gateway.port, remedy);
}

/** wrangler does not run cron triggers by itself. */
async function runCron(url: string): Promise<void> {
  try {
    await fetch(`${url}/cdn-cgi/handler/scheduled`, { signal: AbortSignal.timeout(CRON_EVERY_MS / 2) });
  } catch {
    // The Worker is being rebuilt, or hangs, as its log shows. The next run is in a minute.
  }
}

/** npm sends SIGTERM to its shell, which ends without passing it on: this process only sees that its parent has changed. */
function stopWithParent(stop: AbortController): void {
  const parent = process.ppid;
  setInterval(() => process.ppid !== parent && stop.abort(), 250).unref();
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
