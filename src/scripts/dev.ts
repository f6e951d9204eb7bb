import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { startGateway } from '../gateway/gateway.ts';
import type { Gateway } from '../gateway/gateway.ts';
import type { Log } from '../gateway/log.ts';
import { ROOT, runProgram, UserError } from './cli.ts';
import { untilHealthy } from './devHealth.ts';
import { screen } from './devScreen.ts';
import { readDevSettings } from './devSettings.ts';
import type { DevSettings } from './devSettings.ts';
import { readText, writeSecrets } from './devVars.ts';
import { applyMigrations } from './migrations.ts';
import { assertPortFree, authority, callable } from './ports.ts';
import { startWrangler, stopWrangler } from './wrangler.ts';
import { WranglerLog } from './wranglerLog.ts';

const HELP = `npm run dev

Runs everything on this machine: Redis over REST (the gateway), a local D1 database and the Worker in workerd.
Generates .dev.vars when it is missing, applies the migrations, runs the cron trigger each minute, and reloads the
Worker when a file changes. Ctrl-C stops all of it.

Environment:
  PORT, HOST        where the Worker listens (8787, 127.0.0.1)
  GATEWAY_PORT      where the gateway listens (8079)
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
  await assertPortsFree(settings);
  const { text, added } = settings.devVars;
  if (added.length > 0) writeSecrets(devVarsPath, text);
  console.error('Starting Gatehouse …');

  await using stack = new AsyncDisposableStack();
  const starting = settings.gateway && startGateway({ ...settings.gateway, log: logGateway(stop) });
  const [gateway] = await Promise.all([starting, applyMigrations(stop)]);
  if (gateway) stack.defer(() => Promise.race([gateway.close(), delay(3_000)]));
  stop.throwIfAborted();

  const wrangler = runWorker(settings, gateway, stop);
  stack.defer(() => wrangler.stop());
  const url = `http://${authority(callable(settings.host), settings.port)}`;
  const notice = (line: string) => console.error(line);
  await Promise.race([untilHealthy(url, { notice, signal: stop }), wrangler.died]);

  const redis = describeRedis(settings, gateway);
  process.stdout.write(screen({ url, redis, generated: added, startMs: Date.now() - startedAtMs }));
  const cron = setInterval(() => void runCron(url), CRON_EVERY_MS);
  stack.defer(() => clearInterval(cron));
  await Promise.race([aborted(stop), wrangler.died]);
  console.error('Stopping …');
}

async function assertPortsFree({ host, port, gateway }: DevSettings): Promise<void> {
  await assertPortFree(host, port, `choose another port: PORT=${port + 1} npm run dev`);
  if (gateway === undefined || gateway.port === 0) return;
  const remedy = `choose another port for the gateway: GATEWAY_PORT=${gateway.port + 1} npm run dev`;
  await assertPortFree(gateway.host, gateway.port, remedy);
}

interface Worker {
  /** Rejects when wrangler ends without having been told to; never resolves. */
  died: Promise<never>;
  stop(): Promise<void>;
}

function runWorker(settings: DevSettings, gateway: Gateway | undefined, stop: AbortSignal): Worker {
  const { host, port } = settings;
  const child = startWrangler([
    'dev',
    `--ip=${host}`,
    `--port=${port}`,
    '--test-scheduled',
    '--show-interactive-dev-session=false',
    ...overrides(settings, gateway).flatMap(([name, value]) => ['--var', `${name}:${value}`]),
  ]);
  const log = new WranglerLog();
  for (const name of ['stdout', 'stderr'] as const) {
    createInterface({ input: child[name]! }).on('line', (line) => {
      const shown = log[name](line);
      if (shown !== undefined && !stop.aborted) process[name].write(`${shown}\n`);
    });
  }
  const died = new Promise<never>((_, reject) => {
    child.once('error', reject);
    // 'close', not 'exit': its last words have been read by then.
    child.once('close', (code, signal) => {
      const how = `wrangler ended unexpectedly (${signal ?? `exit code ${code}`})`;
      const last = log.hidden.length > 0 ? ['. Its last lines:', ...log.hidden].join('\n') : '.';
      reject(new UserError(`${how}${log.shownAny ? ', see above.' : last}`));
    });
  });
  // When it is stopped on purpose nobody waits for this.
  died.catch(() => {});
  return { died, stop: () => stopWrangler(child) };
}

/** Settings that the Worker would not see, or would see wrongly, if wrangler read .dev.vars alone. */
function overrides({ vars }: DevSettings, gateway: Gateway | undefined): [name: string, value: string][] {
  // With required secrets declared, wrangler silently drops every other name of .dev.vars that wrangler.toml lacks.
  const declared = new Set(readText(join(ROOT, 'wrangler.toml'))?.match(/\w+/g));
  const merged = new Map([...vars].filter(([name]) => !declared.has(name)));
  if (gateway && gateway.url !== vars.get('UPSTASH_REDIS_REST_URL'))
    merged.set('UPSTASH_REDIS_REST_URL', urlOf(gateway));
  return [...merged];
}

function urlOf(gateway: Gateway): string {
  const url = new URL(gateway.url);
  return `http://${authority(callable(url.hostname.replace(/^\[(.*)\]$/, '$1')), gateway.port)}`;
}

function describeRedis({ vars }: DevSettings, gateway: Gateway | undefined): string {
  if (gateway === undefined)
    return `${new URL(vars.get('UPSTASH_REDIS_REST_URL')!).origin} (UPSTASH_REDIS_REST_URL in .dev.vars)`;
  const hint = gateway.backend.startsWith('embedded') ? ', in memory (REDIS_URL=redis://… for a server of yours)' : '';
  return `${gateway.backend}${hint}, over REST at ${urlOf(gateway)}`;
}

/** The gateway's own log, without what every start and stop says. */
function logGateway(stop: AbortSignal): Log {
  let lost = false;
  return (entry) => {
    lost ||= entry.level !== 'info';
    if (lost && !stop.aborted) console.error(JSON.stringify(entry));
  };
}

/** wrangler does not run cron triggers by itself. */
async function runCron(url: string): Promise<void> {
  try {
    await fetch(`${url}/cdn-cgi/handler/scheduled`, { signal: AbortSignal.timeout(CRON_EVERY_MS / 2) });
  } catch {
    // The Worker is being rebuilt, or hangs, and its log says so. The next minute has another run.
  }
}

/** npm hands SIGTERM to its shell, and that dies of it without a word to us: all that we see is another parent. */
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
