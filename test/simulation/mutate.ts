import { bundleWorker } from './bundle.ts';
import type { DatabaseKind } from './database.ts';
import { MUTATIONS } from './mutations.ts';
import { runSeeds } from './pool.ts';
import { REGRESSIONS } from './regressions.ts';
import { run } from './run.ts';
import { buildStage } from './world.ts';

/** A mutation that is not noticed within so many seeds is one that the simulation does not see. */
const MAX_SEEDS = 2_000;

export interface MutationOptions {
  /** Mutations to try, by name. @default all */
  only?: RegExp | undefined;
  workers?: number | undefined;
  database: DatabaseKind;
  /** Seeds that each may take. @default {@link MAX_SEEDS} */
  seeds?: number | undefined;
}

/**
 * Applies each mutation to the source, and prints which kept plan, or which seed, finds an invariant violated.
 *
 * @returns the exit code
 */
export async function tryMutations({ only, workers, database, seeds = MAX_SEEDS }: MutationOptions): Promise<number> {
  let unseen = 0;
  const wanted = MUTATIONS.filter((one) => (one.database ?? database) === database && (only?.test(one.name) ?? true));
  for (const mutation of wanted) {
    const bundle = await bundleWorker(database, mutation);
    const found = (await byPlans(bundle, database)) ?? (await bySeeds({ bundle, database, workers, seeds }));
    if (found === undefined) unseen += 1;
    console.log(`${mutation.name}: ${found ?? `NOT noticed in ${seeds} seeds`}`);
  }
  return unseen > 0 ? 1 : 0;
}

interface Search {
  database: DatabaseKind;
  seeds: number;
  bundle: string;
  workers: number | undefined;
}

async function byPlans(bundle: string, database: DatabaseKind): Promise<string | undefined> {
  const stage = await buildStage(bundle, database);
  try {
    for (const { name, plan } of REGRESSIONS) {
      const { violations } = await run(stage, plan);
      const [violation] = violations;
      if (violation !== undefined) return `${violation.invariant}, plan ${name}`;
    }
    return undefined;
  } finally {
    await stage.close();
  }
}

async function bySeeds({ bundle, database, workers, seeds }: Search): Promise<string | undefined> {
  let first: { seed: number; invariant: string } | undefined;
  await runSeeds({
    bundle,
    database,
    from: 1,
    count: seeds,
    ...(workers !== undefined && { workers }),
    take(results) {
      for (const { seed, violations } of results) {
        const [violation] = violations;
        if (violation !== undefined && (first === undefined || seed < first.seed)) {
          first = { seed, invariant: violation.invariant };
        }
      }
      return first === undefined;
    },
  });
  return first && `${first.invariant}, seed ${first.seed}`;
}
