import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
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
 * Starts redis-server on a free port of 127.0.0.1 in a temporary directory and waits until it replies.
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

/** Never connected. To make a client costs some ten milliseconds of CPU, and a duplicate next to nothing. */
const template = createClient({ RESP: 2, disableClientInfo: true, socket: { reconnectStrategy: false } });

/** Runs one command on a connection that is opened for it. */
async function once(url: string, args: string[]): Promise<unknown> {
  const client = template.duplicate({ url });
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
  }, 'redis-server replies');
}

/** Polls until `condition` holds. @throws after `timeoutMs`, naming what was waited for */
export async function until(
  condition: () => Promise<boolean> | boolean,
  what: string,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Redis Cluster's nodes also talk on the port that is so much higher. */
const BUS = 10_000;
const FIRST_PORT = 10_000;
const PORTS_A_WORKER = 2_500;
let tried = Math.floor(Math.random() * PORTS_A_WORKER);

/**
 * A port that no server listens on. Ports below those that the system hands out by itself, and other ones in each of vitest's
 * workers, so that no other program takes one before its server does.
 */
export async function freePort(): Promise<number> {
  const worker = Number(process.env['VITEST_POOL_ID'] ?? 0) % 4;
  for (;;) {
    tried += 1;
    const port = FIRST_PORT + worker * PORTS_A_WORKER + (tried % PORTS_A_WORKER);
    if ((await isFree(port)) && (await isFree(port + BUS))) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.createServer();
    probe.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

/** A master with two replicas, watched by three Sentinels under the name `mymaster`. */
export interface SentinelGroup {
  readonly url: string;
  /** The master at present, as the Sentinels name it. */
  master(): Promise<RedisProcess>;
  stop(): Promise<void>;
}

export async function startSentinelGroup(): Promise<SentinelGroup> {
  const name = 'mymaster';
  const first = await startRedis();
  const replicas = await Promise.all([1, 2].map(() => startRedis('--replicaof', '127.0.0.1', String(first.port))));
  const servers = [first, ...replicas];
  await until(async () => {
    const states = await Promise.all(replicas.map((replica) => replica.command('INFO', 'replication')));
    return states.every((info) => String(info).includes('master_link_status:up'));
  }, 'the replicas are in sync');
  const sentinels = await Promise.all([1, 2, 3].map(() => startSentinel(name, first.port, 2)));
  await until(async () => {
    const states = await Promise.all(sentinels.map((sentinel) => sentinel.command('SENTINEL', 'master', name)));
    return states.every((state) => {
      const fields = state as string[];
      const of = (field: string) => fields[fields.indexOf(field) + 1];
      return of('num-slaves') === '2' && of('num-other-sentinels') === '2';
    });
  }, 'the Sentinels know each other');
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${name}`,
    async master() {
      const [, port] = (await sentinels[0]!.command('SENTINEL', 'get-master-addr-by-name', name)) as [string, string];
      return servers.find((server) => server.port === Number(port))!;
    },
    async stop() {
      await Promise.all([...sentinels, ...servers].map((server) => server.stop()));
    },
  };
}

/** A cluster of three masters, each with one replica. */
export interface Cluster {
  readonly url: string;
  readonly nodes: readonly RedisProcess[];
  /** The master of a slot at present, as another running node names it. */
  masterOf(slot: number): Promise<RedisProcess>;
  /** The node's id in the cluster. */
  idOf(node: RedisProcess): string;
  stop(): Promise<void>;
}

export async function startCluster(): Promise<Cluster> {
  const plan = await Promise.all(
    Array.from({ length: 6 }, async (_, i) => ({
      port: await freePort(),
      id: randomBytes(20).toString('hex'),
      slots: [' 0-5460', ' 5461-10922', ' 10923-16383'][i] ?? '',
      directory: await mkdtemp(join(tmpdir(), 'gatehouse-cluster-')),
    })),
  );
  // Written by hand: nodes that meet by CLUSTER MEET take ten seconds to become a cluster.
  const line = (i: number, self: number) => {
    const { id, port, slots } = plan[i]!;
    const role = i < 3 ? 'master -' : `slave ${plan[i - 3]!.id}`;
    const epoch = (i % 3) + 1;
    return `${id} 127.0.0.1:${port}@${port + 10_000} ${i === self ? 'myself,' : ''}${role} 0 0 ${epoch} connected${slots}`;
  };
  const nodes = await Promise.all(
    plan.map(async ({ port, directory }, self) => {
      const table = plan.map((_, i) => line(i, self)).join('\n');
      await writeFile(join(directory, 'nodes.conf'), `${table}\nvars currentEpoch 3 lastVoteEpoch 0\n`);
      // The other shards go on while one has no master; by default they would all stop until it has one.
      const coverage = ['--cluster-require-full-coverage', 'no'];
      const cluster = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '1000', ...coverage];
      const argv = ['--port', String(port), '--dir', directory, ...BASE, ...cluster];
      return start(port, directory, [...argv, '--cluster-replica-validity-factor', '0'], []);
    }),
  );
  await until(async () => {
    const states = await Promise.all(nodes.map((node) => node.command('CLUSTER', 'INFO')));
    const links = await Promise.all(nodes.slice(3).map((node) => node.command('INFO', 'replication')));
    return (
      states.every((state) => String(state).includes('cluster_state:ok')) &&
      links.every((link) => String(link).includes('master_link_status:up'))
    );
  }, 'the cluster is ready');
  return {
    url: `redis+cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`,
    nodes,
    idOf: (node) => plan[nodes.indexOf(node)]!.id,
    async masterOf(slot) {
      const witness = nodes.find((node) => node.running)!;
      const ranges = (await witness.command('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
      const range = ranges.find(([first, last]) => slot >= first && slot <= last)!;
      return nodes.find((node) => node.port === range[2][1])!;
    },
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()));
    },
  };
}
