import { parentPort, workerData } from 'node:worker_threads';

import type { DatabaseKind } from './database.ts';
import type { Violation } from './model.ts';
import { planOf } from './planOf.ts';
import { run } from './run.ts';
import { buildStage } from './world.ts';

/** What a worker is asked: the seeds from `from` to `to`, the latter not included. */
export interface Task {
  from: number;
  to: number;
}

export interface SeedResult {
  seed: number;
  steps: number;
  violations: Violation[];
}

// Runs seeds for the main thread, one after the other, on an engine and a database of its own.
if (parentPort !== null) {
  const port = parentPort;
  const { bundle, database } = workerData as { bundle: string; database: DatabaseKind };
  const stage = await buildStage(bundle, database);
  port.on('message', ({ from, to }: Task) => {
    void (async () => {
      const results: SeedResult[] = [];
      for (let seed = from; seed < to; seed += 1) {
        const { steps, violations } = await run(stage, planOf(seed, database));
        results.push({ seed, steps, violations });
      }
      port.postMessage(results);
    })();
  });
}
