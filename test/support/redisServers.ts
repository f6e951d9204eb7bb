import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from 'redis';

/** Debian's `redis-server`, or another one named by REDIS_SERVER_BIN. */
const BINARY = process.env['REDIS_SERVER_BIN'] ?? '/usr/bin/redis-server';

/** Whether real Redis servers can be started here. Tests that need one are skipped, and say why, where they cannot. */
export const hasRedisServer = existsSync(BINARY);

/** For `describe.skipIf(…)` titles. */
export const REDIS_MISSING = `needs redis-server (apt-get install redis-server, or REDIS_SERVER_BIN): ${BINARY} is missing`;

/** A running redis-server, or Sentinel, of a test's own. */
export interface RedisProcess {
  readonly port: number;
  readonly url: string;
  readonly pid: number;
  /** Whether it still runs. */
  readonly running: boolean;
  /** Runs one command on a connection of its own; errors of Redis reject. */
  command(...args: string[]): Promise<unknown>;
  /** Stops it from running (SIGSTOP), as a hung machine; {@link resume} lets it go on. */
  freeze(): void;
  resume(): void;
  /** Ends it (SIGKILL: like a crash) and waits until its port is closed. */
  kill(): Promise<void>;
  /** Starts it again on the same port after {@link kill}. */
  restart(): Promise<void>;
  /** Ends it and removes its files. */
  stop(): Promise<void>;
}

/** Settings that every test server gets: loopback, no persistence, ready at once. */
const BASE = ['--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--repl-diskless-sync-delay', '0'];

/**
 * Starts redis-server on a free port of 127.0.0.1 in a temporary directory and waits until it answers.
 * @param args further arguments, as on its command line
 */
export async function startRedis(...args: string[]): Promise<RedisProcess> {
  const port = await freePort();
  const directory = await mkdtemp(join(tmpdir(), 'gatehouse-redis-'));
  return start(port, directory, ['--port', String(port), '--dir', directory, ...BASE, ...args], args);
}

/** Starts a Sentinel that watches `master` under the name `name`. */
export async function startSentinel(name: string, masterPort: number, quorum: number): Promise<RedisProcess> {
  const port = await freePort();
  const directory = await mkdtemp(join(tmpdir(), 'gatehouse-sentinel-'));
  const file = join(directory, 'sentinel.conf');
  // Sentinel rewrites its configuration, so it must be a file; the short times keep the tests short.
  await writeFile(
    file,
    [
      `port ${port}`,
      'bind 127.0.0.1',
      `dir ${directory}`,
      `sentinel monitor ${name} 127.0.0.1 ${masterPort} ${quorum}`,
      `sentinel down-after-milliseconds ${name} 600`,
      `sentinel failover-timeout ${name} 3000`,
      `sentinel parallel-syncs ${name} 2`,
      '',
    ].join('\n'),
  );
  return start(port, directory, [file, '--sentinel'], []);
}

async function start(port: number, directory: string, argv: string[], extra: string[]): Promise<RedisProcess> {
  const password = extra[extra.indexOf('--requirepass') + 1];
  const url = extra.includes('--requirepass')
    ? `redis://:${encodeURIComponent(password ?? '')}@127.0.0.1:${port}`
    : `redis://127.0.0.1:${port}`;
  let child: ChildProcess;
  const launch = async () => {
    child = spawn(BINARY, argv, { stdio: 'ignore' });
    await untilAnswers(url, child);
  };
  await launch();
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  };
  return {
    port,
    url,
    get pid() {
      return child.pid!;
    },
    get running() {
      return child.exitCode === null && child.signalCode === null;
    },
    command: (...args) => once(url, args),
    freeze: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    kill,
    restart: launch,
    async stop() {
      await kill();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Runs one command on a connection that is opened for it. */
async function once(url: string, args: string[]): Promise<unknown> {
  const client = createClient({ url, RESP: 2, disableClientInfo: true, socket: { reconnectStrategy: false } });
  client.on('error', () => {}); // connect() and sendCommand() reject with the same error
  await client.connect();
  try {
    return await client.sendCommand(args);
  } finally {
    client.destroy();
  }
}

async function untilAnswers(url: string, child: ChildProcess): Promise<void> {
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`redis-server ended with ${child.exitCode} instead of starting`);
    return (await once(url, ['PING']).catch(() => undefined)) === 'PONG';
  }, 'redis-server answers');
}

/** Polls until `condition` holds. @throws after `timeoutMs`, naming what was waited for */
export async function until(
  condition: () => Promise<boolean> | boolean,
  what: string,
  timeoutMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A TCP port of 127.0.0.1 that is free now (and, for a cluster node, whose bus port, 10,000 above, exists). */
export function freePort(): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const probe = net.createServer();
  probe.once('error', reject).listen(0, '127.0.0.1', () => {
    const { port } = probe.address() as net.AddressInfo;
    probe.close(() => resolve(port > 55_000 ? freePort() : port));
  });
  return promise;
}
