import { fork } from 'node:child_process';
import { once } from 'node:events';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import { hasRedisServer, startRedis } from '../../support/redisServers.ts';
import type { ProxyState } from './proxy.ts';
import type { RedisAnswer, RedisOrder, RedisRequest } from './redisProcess.ts';

/** Round trips and commands that have passed. */
export interface Counts {
  trips: number;
  commands: number;
}

/** The gateway in front of Redis, in a process of its own. */
export interface BenchRedis extends AsyncDisposable {
  /** The gateway itself. */
  readonly url: string;
  /** The same gateway behind a proxy that adds a delay to each round trip, and counts. */
  readonly delayedUrl: string;
  readonly token: string;
  /** `embedded Valkey 9.1.1` */
  readonly backend: string;
  /** Sets the delay of {@link delayedUrl}. */
  setDelay(delayMs: number): Promise<void>;
  /** Makes {@link delayedUrl} fail, or well again. */
  setState(state: ProxyState): Promise<void>;
  /** What has passed {@link delayedUrl} since the start. */
  counts(): Promise<Counts>;
}

/** @param redisUrl a Redis of one's own; absent: the embedded engine */
export async function startBenchRedis(redisUrl = process.env['BENCH_REDIS_URL']): Promise<BenchRedis> {
  const token = randomUUID();
  const program = fileURLToPath(new URL('redisProcess.ts', import.meta.url));
  const child = fork(program, [token, ...(redisUrl === undefined ? [] : [redisUrl])], { execArgv: [] });
  const exited = once(child, 'exit');
  const [first] = (await Promise.race([once(child, 'message'), exited])) as [RedisAnswer | number];
  if (typeof first !== 'object' || !('ready' in first)) {
    throw new Error(
      `the gateway did not start${typeof first === 'object' && 'failed' in first ? `: ${first.failed}` : ''}`,
    );
  }

  const waiting = new Map<number, (counts: Counts) => void>();
  child.on('message', (message: RedisAnswer) => {
    if (!('id' in message)) return;
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  });
  let lastId = 0;
  const ask = (request: RedisOrder) =>
    new Promise<Counts>((resolve, reject) => {
      lastId += 1;
      waiting.set(lastId, resolve);
      child.send({ id: lastId, ...request } satisfies RedisRequest, (error) => error && reject(error));
    });

  return {
    ...first.ready,
    token,
    async setDelay(delayMs) {
      await ask({ setDelayMs: delayMs });
    },
    async setState(state) {
      await ask({ setState: state });
    },
    counts: () => ask({ count: true }),
    async [Symbol.asyncDispose]() {
      if (child.connected) child.disconnect();
      await exited;
    },
  };
}

/** A real server where there is one (BENCH_REDIS_URL, or redis-server), else the embedded engine. */
export async function startServerRedis(): Promise<BenchRedis> {
  if (process.env['BENCH_REDIS_URL'] !== undefined || !hasRedisServer) return startBenchRedis();
  const server = await startRedis();
  // A benchmark that is interrupted leaves no server behind.
  const abandon = () => void server.kill();
  process.once('exit', abandon);
  const stop = async () => {
    process.off('exit', abandon);
    await server.stop();
  };
  try {
    const redis = await startBenchRedis(server.url);
    return {
      ...redis,
      async [Symbol.asyncDispose]() {
        await redis[Symbol.asyncDispose]();
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
