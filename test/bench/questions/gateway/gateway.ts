import { createClient } from 'redis';
import { REDIS_MISSING, hasRedisServer, startRedis } from '../../../support/redisServers.ts';
import type { CaseResult, Question } from '../../question.ts';
import { type Figures, loadCalls, loadHttp, type Until } from './load.ts';
import { startGatewayProcess, startPeerProcess } from './servers.ts';

const TOKEN = 'token-of-the-benchmark';
const CONNECTIONS = [1, 16, 64] as const;
const ROUNDS = 4;
const SCRIPT =
  "local n = redis.call('INCR', KEYS[1]); if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end; return n";

/** Time for one load of one case, in milliseconds. */
const DURATION_MS = 1_200;
const MEMORY_REQUESTS = 500_000;
/** Whose figures stand for a case. */
const HEADLINE = { load: 'pipeline of 10', connections: 16 };

type Name = 'gatehouse' | 'upstash-redis-server' | 'node-redis';

/**
 * What does the gateway cost between a client and Redis, and how does it compare with another server of the same
 * protocol? All stand before one redis-server, each in a process of its own, on loopback; they take turns within each
 * load, so that all of them meet the machine in the same state. node-redis straight to Redis is the limit: the same
 * client without HTTP.
 */
export const gateway: Question = {
  name: 'gateway',
  asks: 'What does the gateway cost between a client and Redis, beside another server of the protocol and no server?',
  setUp:
    'One redis-server, every contender a process of its own, loopback, in turns; the first table is a pipeline of 10 on 16 connections.',
  async run(progress, { rounds = ROUNDS } = {}) {
    if (!hasRedisServer) throw new Error(REDIS_MISSING);
    const redis = await startRedis();
    const ours = await startGatewayProcess(redis.url, TOKEN);
    const peer = await startPeerProcess(redis.url, TOKEN);
    try {
      await redis.command('SET', 'bench:key', 'x'.repeat(100));
      const sha = String(await redis.command('SCRIPT', 'LOAD', SCRIPT));
      const pipeline = Array.from({ length: 10 }, (_, i) =>
        i % 2 === 0 ? ['GET', 'bench:key'] : ['SET', `bench:${i}`, 'value'],
      );
      const loads = [
        { load: 'GET', path: '/', commands: [['GET', 'bench:key']] },
        { load: 'pipeline of 10', path: '/pipeline', commands: pipeline },
        { load: 'EVALSHA', path: '/', commands: [['EVALSHA', sha, '1', 'bench:counter', '60000']] },
      ] as const;

      const results = new Map<Name, NonNullable<CaseResult['loads']>>();
      for (const { load, path, commands } of loads) {
        const body = JSON.stringify(path === '/' ? commands[0] : commands);
        for (const connections of CONNECTIONS) {
          const through = (port: number) => (until: Until) =>
            loadHttp({ port, token: TOKEN, path, body }, connections, until);
          const figures = await takeTurns(
            [
              ['gatehouse', through(ours.port)],
              ['upstash-redis-server', through(peer.port)],
              ['node-redis', (until) => straight(redis.url, commands, connections, until)],
            ],
            DURATION_MS / ROUNDS,
            rounds,
          );
          for (const [name, { requestsPerSecond, p50Ms, p95Ms, p99Ms }] of figures) {
            results.set(name, [
              ...(results.get(name) ?? []),
              { load, connections, p50Ms, p95Ms, p99Ms, requestsPerSecond },
            ]);
          }
          const rates = [...figures.values()].map(({ requestsPerSecond }) => requestsPerSecond.toFixed(0));
          progress(`${load}, ${connections} connections: ${rates.join(' · ')} requests/s`);
        }
      }
      const rssMiB = await memory(ours.port, MEMORY_REQUESTS, progress);
      const cases: CaseResult[] = [];
      for (const [name, all] of results) {
        const headline = all.find(
          ({ load, connections }) => load === HEADLINE.load && connections === HEADLINE.connections,
        );
        const { load: _load, connections: _connections, ...figures } = headline ?? { load: '', connections: 0 };
        cases.push({ name, ...figures, loads: all, ...(name === 'gatehouse' && { rssMiB }) });
      }
      return { question: 'gateway', cases };
    } finally {
      await peer.stop();
      await ours.stop();
      await redis.stop();
    }
  },
};

/**
 * Short rounds, every other one in opposite order, so that what else the machine does meets all alike. The best round
 * counts: what disturbs one only ever makes it slower.
 */
async function takeTurns(
  contenders: [Name, (until: Until) => Promise<Figures>][],
  roundMs: number,
  rounds: number,
): Promise<Map<Name, Figures>> {
  const best = new Map<Name, Figures>();
  for (const [, load] of contenders) await load({ durationMs: roundMs });
  for (let round = 0; round < rounds; round++) {
    for (const [name, load] of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const figures = await load({ durationMs: roundMs });
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
async function memory(
  port: number,
  requests: number,
  progress: (line: string) => void,
): Promise<Record<string, number>> {
  const target = { port, token: TOKEN, path: '/', body: JSON.stringify(['GET', 'bench:key']) };
  const rssMiB: Record<string, number> = {};
  const read = async () => {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    const bytes = /^process_resident_memory_bytes (\d+)$/m.exec(await response.text())?.[1];
    return Math.round(Number(bytes) / 1024 / 1024);
  };
  for (let quarter = 0; quarter <= 4; quarter++) {
    if (quarter > 0) {
      const { errors } = await loadHttp(target, 32, { requests: requests / 4 });
      if (errors > 0) throw new Error(`${errors} of ${requests / 4} requests failed`);
    }
    rssMiB[String((requests / 4) * quarter)] = await read();
  }
  progress(`memory of the gateway in MiB after so many requests: ${JSON.stringify(rssMiB)}`);
  return rssMiB;
}
