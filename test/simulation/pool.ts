import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';

import type { DatabaseKind } from './database.ts';
import type { SeedResult, Task } from './worker.ts';

/** Seeds that a worker takes at a time. */
const CHUNK = 10;

export interface PoolOptions {
  bundle: string;
  /** That it is built for. */
  database: DatabaseKind;
  /** The first seed, and how many. */
  from: number;
  count: number;
  /** No chunk is begun after this. */
  untilMs?: number;
  workers?: number;
  /** Called with the results of each chunk; `false` stops. */
  take: (results: readonly SeedResult[]) => boolean;
}

/** Runs seeds on all cores. @returns how many were run */
export async function runSeeds({
  bundle,
  database,
  from,
  count,
  untilMs = Infinity,
  workers,
  take,
}: PoolOptions): Promise<number> {
  const end = from + count;
  let next = from;
  let done = 0;
  let stopped = false;
  const width = Math.max(1, Math.min(workers ?? availableParallelism(), Math.ceil(count / CHUNK)));
  await Promise.all(
    Array.from({ length: width }, async () => {
      const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: { bundle, database } });
      try {
        while (next < end && !stopped && Date.now() < untilMs) {
          const task: Task = { from: next, to: Math.min(end, next + CHUNK) };
          next = task.to;
          const results = await ask(worker, task);
          done += results.length;
          if (!take(results)) stopped = true;
        }
      } finally {
        await worker.terminate();
      }
    }),
  );
  return done;
}

function ask(worker: Worker, task: Task): Promise<readonly SeedResult[]> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('message', (results: readonly SeedResult[]) => {
      worker.off('error', reject);
      resolve(results);
    });
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
    worker.postMessage(task);
  });
}
