import { createClient } from 'redis';
import { startRedis } from '../../support/redisServers.ts';
import { type Figures, loadCalls, loadHttp, type Until } from './load.ts';
import { startGatewayProcess, startPeerProcess } from './servers.ts';

/** One measured combination. A field that does not apply to a case is left out. */
export interface GatewayCase extends Partial<Figures> {
  name: 'gatehouse' | 'upstash-redis-server' | 'node-redis';
  workload: 'GET' | 'pipeline of 10' | 'EVALSHA' | 'memory';
  connections: number;
  /** Requests/s as a multiple of this case's, in the same workload. Over 1: the gateway is faster. */
  gatehouseIs?: number;
  /** Resident memory after so many requests, in MiB, and its growth over the last three quarters of them. */
  rssMiB?: Record<string, number>;
}

export interface RunOptions {
  /** Told what is being measured. */
  progress?: (line: string) => void;
  /** Time for one combination, in milliseconds. @default 2000 */
  durationMs?: number;
  /** Requests of the memory run; 0 leaves it out. @default 500_000 */
  memoryRequests?: number;
}

const TOKEN = 'bench';
const CONNECTIONS = [1, 16, 64] as const;
const ROUNDS = 4;
const SCRIPT =
  "local n = redis.call('INCR', KEYS[1]); if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end; return n";

/**
 * The question: what does the gateway cost between a client and Redis, and how does it compare with another server of
 * the same protocol? All stand before one redis-server, each in a process of its own, on loopback; they take turns
 * within each combination, so that all of them meet the machine in the same state. node-redis straight to Redis is
 * the limit: the same client without HTTP.
 */
export async function run({
  progress = () => {},
  durationMs = 2000,
  memoryRequests = 500_000,
}: RunOptions = {}): Promise<{ question: 'gateway'; cases: GatewayCase[] }> {
  const redis = await startRedis();
  const gateway = await startGatewayProcess(redis.url, TOKEN);
  const peer = await startPeerProcess(redis.url, TOKEN);
  if (!peer) progress('@humanwhocodes/upstash-redis-server is not installed (PEERS_DIR): left out');
  try {
    await redis.command('SET', 'bench:key', 'x'.repeat(100));
    const sha = String(await redis.command('SCRIPT', 'LOAD', SCRIPT));
    const evalsha = ['EVALSHA', sha, '1', 'bench:counter', '60000'];
    const pipeline = Array.from({ length: 10 }, (_, i) =>
      i % 2 === 0 ? ['GET', 'bench:key'] : ['SET', `bench:${i}`, 'value'],
    );
    const workloads = [
      { workload: 'GET', path: '/', commands: [['GET', 'bench:key']] },
      { workload: 'pipeline of 10', path: '/pipeline', commands: pipeline },
      { workload: 'EVALSHA', path: '/', commands: [evalsha] },
    ] as const;

    const cases: GatewayCase[] = [];
    for (const { workload, path, commands } of workloads) {
      const body = JSON.stringify(path === '/' ? commands[0] : commands);
      for (const connections of CONNECTIONS) {
        const contenders: [GatewayCase['name'], (until: Until) => Promise<Figures>][] = [
          ['gatehouse', (until) => loadHttp({ port: gateway.port, token: TOKEN, path, body }, connections, until)],
          ['node-redis', (until) => straight(redis.url, commands, connections, until)],
        ];
        if (peer) {
          const target = { port: peer.port, token: TOKEN, path, body };
          contenders.push(['upstash-redis-server', (until) => loadHttp(target, connections, until)]);
        }
        const figures = await takeTurns(contenders, durationMs);
        const ours = figures.get('gatehouse')!.requestsPerSecond;
        for (const [name, result] of figures) {
          const ratio =
            name === 'gatehouse' ? {} : { gatehouseIs: Number((ours / result.requestsPerSecond).toFixed(2)) };
          cases.push({ name, workload, connections, ...result, ...ratio });
          progress(
            `${workload}, ${connections} connections, ${name}: ${result.requestsPerSecond}/s, p50 ${result.p50Ms} ms, ` +
              `p99 ${result.p99Ms} ms${ratio.gatehouseIs ? `; gatehouse is ${ratio.gatehouseIs} times that` : ''}`,
          );
        }
      }
    }
    if (memoryRequests > 0) cases.push(await memory(gateway.port, memoryRequests, progress));
    return { question: 'gateway', cases };
  } finally {
    await peer?.stop();
    await gateway.stop();
    await redis.stop();
  }
}

/**
 * Short rounds, every other one in opposite order, so that what else the machine does meets all alike. The best round
 * counts: what disturbs one only ever makes it slower.
 */
async function takeTurns(
  contenders: [GatewayCase['name'], (until: Until) => Promise<Figures>][],
  durationMs: number,
): Promise<Map<GatewayCase['name'], Figures>> {
  const best = new Map<GatewayCase['name'], Figures>();
  for (const [, load] of contenders) await load({ durationMs: durationMs / 4 });
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, load] of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const figures = await load({ durationMs: durationMs / ROUNDS });
      if (figures.requestsPerSecond > (best.get(name)?.requestsPerSecond ?? 0)) best.set(name, figures);
    }
  }
  return best;
}

async function straight(
  url: string,
  commands: readonly (readonly string[])[],
  connections: number,
  until: Until,
): Promise<Figures> {
  const clients = await Promise.all(
    Array.from({ length: connections }, () => createClient({ url, RESP: 2, commandOptions: { timeout: 0 } }).connect()),
  );
  try {
    return await loadCalls(
      (connection) => Promise.all(commands.map((command) => clients[connection]!.sendCommand(command))),
      connections,
      until,
    );
  } finally {
    for (const client of clients) client.destroy();
  }
}

/** Whether memory stays flat: the gateway's resident memory in the course of many requests. */
async function memory(port: number, requests: number, progress: (line: string) => void): Promise<GatewayCase> {
  const target = { port, token: TOKEN, path: '/', body: JSON.stringify(['GET', 'bench:key']) };
  const rssMiB: Record<string, number> = {};
  const read = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    const bytes = /^process_resident_memory_bytes (\d+)$/m.exec(await response.text())?.[1];
    return Math.round(Number(bytes) / 1024 / 1024);
  };
  let errors = 0;
  for (let quarter = 0; quarter <= 4; quarter++) {
    if (quarter > 0) errors += (await loadHttp(target, 32, { requests: requests / 4 })).errors;
    rssMiB[String((requests / 4) * quarter)] = await read();
  }
  progress(`memory of the gateway in MiB after so many requests: ${JSON.stringify(rssMiB)}`);
  return { name: 'gatehouse', workload: 'memory', connections: 32, requests, errors, rssMiB };
}

if (import.meta.main) {
  const result = await run({ progress: (line) => process.stderr.write(`${line}\n`) });
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
}
