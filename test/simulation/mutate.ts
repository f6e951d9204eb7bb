import { bundleWorker } from './bundle.ts';
import type { DatabaseKind } from './database.ts';
import { MUTATIONS } from './mutations.ts';
import { runSeeds } from './pool.ts';

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

/** Applies each mutation to the source, and prints after how many seeds an invariant is violated. @returns the exit code */
export async function tryMutations({ only, workers, database, seeds = MAX_SEEDS }: MutationOptions): Promise<number> {
  let unseen = 0;
  const wanted = MUTATIONS.filter((one) => (one.database ?? database) === database && (only?.test(one.name) ?? true));
  for (const mutation of wanted) {
    const bundle = await bundleWorker(database, mutation);
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
    if (first === undefined) unseen += 1;
    const said = first === undefined ? `NOT noticed in ${seeds} seeds` : `${first.invariant}, seed ${first.seed}`;
    console.log(`${mutation.name}: ${said}`);
  }
  return unseen > 0 ? 1 : 0;
}
